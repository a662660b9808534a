"""Reads the list of live deals at several places at a time, and its older deals by search as well.

That the list is ordered by id and can be entered at any id is checked with every page; if it is
not so, DisorderError, and the list has to be read as one chain. What a search does not prove is
left to the list.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from enum import Enum, auto
from itertools import pairwise
from math import ceil
from typing import Final, TypeVar

from hubspot_deals.errors import HubSpotDealsError
from hubspot_deals.source.deals import LIST_PAGE, ListedPage
from hubspot_deals.source.governor import Budget
from hubspot_deals.source.plan import above_id, changed_since, up_to_id
from hubspot_deals.source.search import SEARCH_PAGE, UnsoundSearchError
from hubspot_deals.source.segments import LEAST_PAGES, SEARCH_READERS, Segments, ShardReading
from hubspot_deals.source.shards import Shard, work_together

_T = TypeVar("_T")
_LIST_READERS: Final = 10
"""Pages under way at once: 19 a second that take up to 0.5 s each."""
_LEAST_LISTED: Final = 12 * LIST_PAGE
"""Deals that make half a shard worth a request that may find it empty."""
_LEAST_SEARCHED: Final = 4 * SEARCH_PAGE
_SEGMENT: Final = 1_200
_LONG_WAIT: Final = 0.6
"""Seconds that a search takes. Where it waits for its slot as long, other scans use the budget too:
few readers do, and short segments keep all of them busy to the end."""
_SHORT_SEGMENT: Final = 2 * SEARCH_PAGE
_LONGEST_JUMP: Final = 9_800
"""Deals that a search may skip: it shows 10,000."""
_MOST_CHANGED: Final = 0.1
"""Part of all deals from which on recent changes cost less by list."""
_PATIENCE: Final = 30.0
"""Seconds without any progress, with nothing left for the list, until a search is given up. When
twenty scans share the account, a search waits that long for its turn."""
_TRIAL: Final = 0.05
"""Part of the settling time after which it is decided if the search helps."""
LAG_SECONDS: Final = 60.0
"""What was older than that when the scan began is in the search's index at once."""
_LONGEST_SOUND_ID: Final = 15
"""Digits that a search which takes ids for floating-point numbers still tells apart."""


class DisorderError(Exception):
    """The list is not one that can be entered at any id."""


def check_order(page: ListedPage, reached: int) -> None:
    """Raise DisorderError unless the ids ascend from `reached` on and the cursor is one too."""
    following = page.following
    if page.ids and page.ids[0] < reached:
        raise DisorderError
    if any(low >= high for low, high in pairwise(page.ids)):
        raise DisorderError
    last = page.ids[-1] if page.ids else reached - 1
    if following is not None and not (following.isdecimal() and int(following) > last):
        raise DisorderError


class _Search(Enum):
    """Whether the search helps the list."""

    ASKED = auto()
    SOUND = auto()
    UNSOUND = auto()


