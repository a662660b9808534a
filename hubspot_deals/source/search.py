"""Searches the deals of a date range completely, although one search shows at most 10,000.

It asks again and again for ids above the last one: that needs no offsets, so deals that leave the
result shift nobody, and has no end at 10,000. It is complete if the server sorts and compares ids
alike, which is likely of HubSpot but not documented. So it is checked, and a search that fails the
check is given up for the list, which has every live deal.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from hubspot_deals.errors import HubSpotDealsError, HubSpotProtocolError, HubSpotRequestError
from hubspot_deals.source.arrow import parse_timestamp
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.pages import Page, deals_of, id_number, next_cursor
from hubspot_deals.source.plan import NUMERIC_ID, Span, above_id, date_filters

SEARCH_PAGE: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class UnsoundSearchError(Exception):
    """The search is refused, or does not answer in a way that is sure to show every deal."""


@dataclass(frozen=True, slots=True)
class _Place:
    """How far a search has come: the last id, deals read, and the range's count at the start."""

    last_id: int = 0
    read: int = 0
    count: int | None = None

    @classmethod
    def from_cursor(cls, cursor: str) -> "_Place":
        last_id, read, count = cursor.split(":")
        return cls(int(last_id), int(read), int(count) if count else None)

    def to_cursor(self) -> str:
        return f"{self.last_id}:{self.read}:{'' if self.count is None else self.count}"

    def behind(self, deals: Sequence[Mapping[str, Any]]) -> "_Place":
        """Move behind these deals. Raises UnsoundSearchError unless their ids ascend from here."""
        last_id = self.last_id
        for deal in deals:
            if (number := id_number(deal)) <= last_id:
                raise UnsoundSearchError
            last_id = number
        return _Place(last_id, self.read + len(deals), self.count)


@dataclass(frozen=True, slots=True)
class SearchWindow:
    """One page of a search: its deals and their ids, and how many deals match in all."""

    deals: list[dict[str, Any]]
    ids: list[int]
    total: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class Extent:
    """How many deals there are, and the highest of their ids; None if there are none."""

    total: int
    newest: int | None


@dataclass(frozen=True, slots=True)
class DealSearch:
    """Searches one account's deals with these properties."""

    client: HubSpotClient
    endpoints: Endpoints
    properties: Sequence[str]

    async def walk(
        self, span: Span, cursor: str | None, count: int | None = None
    ) -> AsyncIterator[Page]:
        """Yield the deals of a range with the cursor behind them, None behind the last ones.

        `count` is that of the range, if it was counted just now. Raises UnsoundSearchError as soon
        as deals may be missing, behind those that were found.
        """
        place = _Place.from_cursor(cursor) if cursor else _Place(count=count)
        if place.count is None and cursor is None:
            place = _Place(count=await self.count(span))
        is_last = False
        while not is_last:
            deals, is_last = await self._first_deals([above_id(place.last_id), *date_filters(span)])
            place = place.behind(deals)
            if not is_last:
                yield deals, place.to_cursor()
        if place.count is None or place.read < place.count:
            # Deals that left the range meanwhile explain it, if the range has fewer by now.
            count_now = await self.count(span)
            if count_now is None or place.read < count_now:
                yield deals, place.to_cursor()
                raise UnsoundSearchError
        if place.read == 0 and not await self.finds_a_known_deal(span.field):
            raise UnsoundSearchError
        yield deals, None

    async def count(self, span: Span | None) -> int | None:
        """Return how many live deals a range has by HubSpot's count; None where it is mute."""
        counted = await self.measure(span)
        return None if counted is None else counted.total

    async def measure(self, span: Span | None) -> Extent | None:
        """Return how many live deals a range has, and which is the newest; None if HubSpot is mute.

        By date alone, so that it proves the reading by id. The numbers are for that and for
        progress, so no fault of the search ends a scan here.
        """
        try:
            page = await self._search(date_filters(span), limit=1, descending=True)
            newest = max(map(id_number, deals_of(page)), default=None)
        except HubSpotDealsError:
            return None
        total = page.get("total")
        return Extent(total, newest) if isinstance(total, int) else None

    async def window(
        self, bounds: Sequence[Mapping[str, str]], *, skipped: int = 0
    ) -> SearchWindow:
        """Return one page of the deals inside these bounds, by ascending id, behind the first ones.

        Raises UnsoundSearchError where the search is refused, is out of order or does not count.
        """
        try:
            page = await self._search(bounds, after=str(skipped))
        except HubSpotRequestError as error:
            raise UnsoundSearchError from error
        deals, total = deals_of(page), page.get("total")
        ids = [id_number(deal) for deal in deals]
        if not isinstance(total, int) or any(low >= high for low, high in pairwise(ids)):
            raise UnsoundSearchError
        return SearchWindow(deals, ids, total, is_last=next_cursor(page) is None)

    async def count_within(self, bounds: Sequence[Mapping[str, str]]) -> int | None:
        """Return how many live deals lie inside these bounds; None where the search is mute."""
        try:
            return await self.total(bounds)
        except (HubSpotDealsError, UnsoundSearchError):
            return None

    async def total(self, bounds: Sequence[Mapping[str, Any]]) -> int:
        """Return how many live deals lie inside these bounds.

        Raises UnsoundSearchError where the search does not count.
        """
        page = await self._search(bounds, limit=1)
        total = page.get("total")
        if not isinstance(total, int):
            raise UnsoundSearchError
        return total

    async def finds_a_known_deal(self, field: str) -> bool:
        """Search for a listed deal by its own date: only then does an empty range prove itself."""
        one = {"limit": "1", "archived": "false", "properties": field}
        page = await self.client.get(self.endpoints.deals, one)
        for deal in deals_of(page):
            moment = parse_timestamp(str(deal["properties"].get(field) or ""))
            if moment is not None:
                text = str((moment - _EPOCH) // timedelta(milliseconds=1))
                between = {"operator": "BETWEEN", "value": text, "highValue": text}
                found = await self._search([{"propertyName": field} | between], limit=1)
                return bool(deals_of(found))
        return True

    async def _first_deals(
        self, filters: Sequence[Mapping[str, str]]
    ) -> tuple[list[dict[str, Any]], bool]:
        """Return the first deals of a search and whether they are all of it.

        Pages may be short or even empty while there is a cursor: only its absence is the end. An
        empty one is asked for again before it is passed over, in case it only failed to fill.
        """
        after = "0"
        asked: set[str] = set()
        while True:
            try:
                page = await self._search(filters, after=after)
            except HubSpotRequestError as error:
                raise UnsoundSearchError from error
            deals, following = deals_of(page), next_cursor(page)
            if deals or following is None:
                return deals, following is None
            if after not in asked:
                asked.add(after)
            elif following in asked:
                msg = f"HubSpot's deal search gave the cursor {following!r} twice; stopped."
                raise HubSpotProtocolError(msg)
            else:
                after = following

    async def _search(
        self,
        filters: Sequence[Mapping[str, Any]],
        *,
        limit: int = SEARCH_PAGE,
        after: str = "0",
        descending: bool = False,
    ) -> dict[str, Any]:
        direction = "DESCENDING" if descending else "ASCENDING"
        # All five are required by HubSpot's description of the API, if not by the API itself.
        return await self.client.post(
            self.endpoints.search,
            {
                "filterGroups": [{"filters": list(filters)}] if filters else [],
                "sorts": [{"propertyName": NUMERIC_ID, "direction": direction}],
                "properties": list(self.properties) if limit > 1 else [NUMERIC_ID],
                "limit": limit,
                "after": after,
            },
        )
