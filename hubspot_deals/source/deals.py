"""Reads the deals of a plan page by page, each deal once, from any checkpoint on."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pyroaring import BitMap64

from hubspot_deals.contract import DateRange
from hubspot_deals.errors import HubSpotProtocolError, HubSpotRequestError
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.plan import (
    NUMERIC_ID,
    Checkpoint,
    DealRange,
    ListRange,
    SearchRange,
    is_inside,
    search_filters,
)
from hubspot_deals.source.properties import OWNER_PROPERTY

LIST_PAGE: Final = 100
SEARCH_PAGE: Final = 200
_LONGEST_QUERY: Final = 10_000
"""Characters of property names in an address. HubSpot's edge refuses request lines over 16 KB."""


@dataclass(frozen=True, slots=True)
class DealPage:
    """Deals that were not read before, and where reading goes on after them."""

    deals: list[dict[str, Any]]
    checkpoint: Checkpoint


@dataclass(slots=True)
class DealReader:
    """Reads one scan's deals.

    `seen` holds the ids of all earlier pages, committed ones too; `owner_ids` the owners met.
    """

    client: HubSpotClient
    endpoints: Endpoints
    properties: Sequence[str]
    seen: BitMap64 = field(default_factory=BitMap64)
    owner_ids: set[str] = field(default_factory=set)

    async def pages(
        self,
        plan: Sequence[DealRange],
        start: Checkpoint = Checkpoint(),  # noqa: B008 - frozen
    ) -> AsyncIterator[DealPage]:
        """Yield every page of the plan from a checkpoint on."""
        for number, deal_range in enumerate(plan):
            if number < start.range_no:
                continue
            cursor = start.cursor if number == start.range_no else None
            async for deals, after in self._read(deal_range, cursor):
                following = (
                    Checkpoint(number, after) if after is not None else Checkpoint(number + 1)
                )
                wanted = [deal for deal in deals if is_inside(deal, deal_range.filter)]
                yield DealPage(self._unseen(wanted), following)

    def remember(self, deal_id: int, owner_id: str | None) -> None:
        """Take a deal as read: it is left out from now on, and its owner will be a user."""
        self.seen.add(deal_id)
        if owner_id:
            self.owner_ids.add(owner_id)

    async def count(self, span: DateRange | None) -> int | None:
        """Return how many live deals a date range has by HubSpot's count; None where it is mute."""
        try:
            answer = await self._search(search_filters(span), limit=1)
        except HubSpotRequestError:
            return None
        total = answer.get("total")
        return total if isinstance(total, int) else None

    def _unseen(self, deals: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Leave out what an earlier page had: deals move between lists while they are read."""
        fresh = []
        for deal in deals:
            number = _number(deal)
            if number not in self.seen:
                self.remember(number, deal["properties"].get(OWNER_PROPERTY))
                fresh.append(deal)
        return fresh

    def _read(
        self, deal_range: DealRange, cursor: str | None
    ) -> AsyncIterator[tuple[list[dict[str, Any]], str | None]]:
        match deal_range:
            case ListRange():
                return self._walk_list(cursor, archived=deal_range.archived)
            case SearchRange():
                return self._walk_search(deal_range.filter, cursor)

    async def _walk_list(
        self, after: str | None, *, archived: bool
    ) -> AsyncIterator[tuple[list[dict[str, Any]], str | None]]:
        """Follow the list's cursor, which may be anything; only its absence ends the list."""
        wide = len(",".join(self.properties)) > _LONGEST_QUERY
        params = {"limit": str(LIST_PAGE), "archived": "true" if archived else "false"}
        if not wide:
            params["properties"] = ",".join(self.properties)
        used: set[str] = set()
        while True:
            page = await self.client.get(
                self.endpoints.deals, params | ({"after": after} if after is not None else {})
            )
            deals = _results(page)
            if wide:
                deals = await self._with_properties(deals, archived=archived)
            after = _next_cursor(page)
            if after in used:
                msg = f"HubSpot's deal list gave the cursor {after!r} twice; stopped, not looping."
                raise HubSpotProtocolError(msg)
            yield deals, after
            if after is None:
                return
            used.add(after)

    async def _with_properties(
        self, deals: Sequence[dict[str, Any]], *, archived: bool
    ) -> list[dict[str, Any]]:
        """Read the properties of listed deals by POST, which has no limit on their number.

        A deal that was merged away or deleted in between does not come back under its id; its
        survivor is in the list itself.
        """
        if not deals:
            return []
        answer = await self.client.post(
            self.endpoints.batch_read,
            {
                "inputs": [{"id": str(deal["id"])} for deal in deals],
                "properties": list(self.properties),
            },
            params={"archived": "true" if archived else "false"},
        )
        by_id = {str(deal["id"]): deal for deal in _results(answer)}
        return [by_id[str(deal["id"])] for deal in deals if str(deal["id"]) in by_id]

    async def _walk_search(
        self, span: DateRange, last_id: str | None
    ) -> AsyncIterator[tuple[list[dict[str, Any]], str | None]]:
        """Search for ids above the last one, again and again.

        A search shows at most 10,000 deals by offset; asking anew from the last id has no such
        end, and a deal that leaves the result does not shift the others. It is exact as long as
        ids come in ascending order, so that is checked on every page.
        """
        last = last_id or "0"
        while True:
            deals, is_last = await self._first_deals(search_filters(span, after_id=last))
            _require_ascending(deals, above=int(last))
            last = str(deals[-1]["id"]) if deals else last
            yield deals, None if is_last else last
            if is_last:
                return

    async def _first_deals(
        self, filters: Sequence[Mapping[str, str]]
    ) -> tuple[list[dict[str, Any]], bool]:
        """Return the first deals of a search and whether they are all of it.

        Pages may be short or even empty while there is a cursor: only its absence is the end. An
        empty one is asked for again before it is passed over, in case it only failed to fill.
        """
        after: str | None = None
        asked: set[str | None] = set()
        while True:
            page = await self._search(filters, limit=SEARCH_PAGE, after=after)
            deals, following = _results(page), _next_cursor(page)
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
        self, filters: Sequence[Mapping[str, str]], *, limit: int, after: str | None = None
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "filterGroups": [{"filters": list(filters)}],
            "sorts": [{"propertyName": NUMERIC_ID, "direction": "ASCENDING"}],
            "properties": list(self.properties) if limit > 1 else [NUMERIC_ID],
            "limit": limit,
        }
        if after is not None:
            body["after"] = after
        return await self.client.post(self.endpoints.search, body)


def _results(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    results = page.get("results")
    if not isinstance(results, list):
        msg = "HubSpot's answer has no list of results; is this the HubSpot API?"
        raise HubSpotProtocolError(msg)
    return results


def _next_cursor(page: Mapping[str, Any]) -> str | None:
    following = (page.get("paging") or {}).get("next") or {}
    after = following.get("after")
    return None if after in (None, "") else str(after)


def _number(deal: Mapping[str, Any]) -> int:
    try:
        return int(deal["id"])
    except (KeyError, ValueError):
        msg = f"HubSpot sent a deal with the id {str(deal.get('id'))[:40]!r}, which is no number."
        raise HubSpotProtocolError(msg) from None


def _require_ascending(deals: Sequence[Mapping[str, Any]], *, above: int) -> None:
    for deal in deals:
        number = _number(deal)
        if number <= above:
            msg = (
                f"HubSpot's search did not sort by deal id: {number} came after {above}, so "
                "reading on could miss deals."
            )
            raise HubSpotProtocolError(msg)
        above = number
