"""Compares the ids of an account's deals with those that are known of it, to notice what vanished.

HubSpot tells nobody that a deal was archived or deleted: it is only gone from wherever live deals
are. By counting, the search shows in one request whether any is, and in some more which.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pyroaring import BitMap64

from hubspot_deals.errors import HubSpotRequestError
from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.deals import DealReader
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.pages import id_number
from hubspot_deals.source.plan import NUMERIC_ID, ListRange, above_id, up_to_id
from hubspot_deals.source.search import SEARCH_PAGE, DealSearch, UnsoundSearchError

MOST_REQUESTS: Final = 16
"""To find one deal among a million by counting takes 13."""
_LEAF: Final = 3 * SEARCH_PAGE
"""Deals that are looked through page by page: cheaper than to halve them once more."""
_HIGHEST: Final = 2**63 - 1


@dataclass(slots=True)
class Difference:
    """Where the account's live deals are others than the known ones.

    `missing` are known ids that were not found, `extra` unknown ones that were; neither is proved,
    `find_fates` does that. `unlocated` is how many are known to be missing or extra, and not found
    out with the requests that were allowed: at least so many, since both may be.
    """

    missing: BitMap64 = field(default_factory=BitMap64)
    extra: BitMap64 = field(default_factory=BitMap64)
    unlocated: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """The ids above `low` and up to `high`, and how many live deals the search counts there."""

    low: int
    high: int
    total: int


class _Comparison:
    """One comparison of ids by counting."""

    def __init__(
        self, search: DealSearch, known: BitMap64, removed: BitMap64, most_requests: int | None
    ) -> None:
        self._search = search
        self._known = known
        self._removed = removed
        self._left = most_requests
        self.found = Difference()

    async def run(self) -> None:
        """Halve whatever differs, the low half first, until it is found or nothing is left."""
        parts = [_Part(0, _HIGHEST, await self._count(0, _HIGHEST))]
        while parts:
            part = parts.pop()
            if (wrong := self._wrong(part)) == 0:
                continue
            known = self._known.range_cardinality(part.low + 1, part.high + 1)
            if self._left is not None and self._left <= 0:
                self.found.unlocated += wrong
            elif min(known, part.total) <= _LEAF:
                await self._look_through(part, wrong)
            else:
                first = self._known.rank(part.low)
                middle = self._known[first + known // 2]
                total = await self._count(part.low, middle)
                parts.append(_Part(middle, part.high, max(0, part.total - total)))
                parts.append(_Part(part.low, middle, total))

    def _wrong(self, part: _Part) -> int:
        """Return by how many a count differs; what was removed of late may count or not."""
        known = self._known.range_cardinality(part.low + 1, part.high + 1)
        removed = self._removed.range_cardinality(part.low + 1, part.high + 1)
        return max(known - part.total, part.total - known - removed, 0)

    async def _count(self, low: int, high: int) -> int:
        self._spend()
        total = await self._search.count_within(_bounds(low, high))
        if total is None:
            raise UnsoundSearchError
        return total

    async def _look_through(self, part: _Part, wrong: int) -> None:
        low, found = part.low, 0
        while low < part.high and found < wrong:
            if self._left is not None and self._left <= 0:
                self.found.unlocated += wrong - found
                return
            self._spend()
            page = await self._search.window(_bounds(low, part.high))
            if not page.ids and not page.is_last:
                raise UnsoundSearchError
            reached = part.high if page.is_last else page.ids[-1]
            ids = BitMap64(page.ids)
            known = _stretch(self._known, low, reached)
            missing, extra = known - ids, ids - known - self._removed
            self.found.missing |= missing
            self.found.extra |= extra
            found += len(missing) + len(extra)
            low = reached

    def _spend(self) -> None:
        if self._left is not None:
            self._left -= 1


async def find_difference(
    client: HubSpotClient,
    endpoints: Endpoints,
    known: BitMap64,
    *,
    removed: BitMap64 | None = None,
    most_requests: int | None = MOST_REQUESTS,
) -> Difference:
    """Compare the known live deals with the search's counts: one request if all agree.

    `removed` are ids that were taken out of `known` of late: the index may not have learned of it
    yet. One deal that vanished and one that appeared can hide each other, which only `list_ids`
    shows. Raises UnsoundSearchError where the search does not count.
    """
    search = DealSearch(client, endpoints, (NUMERIC_ID,))
    comparison = _Comparison(search, known, removed or BitMap64(), most_requests)
    await comparison.run()
    return comparison.found


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


def _bounds(low: int, high: int) -> list[dict[str, str]]:
    """Return the filters for a part; none where there is no bound."""
    lower = [above_id(low)] if low > 0 else []
    return lower + ([up_to_id(high)] if high < _HIGHEST else [])


def _stretch(ids: BitMap64, low: int, high: int) -> BitMap64:
    """Return the ids above one and up to another."""
    first, last = ids.rank(low), ids.rank(high)
    return BitMap64(ids[first:last])