class ListedRange:
    """The live deals of one account while they are read by shards; DisorderError if they can't be.

    `known` are listed ids in a row: a search that helps must show the same. `settling` are the
    seconds after which the search's index has all that was there when the scan began.
    """

    def __init__(
        self, reading: ShardReading, known: Sequence[int], *, searched: bool, settling: float
    ) -> None:
        self._reading = reading
        self._ledger = reading.ledger
        self._governor = reading.reader.client.governor
        self._governor.when_admitted = self._ledger.wake
        self._segments = Segments(reading, None)
        self._known = known
        self._settling = settling
        self._listed = 0
        self._search = _Search.ASKED if searched else _Search.UNSOUND
        self._searching: asyncio.Task[None] | None = None
        self._carving = asyncio.Lock()
        self._pool: int | None = None
        self._end: int | None = None
        """The newest deal of the start: what comes later the search learns of too late."""
        self._for_list: set[int] = set()
        """Shards that no search tries again: it found no deals, or not all that it counted."""
        self._first_ids: dict[int, Sequence[int]] = {}

    async def read(self) -> None:
        """Read everything that the ledger holds."""
        await work_together([self._read_by_list(), self._read_by_search()])
        if self._ledger.searched and not await self._sweep():
            self._give_up_search()
            self._ledger.add(Shard(0, self._ledger.searched))
            self._ledger.searched = 0
            await self._read_by_list()

    # -- by list

    async def _read_by_list(self) -> None:
        await work_together(self._list() for _ in range(_LIST_READERS))
        if self._searching is not None:
            self._searching.cancel()

    async def _list(self) -> None:
        while self._ledger.shards:
            key = self._ledger.take(self._is_for_the_list)
            if key is None and self._governor.is_free(Budget.BURST):
                key = self._split()
            if key is None:
                await self._wait()
                continue
            if (proof := self._ledger.shards[key].proof) is not None:
                self._ledger.replace(key, Shard(proof.start, proof.top))
            await self._walk(key)

    def _split(self) -> int | None:
        ledger = self._ledger
        key = ledger.largest(least=_LEAST_LISTED, spared=self._pool)
        return None if key is None else ledger.halve(key)

    def _is_for_the_list(self, _: int, shard: Shard) -> bool:
        return shard.proof is None or self._search is _Search.UNSOUND

    async def _wait(self) -> None:
        """Wait for something to do; a search that is at a standstill is not waited for."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._ledger.change()
        except TimeoutError:
            self._give_up_search()

    async def _walk(self, key: int) -> None:
        start = self._ledger.shards[key].reached
        # Behind or at the last id that is read: right whether the list takes it as included or not.
        pages = self._reading.reader.list_pages(str(start))
        async for page in self._reading.outlet.reserving(pages, LIST_PAGE):
            if self._take_in(key, page, start):
                self._ledger.fix(key, fixed=True)
                break
        if key in self._ledger.shards:
            await self._stitch(key, page)
            self._ledger.close(key)

    def _take_in(self, key: int, page: ListedPage, start: int) -> bool:
        """Move a shard behind a page and pass it on; tell whether the shard is at its end."""
        shard, outlet = self._ledger.shards[key], self._reading.outlet
        try:
            check_order(page, shard.reached)
        except DisorderError:
            outlet.give_back(LIST_PAGE)
            raise
        if shard.reached == start:
            self._first_ids.setdefault(start, page.ids)
            self._ledger.found(
                key, deals=bool(page.ids) and page.ids[0] <= (shard.upper or page.ids[0])
            )
        if page.ids:
            gap = (page.ids[-1] - page.ids[0]) / len(page.ids)
            reached = min(page.ids[-1], shard.upper or page.ids[-1])
            self._ledger.move(key, reached, gap=gap, read=len(page.ids))
        reached = self._ledger.shards[key].reached
        self._listed += len(page.ids)
        self._reading.put(page.deals, reserved=LIST_PAGE)
        following = page.following
        if following is None or shard.upper is None:
            return following is None
        return reached >= shard.upper or int(following) > shard.upper

    async def _stitch(self, key: int, page: ListedPage) -> None:
        """Where a shard ran into the next one, both must have seen the same deals.

        One that came into being between the two requests is looked for once more.
        """
        upper = self._ledger.shards[key].upper
        ids = self._first_ids.get(upper) if upper is not None else None
        if upper is None or not ids:
            return
        missed = {number for number in page.ids if upper < number <= ids[-1]} - set(ids)
        if missed:
            again, _ = await self._reading.reader.list_ids(str(upper))
            if not missed <= set(again):
                raise DisorderError

    # -- by search

    async def _read_by_search(self) -> None:
        self._searching = asyncio.current_task()
        is_asked = self._search is _Search.ASKED and await self._pays()
        if is_asked and await self._sound(self._ask_search()):
            self._search = _Search.SOUND
            self._ledger.wake()
            await work_together(self._search_on() for _ in range(SEARCH_READERS))
        else:
            self._give_up_search()

    async def _pays(self) -> bool:
        """Tell whether the list alone would take longer than a search has to settle."""
        pause = _TRIAL * self._settling
        await asyncio.sleep(pause)
        left = (self._ledger.count or 0) - self._listed
        return left * pause >= self._settling * self._listed

    async def _ask_search(self) -> bool:
        """Find out where the account ends, and whether the search shows what the list has."""
        search = self._reading.reader.search
        below = above_id(self._known[0] - 1)
        extent, window = await asyncio.gather(
            self._reading.reader.measure(None), search.window([below])
        )
        self._ledger.newest = self._end = extent.newest if extent else None
        missed = {number for number in self._known if number not in set(window.ids)}
        if missed:
            # Unless it is gone meanwhile.
            ids, _ = await self._reading.reader.list_ids(str(self._known[0] - 1))
            missed &= set(ids)
        return self._end is not None and not missed

    async def _search_on(self) -> None:
        while self._search is _Search.SOUND and self._ledger.shards:
            async with self._carving:
                key = self._ledger.take(lambda _, shard: shard.proof is not None)
                if key is None and self._governor.is_free(Budget.SEARCH):
                    key = await self._sound(self._carve())
            if key is not None:
                await self._sound(self._segments.walk(key))
                await self._settle(key)
            elif self._ledger.shards:
                await self._ledger.change()

    async def _sound(self, step: Awaitable[_T]) -> _T | None:
        """Take a step of a search; one that fails in any way ends the searching, not the scan."""
        try:
            return await step
        except (UnsoundSearchError, HubSpotDealsError):
            self._give_up_search()
            return None

    def _give_up_search(self) -> None:
        """Leave everything to the list, also what a search is still waiting for."""
        self._search = _Search.UNSOUND
        if self._pool is not None and not self._ledger.is_fixed(self._pool):
            self._leave(self._pool)  # else `_carve` does, which is waiting for an answer
        for key, shard in list(self._ledger.shards.items()):
            if shard.proof is not None:
                self._give_to_list(key)
        self._ledger.wake()

    async def _carve(self) -> int | None:
        """Cut a segment off the low end of a shard that only this method and the list change."""
        ledger = self._ledger
        if self._pool is None:
            self._pool = ledger.take(
                lambda key, shard: _has_end(shard) and key not in self._for_list
            )
        if self._pool is None:
            return await self._cut_ahead()
        pool = self._pool
        ledger.fix(pool, fixed=True)
        try:
            key = await self._segments.carve(pool, self._segment_size(ledger.estimate(pool)))
        finally:
            ledger.fix(pool, fixed=False)
        if pool in ledger.shards and (key is None or self._search is _Search.UNSOUND):
            # That there are no deals is left for the list to see.
            self._for_list.add(pool)
            self._leave(pool)
        elif pool not in ledger.shards:
            self._pool = None
        return self._checked(key)

    async def _cut_ahead(self) -> int | None:
        """Take the upper part of a shard that the list is reading, and a segment off that."""
        ledger = self._ledger
        key = ledger.largest(least=_LEAST_SEARCHED)
        if key is None or self._end is None:
            return None
        # A third of all deals is what the search reads while the list reads the others.
        most = min(_LONGEST_JUMP, (ledger.count or 0) // 3)
        pages = min(int(ledger.estimate(key)) // 2, most) // SEARCH_PAGE
        ledger.fix(key, fixed=True)
        try:
            keys = await self._segments.cut_ahead(key, pages * SEARCH_PAGE, self._end)
        finally:
            ledger.fix(key, fixed=False)
        if keys is None:
            return None
        pool, segment = keys
        if pool in ledger.shards:
            self._pool = pool
            if self._search is _Search.UNSOUND:
                self._leave(pool)
        return self._checked(segment)

    def _checked(self, key: int | None) -> int | None:
        """Return a segment, or leave it to the list if its ids may be compared in another way."""
        if key is not None and not _is_same_length(self._ledger.shards[key]):
            self._give_to_list(key)
            return None
        return key

    def _segment_size(self, left: float) -> int:
        """Return how many deals to cut off: fewer near the end, and no more than are left.

        One page of a shard that nothing is known of: it tells how many deals there are.
        """
        if self._governor.last_wait(Budget.SEARCH) > _LONG_WAIT:
            most = _SHORT_SEGMENT
        else:
            pages = max(LEAST_PAGES, int(left) // (SEARCH_READERS * SEARCH_PAGE))
            most = min(_SEGMENT, pages * SEARCH_PAGE)
        return min(most, (ceil(left / SEARCH_PAGE) or 1) * SEARCH_PAGE)

    async def _settle(self, key: int) -> None:
        """Close a segment that is proved; leave it to the list otherwise."""
        shard = self._ledger.shards.get(key)
        proof = shard.proof if shard else None
        if proof is not None and proof.read < proof.count:
            count = await self._sound(self._segments.count(proof))
            proof = proof if count is not None and proof.read >= count else None
        if key not in self._ledger.shards or self._ledger.shards[key].proof is None:
            return  # given to the list meanwhile
        if proof is not None and self._search is _Search.SOUND:
            self._ledger.searched = max(self._ledger.searched, proof.top or 0)
            self._ledger.close(key)
        else:
            self._give_to_list(key)

    async def _sweep(self) -> bool:
        """Read what the index may have learned of too late: all that changed about the start.

        Tell whether that was possible. The list needs none of it, it lags behind nothing.
        """
        reached, outlet = 0, self._reading.outlet
        settled = self._ledger.since / 1000 + LAG_SECONDS + self._settling
        await asyncio.sleep(min(settled - time.time(), self._settling))
        while True:
            bounds = [above_id(reached), up_to_id(self._ledger.searched)]
            try:
                window = await self._reading.reader.search.window(
                    [*bounds, changed_since(self._ledger.since)]
                )
            except (UnsoundSearchError, HubSpotDealsError):
                return False
            is_stuck = not window.is_last and (not window.ids or window.ids[0] <= reached)
            if is_stuck or window.total > _MOST_CHANGED * (self._ledger.count or 0):
                return False
            await outlet.reserve(SEARCH_PAGE)
            self._reading.put(window.deals, reserved=SEARCH_PAGE)
            if window.is_last:
                return True
            reached = window.ids[-1]

    def _give_to_list(self, key: int) -> None:
        proof = self._ledger.shards[key].proof
        if proof is not None:
            self._ledger.replace(key, Shard(proof.start, proof.top))
        self._for_list.add(key)
        self._ledger.release(key)

    def _leave(self, pool: int) -> None:
        self._pool = None
        self._ledger.release(pool)


def _has_end(shard: Shard) -> bool:
    return shard.upper is not None and shard.proof is None


def _is_same_length(segment: Shard) -> bool:
    """Check that ids of a segment compare alike as numbers and as texts, which servers may do."""
    proof = segment.proof
    if proof is None or proof.top is None:
        return False
    return len(str(proof.start)) == len(str(proof.top)) <= _LONGEST_SOUND_ID
