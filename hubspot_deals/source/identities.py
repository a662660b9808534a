"""Compares the ids of an account's deals with those that are known of it, to notice what vanished.

HubSpot tells nobody that a deal was archived or deleted: it is only gone from wherever live deals
are. By counting, the search shows in one request whether any is, and in some more which.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pyroaring import BitMap64

from hubspot_deals.errors import HubSpotRequestError
from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.deals import DealReader
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.pages import id_number
from hubspot_deals.source.plan import (
    NUMERIC_ID,
    ListRange,
    above_id,
    among_ids,
    changed_since,
    up_to_id,
)
from hubspot_deals.source.search import SEARCH_PAGE, DealSearch, UnsoundSearchError

MOST_REQUESTS: Final = 12
"""One deal among a million is found with 13, so in this run or the next."""
_LEAF: Final = 3 * SEARCH_PAGE
"""Deals that are looked through page by page: cheaper than to halve them once more."""
_HIGHEST: Final = 2**63 - 1
_MOST_SHOWN: Final = 10_000
_MOST_VALUES: Final = 100

Stretch = tuple[int, int]
"""The ids above the first and up to the second."""
_EVERYTHING: Final[Stretch] = (0, _HIGHEST)


@dataclass(slots=True)
class Difference:
    """Where the account's live deals are others than the known ones.

    `missing` are known ids that were not found, `extra` unknown ones that were; neither is proved,
    `find_fates` does that. `unlocated` is how many more there are at least: the requests that were
    allowed did not suffice to find them. They are in `suspects`, where the next run looks first, or
    were not yet looked for. With three requests or more each run gets nearer to them.
    """

    missing: BitMap64 = field(default_factory=BitMap64)
    extra: BitMap64 = field(default_factory=BitMap64)
    unlocated: int = 0
    suspects: list[Stretch] = field(default_factory=list)


class _Comparison:
    """One comparison of ids by counting. What it has found out counts as known from then on."""

    def __init__(
        self, search: DealSearch, known: BitMap64, removed: BitMap64, most_requests: int | None
    ) -> None:
        self._search = search
        self._known = known.copy()
        """What the index should count."""
        self._removed = removed - known
        self._hidden = BitMap64()
        """Of those the ones that no page shows: the index has not learned yet that they left."""
        self._left = most_requests
        self._parts: list[tuple[Stretch, int | None]] = []
        """What is still to be looked into, the next one last, with its count if it is known."""
        self.found = Difference()

    async def run(self, suspects: Sequence[Stretch]) -> None:
        """Halve whatever differs until it is found; what was suspected before comes first."""
        self._hidden = await self._still_counted(list(self._removed))
        self._known |= self._hidden
        total = await self._count(_EVERYTHING)
        if self._wrong(_EVERYTHING, total) == 0:
            return
        if total == _MOST_SHOWN < len(self._known):
            # A count that ends where a search's results do: no recording says that there is none.
            raise UnsoundSearchError
        self._parts = [(_EVERYTHING, total), *((part, None) for part in reversed(suspects))]
        while self._parts:
            part, count = self._parts.pop()
            if self._may_ask():
                await self._look_into(part, await self._count(part) if count is None else count)
            elif part != _EVERYTHING and (count is None or self._wrong(part, count)):
                self.found.suspects.append(part)
        self.found.unlocated = self._wrong(_EVERYTHING, total)

    async def _look_into(self, part: Stretch, total: int) -> None:
        if (wrong := self._wrong(part, total)) == 0:
            return
        known = _between(self._known, part)
        if min(known, total) <= _LEAF:
            await self._look_through(part, wrong)
        elif not self._may_ask():
            self.found.suspects.append(part)
        else:
            middle = self._known[self._known.rank(part[0]) + known // 2]
            below = part[0], middle
            count = await self._count(below)
            self._parts += [((middle, part[1]), max(0, total - count)), (below, count)]

    def _wrong(self, part: Stretch, total: int) -> int:
        """Return by how many a count differs."""
        return abs(_between(self._known, part) - total)

    async def _look_through(self, part: Stretch, wrong: int) -> None:
        """Compare page by page, until as many are found as the count differs by."""
        low, high = part
        found = 0
        while low < high and found < wrong:
            if not self._may_ask():
                self.found.suspects.append((low, high))
                return
            self._spend()
            page = await self._search.window(_bounds((low, high)))
            if not page.ids and not page.is_last:
                raise UnsoundSearchError
            reached = high if page.is_last else page.ids[-1]
            slots = page.total if page.is_last else SEARCH_PAGE
            found += await self._compare((low, reached), BitMap64(page.ids), slots - len(page.ids))
            low = reached

    async def _compare(self, part: Stretch, ids: BitMap64, holes: int) -> int:
        """Compare a page with what is known there; return how much of a wrong count it explains.

        A deal that left just now is counted all the same, and leaves a hole in its page.
        """
        first, last = self._known.rank(part[0]), self._known.rank(part[1])
        known = BitMap64(self._known[first:last])
        missing, extra = known - ids - self._hidden, ids - known
        self.found.missing |= missing
        self.found.extra |= extra
        if missing and holes > len(known & self._hidden):
            self._hidden |= await self._still_counted(list(missing))
        gone = missing - self._hidden
        self._known = (self._known - gone) | extra
        return len(gone) + len(extra)

    async def _still_counted(self, ids: Sequence[int]) -> BitMap64:
        """Return which of the ids that were removed of late the index counts."""
        if not ids or not self._may_ask():
            return BitMap64()
        if len(ids) <= _MOST_VALUES:
            self._spend()
            total = await self._search.total([among_ids(ids)])
            if total in {0, len(ids)}:
                return BitMap64(ids if total else [])
        half = len(ids) // 2
        return await self._still_counted(ids[:half]) | await self._still_counted(ids[half:])

    async def _count(self, part: Stretch) -> int:
        self._spend()
        return await self._search.total(_bounds(part))

    def _may_ask(self) -> bool:
        return self._left is None or self._left > 0

    def _spend(self) -> None:
        if self._left is not None:
            self._left -= 1


async def find_difference(  # noqa: PLR0913 - what is known, and what may be spent
    client: HubSpotClient,
    endpoints: Endpoints,
    known: BitMap64,
    *,
    removed: BitMap64 | None = None,
    suspects: Sequence[Stretch] = (),
    most_requests: int | None = MOST_REQUESTS,
) -> Difference:
    """Compare the known live deals with the search's counts: one request if all agree.

    Each deal that differs takes as many more as the deals can be halved until 600 are left, and
    up to three pages of those. `removed` are ids that were taken out of `known` of late: the index
    is asked whether it has learned of it, a request for each hundred. One deal that vanished and
    one that appeared can hide each other, which only `list_ids` shows. Raises
    UnsoundSearchError where the search does not count.
    """
    search = DealSearch(client, endpoints, (NUMERIC_ID,))
    comparison = _Comparison(search, known, removed or BitMap64(), most_requests)
    await comparison.run(suspects)
    return comparison.found


async def find_arrivals(
    client: HubSpotClient, endpoints: Endpoints, known: BitMap64, since: datetime
) -> BitMap64:
    """Return unknown live deals that were changed, created or restored since a moment.

    Asked for behind a comparison, they are the ones that may have hidden as many that vanished: the
    index learned of them after the changes were read. One request for each 200 deals that changed.
    """
    search = DealSearch(client, endpoints, (NUMERIC_ID,))
    changed = changed_since(int(since.timestamp() * 1_000))
    found, last_id = BitMap64(), 0
    while True:
        page = await search.window([changed, above_id(last_id)] if last_id else [changed])
        found.update(page.ids)
        if page.is_last or not page.ids:
            return found - known
        last_id = page.ids[-1]


def list_ids(account: HubSpotAccount) -> BitMap64:
    """Return the ids of all live deals by the list, which lags behind nothing.

    A request for each hundred deals, as many at a time as a scan's.
    """
    ids = BitMap64()
    with account.open_deals([ListRange()], (NUMERIC_ID,)) as stream:
        for page in stream.pages:
            ids.update(id_number(deal) for deal in page.deals)
    return ids


@dataclass(frozen=True, slots=True)
class ArchivedPass:
    """Some pages of the archived list: their deals, and the cursor behind them; None at its end."""

    deals: list[dict[str, Any]]
    following: str | None


async def read_archived(
    client: HubSpotClient,
    endpoints: Endpoints,
    properties: Sequence[str],
    *,
    after: str | None = None,
    most_pages: int | None = None,
) -> ArchivedPass:
    """Read so many pages of the archived list, from where the last run has stopped.

    The list holds what was archived in the last ninety days, in no order that is known of. A
    cursor that HubSpot no longer takes begins the list anew.
    """
    reader = DealReader(client, endpoints, properties)
    try:
        return await _pages_of(reader, after, most_pages)
    except HubSpotRequestError:
        if after is None:
            raise
        return await _pages_of(reader, None, most_pages)


async def _pages_of(reader: DealReader, after: str | None, most_pages: int | None) -> ArchivedPass:
    deals: list[dict[str, Any]] = []
    read = 0
    async for page in reader.list_pages(after, archived=True):
        deals += page.deals
        read += 1
        if page.following is None or read == most_pages:
            return ArchivedPass(deals, page.following)
    return ArchivedPass(deals, None)


def _bounds(part: Stretch) -> list[dict[str, str]]:
    """Return the filters for a stretch of ids; none where there is no bound."""
    low, high = part
    lower = [above_id(low)] if low > 0 else []
    return lower + ([up_to_id(high)] if high < _HIGHEST else [])


def _between(ids: BitMap64, part: Stretch) -> int:
    """Count the ids of a stretch."""
    return ids.range_cardinality(part[0] + 1, part[1] + 1)
