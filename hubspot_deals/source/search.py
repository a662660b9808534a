"""Searches deals of a date range completely, although one search shows at most 10,000 of them.

The first way asks again and again for ids above the last one. It needs no offsets, so deals that
leave the result shift nobody, and it has no end at 10,000; but it is only complete if the server
sorts and compares ids alike. That is likely of HubSpot, not documented, and so it is checked. Where
it fails the check, the range is cut into windows of less than 10,000 deals, read by offset.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hubspot_deals.contract import DateRange
from hubspot_deals.errors import HubSpotDealsError, HubSpotProtocolError
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.pages import Page, deals_of, id_number, next_cursor
from hubspot_deals.source.plan import NUMERIC_ID, search_filters

SEARCH_PAGE: Final = 200
MOST_BY_OFFSET: Final = 10_000
_WINDOW: Final = "window:"
# HubSpot answers 500 for epoch 0; no deal closes after the year 2999.
_EARLIEST_MS: Final = 86_400_000
_LATEST_MS: Final = 32_503_680_000_000 - 1
_WINDOW_ATTEMPTS: Final = 3


class _NotInIdOrder(Exception):  # noqa: N818 - never leaves this module
    """The server's answers are not in the order that reading by id needs."""


@dataclass(frozen=True, slots=True)
class _ById:
    """How far reading by id has come: the last id, deals read, and the range's total at first."""

    last_id: int = 0
    read: int = 0
    total: int | None = None

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "_ById":
        if cursor is None:
            return cls()
        last_id, read, total = cursor.split(":")
        return cls(int(last_id), int(read), int(total) if total else None)

    def to_cursor(self) -> str:
        return f"{self.last_id}:{self.read}:{'' if self.total is None else self.total}"

    def after(self, deals: Sequence[Mapping[str, Any]], total: int | None) -> "_ById":
        """Move behind these deals. Raises _NotInIdOrder unless their ids ascend from here."""
        last_id = self.last_id
        for deal in deals:
            if (number := id_number(deal)) <= last_id:
                raise _NotInIdOrder
            last_id = number
        return _ById(last_id, self.read + len(deals), total if self.read == 0 else self.total)


@dataclass(frozen=True, slots=True)
class DealSearch:
    """Searches one account's deals with these properties."""

    client: HubSpotClient
    endpoints: Endpoints
    properties: Sequence[str]

    async def walk(self, span: DateRange, cursor: str | None) -> AsyncIterator[Page]:
        """Yield the deals of a range with the cursor behind them, None behind the last ones."""
        if cursor is None or not cursor.startswith(_WINDOW):
            try:
                async for page in self._by_id(span, _ById.from_cursor(cursor)):
                    yield page
            except _NotInIdOrder:
                cursor = None
            else:
                return
        async for page in self._by_window(span, cursor):
            yield page

    async def count(self, span: DateRange | None) -> int | None:
        """Return how many live deals a range has by HubSpot's count; None where it is mute.

        The number is for progress and for a check, so no fault of the search ends a scan here.
        """
        try:
            return _total(await self._search(search_filters(span), NUMERIC_ID, limit=1))
        except HubSpotDealsError:
            return None

    async def _by_id(self, span: DateRange, place: "_ById") -> AsyncIterator[Page]:
        """Read by ascending id. Raises _NotInIdOrder as soon as deals may be missing."""
        is_last = False
        while not is_last:
            filters = search_filters(span, after_id=str(place.last_id))
            deals, total, is_last = await self._first_deals(filters)
            place = place.after(deals, total)
            if not is_last:
                yield deals, place.to_cursor()
        if place.total is not None and place.read < place.total:
            # Deals that left the range meanwhile explain it, if the range has fewer by now.
            total_now = await self.count(span)
            if total_now is None or place.read < total_now:
                yield deals, place.to_cursor()
                raise _NotInIdOrder
        yield deals, None

    async def _first_deals(
        self, filters: Sequence[Mapping[str, str]]
    ) -> tuple[list[dict[str, Any]], int | None, bool]:
        """Return the first deals of a search, its total, and whether they are all of it.

        Pages may be short or even empty while there is a cursor: only its absence is the end. An
        empty one is asked for again before it is passed over, in case it only failed to fill.
        """
        after = "0"
        asked: set[str] = set()
        while True:
            page = await self._search(filters, NUMERIC_ID, after=after)
            deals, following = deals_of(page), next_cursor(page)
            if deals or following is None:
                return deals, _total(page), following is None
            if after not in asked:
                asked.add(after)
            elif following in asked:
                msg = f"HubSpot's deal search gave the cursor {following!r} twice; stopped."
                raise HubSpotProtocolError(msg)
            else:
                after = following

    async def _by_window(self, span: DateRange, cursor: str | None) -> AsyncIterator[Page]:
        """Read window by window in the order of time, each cut until offsets reach all of it."""
        first = span.first_millisecond if span.first_millisecond is not None else _EARLIEST_MS
        last = span.last_millisecond if span.last_millisecond is not None else _LATEST_MS
        if cursor is not None:
            first = int(cursor.removeprefix(_WINDOW))
        waiting = [(first, last)]
        while waiting:
            first, last = waiting.pop()
            deals = await self._read_window(span.field, first, last)
            if deals is None:
                middle = (first + last) // 2
                waiting += [(middle + 1, last), (first, middle)]
                continue
            for start in range(0, len(deals), SEARCH_PAGE):
                yield deals[start : start + SEARCH_PAGE], f"{_WINDOW}{first}"
            yield [], f"{_WINDOW}{last + 1}" if waiting else None

    async def _read_window(self, field: str, first: int, last: int) -> list[dict[str, Any]] | None:
        """Return the deals between two milliseconds, or None where there are too many for it."""
        filters = [_between(field, first, last)]
        for _ in range(_WINDOW_ATTEMPTS):
            deals: dict[str, dict[str, Any]] = {}
            after: str | None = "0"
            total: int | None = 0
            while after is not None:
                page = await self._search(filters, field, after=after)
                total, after = _total(page), next_cursor(page)
                if total is None or total > MOST_BY_OFFSET:
                    break
                deals |= {str(deal["id"]): deal for deal in deals_of(page)}
            if total is not None and total > MOST_BY_OFFSET and first < last:
                return None
            # Deals that move while offsets are read shift others past the reader: read anew.
            if total is not None and len(deals) >= total:
                return list(deals.values())
        msg = (
            f"HubSpot's search gives neither deals in the order of their ids nor all deals with "
            f"{field} between {first} and {last} ms, so reading on could miss deals."
        )
        raise HubSpotProtocolError(msg)

    async def _search(
        self,
        filters: Sequence[Mapping[str, str]],
        sort: str,
        *,
        limit: int = SEARCH_PAGE,
        after: str = "0",
    ) -> dict[str, Any]:
        # All five are required by HubSpot's description of the API, if not by the API itself.
        return await self.client.post(
            self.endpoints.search,
            {
                "filterGroups": [{"filters": list(filters)}],
                "sorts": [{"propertyName": sort, "direction": "ASCENDING"}],
                "properties": list(self.properties) if limit > 1 else [NUMERIC_ID],
                "limit": limit,
                "after": after,
            },
        )


def _total(page: Mapping[str, Any]) -> int | None:
    total = page.get("total")
    return total if isinstance(total, int) else None


def _between(field: str, first: int, last: int) -> dict[str, str]:
    return {
        "propertyName": field,
        "operator": "BETWEEN",
        "value": str(first),
        "highValue": str(last),
    }
