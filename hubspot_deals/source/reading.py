"""Reads the ranges of a plan in order, each by as many requests at a time as pay and are exact.

A range begins as one chain of pages. When it turns out to be big, and the server to keep its deals
in the order of their ids, it is cut into shards; otherwise the chain goes on to its end. Archived
deals are always read as a chain, after the live ones, so that one that is archived meanwhile shows
up in the one or the other.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hubspot_deals.errors import HubSpotRequestError
from hubspot_deals.source.deals import (
    LIST_INSTEAD,
    LIST_PAGE,
    DealReader,
    ListedPage,
    largest_page,
)
from hubspot_deals.source.listing import LAG_SECONDS, DisorderError, ListedRange, check_order
from hubspot_deals.source.outlet import PageOutlet
from hubspot_deals.source.plan import Checkpoint, DealRange, SearchRange
from hubspot_deals.source.search import UnsoundSearchError
from hubspot_deals.source.searching import SearchedRange
from hubspot_deals.source.segments import ShardReading
from hubspot_deals.source.shards import Frontier, Shard, ShardLedger

_TRIES: Final = 2
"""Of entering the list in the middle: a deal that changes just then looks like disorder."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """From which numbers of deals on a range is read in other ways.

    More than `few` are read by shards: ten pages in a row take less than three seconds. From `many`
    on the search helps the list, if that alone would take longer than `settling`: the seconds
    until the search's index has what was there at the start; half a minute was seen at most.
    """

    few: int = 1_000
    many: int = 20_000
    settling: float = 30.0


async def read_plan(
    reader: DealReader,
    outlet: PageOutlet,
    plan: Sequence[DealRange],
    start: Checkpoint,
    sizes: Sizes = Sizes(),
) -> None:
    """Put every page of a plan into the outlet, from a checkpoint on."""
    for number, deal_range in enumerate(plan):
        if number < start.range_no:
            continue
        at = start if number == start.range_no else Checkpoint(number)
        await _RangeReader(reader, outlet, number, deal_range, sizes).read(at)


class _RangeReader:
    """One range: decides how it is read, and what is done when that was not possible."""

    def __init__(
        self,
        reader: DealReader,
        outlet: PageOutlet,
        number: int,
        deal_range: DealRange,
        sizes: Sizes,
    ) -> None:
        self._reader = reader
        self._outlet = outlet
        self._number = number
        self._range = deal_range
        self._sizes = sizes
        self._count: int | None = None

    async def read(self, at: Checkpoint) -> None:
        if at.cursor is not None or self._range.archived:
            # Also what an earlier version of this program has begun.
            await self._read_chain(at.cursor)
            return
        frontier = at.frontier
        if isinstance(self._range, SearchRange) and not (frontier and frontier.listed):
            if await self._search(self._range, frontier):
                return
            if not self._range.or_list:
                raise UnsoundSearchError
            frontier = None
        try:
            await self._list(frontier)
        except DisorderError:
            is_search = isinstance(self._range, SearchRange)
            await self._read_chain(LIST_INSTEAD if is_search else None)

    async def _search(self, deal_range: SearchRange, frontier: Frontier | None) -> bool:
        """Read a date range by search; tell whether that was complete."""
        if frontier is None:
            count = await self._reader.count(deal_range.filter)
            if count is None or count <= self._sizes.few:
                await self._read_chain(None)
                return True
            frontier = Frontier((Shard(0),), count=count)
        try:
            await SearchedRange(self._sharded(ShardLedger(frontier)), deal_range.filter).read()
        except UnsoundSearchError:
            return False
        self._finish()
        return True

    async def _list(self, frontier: Frontier | None) -> None:
        """Read the list of live deals, in shards if it is worth it."""
        is_filtered = isinstance(self._range, SearchRange)
        began = int((time.time() - LAG_SECONDS) * 1000)
        if frontier is None:
            page = await self._begin_list(LIST_INSTEAD if is_filtered else "")
            if page is None:
                return
            shards = (Shard(page.ids[-1]),)
            frontier = Frontier(shards, listed=is_filtered, count=self._count, since=began)
        else:
            page = await self._first_page()
        reading = self._sharded(ShardLedger(frontier))
        known = page.ids[len(page.ids) // 2 :]
        is_big = frontier.count is not None and frontier.count >= self._sizes.many
        await ListedRange(
            reading,
            known,
            searched=is_big and not is_filtered,
            settling=self._sizes.settling,
        ).read()
        self._finish()

    async def _begin_list(self, prefix: str) -> ListedPage | None:
        """Read the first pages; return the last one of them when the rest can be read by shards."""
        counting = asyncio.create_task(self._reader.count(None))
        pages, begun, tries = self._reader.list_pages(None), 0, 0
        try:
            async for page in self._outlet.reserving(pages, LIST_PAGE):
                begun += 1
                self._put_chained(page, prefix)
                if page.following is None:
                    return None
                self._count = counting.result() if counting.done() else None
                if tries < _TRIES and self._is_worth_it(begun):
                    tries += 1
                    if await self._is_ordered(page):
                        return page
        finally:
            counting.cancel()
        return None

    def _put_chained(self, page: ListedPage, prefix: str) -> None:
        following = page.following
        checkpoint = Checkpoint(self._number + 1)
        if following is not None:
            checkpoint = Checkpoint(self._number, prefix + following)
        self._outlet.put(page.deals, self._range, checkpoint, reserved=LIST_PAGE)

    async def _first_page(self) -> ListedPage:
        """Look at the start of the list again; DisorderError if it can't be read by shards."""
        ids, following = await self._reader.list_ids(None)
        page = ListedPage([], ids, following)
        if not await self._is_ordered(page):
            raise DisorderError
        return page

    def _is_worth_it(self, begun: int) -> bool:
        if self._count is None:
            return begun * LIST_PAGE > self._sizes.few
        return self._count > self._sizes.few

    async def _is_ordered(self, page: ListedPage) -> bool:
        """Enter the list at an id in the middle of a page: the rest of the page must follow."""
        half = len(page.ids) // 2
        if half == 0:
            return False
        middle = page.ids[half]
        try:
            check_order(page, page.ids[0])
            ids, following = await self._reader.list_ids(str(middle - 1))
            check_order(ListedPage([], ids, following), middle - 1)
        except (DisorderError, HubSpotRequestError):
            return False
        return [number for number in ids if middle <= number <= page.ids[-1]] == page.ids[half:]

    async def _read_chain(self, cursor: str | None) -> None:
        """Read the range page after page, as any server allows."""
        size = largest_page(self._range)
        pages = self._reader.walk(self._range, cursor)
        async for deals, after in self._outlet.reserving(pages, size):
            checkpoint = Checkpoint(self._number + 1)
            if after is not None:
                checkpoint = Checkpoint(self._number, after)
            self._outlet.put(deals, self._range, checkpoint, reserved=size)

    def _sharded(self, ledger: ShardLedger) -> ShardReading:
        return ShardReading(self._reader, self._outlet, self._number, self._range, ledger)

    def _finish(self) -> None:
        """Put the empty page whose checkpoint says that the range is read."""
        self._outlet.put([], self._range, Checkpoint(self._number + 1), reserved=0)
