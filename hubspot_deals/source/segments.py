"""Segments of the deals that a search finds: each read by ascending id, and proved by its count.

A segment is cut off by asking for the page some pages ahead: its deals are read with it, and what
lies before it is as many as were skipped. So segments cost no request more than their pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hubspot_deals.source.deals import DealReader
from hubspot_deals.source.outlet import PageOutlet
from hubspot_deals.source.plan import Checkpoint, DealRange, Span, above_id, date_filters, up_to_id
from hubspot_deals.source.search import SEARCH_PAGE, SearchWindow, UnsoundSearchError
from hubspot_deals.source.shards import Proof, Shard, ShardLedger

SEARCH_READERS: Final = 6
"""Searches under way or waiting at once: five a second that take up to 0.6 s each are three."""
LEAST_PAGES: Final = 5
"""Of a segment: one is cut off after the other, so short ones would leave readers idle."""
_EMPTY_PAGES: Final = 3
"""Empty pages with more behind them that are asked for again, in case they only failed to fill."""


@dataclass(slots=True)
class ShardReading:
    """One range while it is read by shards: what readers of its shards share."""

    reader: DealReader
    outlet: PageOutlet
    number: int
    deal_range: DealRange
    ledger: ShardLedger

    def put(self, deals: Sequence[dict[str, object]], *, reserved: int) -> None:
        """Pass on deals of a page after the ledger has moved behind it."""
        checkpoint = Checkpoint(self.number, frontier=self.ledger.frontier())
        self.outlet.put(deals, self.deal_range, checkpoint, reserved=reserved)


@dataclass(frozen=True, slots=True)
class Segments:
    """Cuts segments off a shard and reads them, within a date range or none."""

    reading: ShardReading
    span: Span | None

    async def carve(self, pool: int, size: int) -> int | None:
        """Cut about so many deals off the low end of a shard; return the key of that segment.

        None if the search finds nothing in the shard, or somebody changed it meanwhile; it is then
        left as it is. Raises UnsoundSearchError.
        """
        ledger = self.reading.ledger
        shard = ledger.shards[pool]
        skipped = max(0, size - SEARCH_PAGE)
        window = await self._window(shard, skipped=skipped)
        if window.total == 0 or not _still_holds(ledger.shards.get(pool), shard, window):
            self.reading.outlet.give_back(SEARCH_PAGE)
            return None
        left = window.total - skipped - len(window.ids)
        is_whole = ledger.shards[pool] == shard
        return self._cut_segment(pool, window, skipped, left if is_whole else left // 2)

    async def cut_ahead(self, key: int, skipped: int, end: int) -> tuple[int, int] | None:
        """Cut a shard behind so many deals, where its reader goes on meanwhile.

        Return the keys of the upper part and of a segment of one page at its low end; the part
        above `end` is left over. None if the shard has less; the ledger has then learned how much.
        """
        ledger = self.reading.ledger
        shard = ledger.shards[key]
        upper = end if shard.upper is None else shard.upper
        window = await self._window(replace(shard, upper=upper), skipped=skipped)
        below, now = window.ids[0] - 1 if window.ids else 0, ledger.shards.get(key)
        if now is None or now.upper != shard.upper or below <= now.reached:
            self.reading.outlet.give_back(SEARCH_PAGE)
            if now is not None:
                ledger.learn(key, left=window.total)
            return None
        if shard.upper is None:
            ledger.end_before(key, end)
        pool = ledger.cut(key, below)
        ledger.learn(key, left=skipped)
        window = replace(window, total=window.total - skipped)
        return pool, self._cut_segment(pool, window, 0, window.total - len(window.ids))

    def _cut_segment(self, pool: int, window: SearchWindow, skipped: int, left: int) -> int:
        """Make a segment of the deals up to the end of a page, and put the page."""
        ledger = self.reading.ledger
        shard = ledger.shards[pool]
        segment = _segment_before(window, shard, skipped)
        if window.ids and not window.is_last:
            ledger.shards[pool] = replace(shard, reached=window.ids[-1])
            ledger.learn(pool, left=left)
        else:
            ledger.close(pool)
        key = ledger.add(segment, held=True)
        self.reading.put(window.deals, reserved=SEARCH_PAGE)
        return key

    async def walk(self, key: int) -> None:
        """Read the rest of a segment, unless it is taken away. Raises UnsoundSearchError."""
        ledger, empty_pages = self.reading.ledger, 0
        while (shard := ledger.shards.get(key)) and shard.proof and _has_more(shard):
            window = await self._window(shard)
            if not window.ids and not window.is_last:
                self.reading.outlet.give_back(SEARCH_PAGE)
                empty_pages += 1
                if empty_pages > _EMPTY_PAGES:
                    raise UnsoundSearchError
                continue
            self._advance(key, window)
            if window.is_last:
                return

    async def count(self, proof: Proof) -> int | None:
        """Return how many deals the search counts in a segment by now."""
        return await self.reading.reader.search.count_within(self._bounds(proof.start, proof.top))

    def _advance(self, key: int, window: SearchWindow) -> None:
        ledger = self.reading.ledger
        shard = ledger.shards.get(key)
        if shard is not None and shard.proof is not None:
            reached = window.ids[-1] if window.ids else shard.reached
            if window.is_last and shard.upper is not None:
                reached = shard.upper
            proof = replace(shard.proof, read=shard.proof.read + len(window.ids))
            ledger.replace(key, Shard(reached, shard.upper, proof))
        self.reading.put(window.deals, reserved=SEARCH_PAGE)

    async def _window(self, shard: Shard, *, skipped: int = 0) -> SearchWindow:
        """Return a page inside a shard, with room for it."""
        outlet = self.reading.outlet
        await outlet.reserve(SEARCH_PAGE)
        try:
            bounds = self._bounds(shard.reached, shard.upper)
            window = await self.reading.reader.search.window(bounds, skipped=skipped)
            _check_bounds(window, shard)
        except BaseException:
            outlet.give_back(SEARCH_PAGE)
            raise
        return window

    def _bounds(self, reached: int, upper: int | None) -> list[Mapping[str, str]]:
        highest = [] if upper is None else [up_to_id(upper)]
        return [above_id(reached), *highest, *date_filters(self.span)]


def _check_bounds(window: SearchWindow, shard: Shard) -> None:
    highest = shard.upper
    if window.ids and (
        window.ids[0] <= shard.reached or (highest is not None and window.ids[-1] > highest)
    ):
        raise UnsoundSearchError


def _still_holds(now: Shard | None, asked: Shard, window: SearchWindow) -> bool:
    """Tell whether a page is of a shard all the same whose upper part was taken meanwhile."""
    if now is None or now.reached != asked.reached:
        return False
    if now.upper == asked.upper:
        return True
    return bool(window.ids) and now.upper is not None and window.ids[-1] < now.upper


def _has_more(shard: Shard) -> bool:
    return shard.upper is None or shard.reached < shard.upper


def _segment_before(window: SearchWindow, shard: Shard, skipped: int) -> Shard:
    """Return the segment that ends with this page, with the page's deals as read."""
    read, start = len(window.ids), shard.reached
    if not window.ids:
        return Shard(start, shard.upper, Proof(start, shard.upper, 0, window.total))
    first, last = window.ids[0], window.ids[-1]
    top = shard.upper if window.is_last else last
    count = window.total if window.is_last else skipped + SEARCH_PAGE
    # Nothing lies before a page that skips nothing.
    reached = start if skipped else first - 1
    return Shard(reached, first - 1, Proof(start, top, read, count))
