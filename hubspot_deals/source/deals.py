"""Reads the deals of a plan page by page, each deal once, from any checkpoint on."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pyroaring import BitMap64

from hubspot_deals.source.batches import read_batch
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.pages import (
    Page,
    deals_of,
    id_number,
    next_cursor,
    walk_list,
)
from hubspot_deals.source.plan import (
    NUMERIC_ID,
    Checkpoint,
    DealRange,
    ListRange,
    SearchRange,
    Span,
    is_inside,
)
from hubspot_deals.source.properties import OWNER_PROPERTY
from hubspot_deals.source.search import SEARCH_PAGE, DealSearch, Extent, UnsoundSearchError

LIST_PAGE: Final = 100
_LONGEST_QUERY: Final = 3_500
"""Characters of property names in an address. HubSpot's edge refuses request lines over 16 KB,
other servers already half or a quarter of that."""
LIST_INSTEAD: Final = "list:"
"""Begins a cursor of the list that took the place of a search."""


def largest_page(deal_range: DealRange) -> int:
    """Return the most deals that one page of a range can have."""
    return SEARCH_PAGE if isinstance(deal_range, SearchRange) else LIST_PAGE


@dataclass(frozen=True, slots=True)
class ListedPage:
    """A page of the list: its deals, the ids as they were listed, and the cursor behind it.

    The deals are others than listed where some were merged while their properties were read.
    """

    deals: list[dict[str, Any]]
    ids: list[int]
    following: str | None


@dataclass(frozen=True, slots=True)
class DealPage:
    """Deals that were not read before, and where reading goes on after them."""

    deals: list[dict[str, Any]]
    checkpoint: Checkpoint


@dataclass(slots=True)
class DealReader:
    """Reads one scan's deals.

    `seen` holds the ids of all earlier pages, committed ones too; `owner_ids` the owners met;
    `extents` what HubSpot has counted.
    """

    client: HubSpotClient
    endpoints: Endpoints
    properties: Sequence[str]
    seen: BitMap64 = field(default_factory=BitMap64)
    owner_ids: set[str] = field(default_factory=set)
    extents: dict[Span | None, Extent] = field(default_factory=dict)

    def walk(self, deal_range: DealRange, cursor: str | None) -> AsyncIterator[Page]:
        """Yield the pages of a range from a cursor on, in the server's own order."""
        match deal_range:
            case ListRange():
                return self._walk_list(cursor, archived=deal_range.archived)
            case SearchRange():
                return self._walk_search(deal_range, cursor)

    async def list_pages(
        self, after: str | None, *, archived: bool = False
    ) -> AsyncIterator[ListedPage]:
        """Read a list of deals; properties that no address can hold are read by POST."""
        wide = len(",".join(self.properties)) > _LONGEST_QUERY
        params = {"limit": str(LIST_PAGE), "archived": "true" if archived else "false"}
        if not wide:
            params["properties"] = ",".join(self.properties)
        async for page, following in walk_list(self.client, self.endpoints.deals, params, after):
            deals = deals_of(page)
            ids = [id_number(deal) for deal in deals]
            if wide:
                deals = await self._with_properties(deals, archived=archived)
            yield ListedPage(deals, ids, following)

    async def list_ids(self, after: str | None) -> tuple[list[int], str | None]:
        """Read one page of the live deals' list without properties."""
        params = {"limit": str(LIST_PAGE), "archived": "false", "properties": NUMERIC_ID}
        if after is not None:
            params["after"] = after
        page = await self.client.get(self.endpoints.deals, params)
        return [id_number(deal) for deal in deals_of(page)], next_cursor(page)

    @property
    def search(self) -> DealSearch:
        """The search for the same deals."""
        return DealSearch(self.client, self.endpoints, self.properties)

    def remember(self, deal_id: int, owner_id: str | None) -> None:
        """Take a deal as read: it is left out from now on, and its owner will be a user."""
        self.seen.add(deal_id)
        if owner_id:
            self.owner_ids.add(owner_id)

    async def count(self, span: Span | None) -> int | None:
        """Return how many live deals a date range had when that was first asked; None if mute."""
        extent = await self.measure(span)
        return None if extent is None else extent.total

    async def measure(self, span: Span | None) -> Extent | None:
        """Return how many live deals a date range had, and the newest, when first asked."""
        if span not in self.extents and (extent := await self.search.measure(span)) is not None:
            self.extents[span] = extent
        return self.extents.get(span)

    def sift(self, deals: Sequence[dict[str, Any]], deal_range: DealRange) -> list[dict[str, Any]]:
        """Return the deals that belong to a range and that no earlier page had.

        Deals move between pages and lists while they are read.
        """
        fresh = []
        for deal in deals:
            if not _belongs(deal, deal_range):
                continue
            number = id_number(deal)
            if number not in self.seen:
                self.remember(number, deal["properties"].get(OWNER_PROPERTY))
                fresh.append(deal)
        return fresh

    async def _walk_search(
        self, deal_range: SearchRange, cursor: str | None
    ) -> AsyncIterator[Page]:
        """Search, or walk the whole list where the search may not show every deal.

        What the list has outside the range is left out like everything stale.
        """
        if cursor is None or not cursor.startswith(LIST_INSTEAD):
            try:
                # Changes were counted just now; a scan's range may have been some time ago.
                count = None if deal_range.or_list else await self.count(deal_range.filter)
                async for page in self.search.walk(deal_range.filter, cursor, count):
                    yield page
            except UnsoundSearchError:
                if not deal_range.or_list:
                    raise
                cursor = LIST_INSTEAD
            else:
                return
        start = cursor.removeprefix(LIST_INSTEAD) or None
        async for deals, after in self._walk_list(start, archived=False):
            yield deals, None if after is None else f"{LIST_INSTEAD}{after}"

    async def _walk_list(self, after: str | None, *, archived: bool) -> AsyncIterator[Page]:
        async for page in self.list_pages(after, archived=archived):
            yield page.deals, page.following

    async def _with_properties(
        self, deals: Sequence[dict[str, Any]], *, archived: bool
    ) -> list[dict[str, Any]]:
        """Read the properties of listed deals by POST, which has no limit on their number.

        A deal is left out only when HubSpot says that it is gone. For one that was merged away
        stands the survivor.
        """
        ids = [str(deal["id"]) for deal in deals]
        answer = await read_batch(
            self.client, self.endpoints, ids, self.properties, archived=archived
        )
        return [answer.found[deal_id] for deal_id in ids if deal_id in answer.found]


def _belongs(deal: dict[str, Any], deal_range: DealRange) -> bool:
    """Check a deal against its range by its own values; without a flag it is what was asked for."""
    archived = bool(deal.setdefault("archived", deal_range.archived))
    return archived is deal_range.archived and is_inside(deal, deal_range.filter)
