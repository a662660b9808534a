"""Questions to an account that only a plan asks: its token, its day, where its deals lie."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from hubspot_deals.contract import DateRange
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.deals import DealReader
from hubspot_deals.source.endpoints import TOKEN_INFO, Endpoints
from hubspot_deals.source.pages import results_of
from hubspot_deals.source.plan import NUMERIC_ID, above_id, is_inside, up_to_id
from hubspot_deals.source.search import SEARCH_PAGE, DealSearch, Extent

_LOOKS: Final = 24
"""Most searches to find out where deals lie: five seconds."""
_AT_ONCE: Final = 3
_Piece = tuple[int, int, int]
"""Deals with ids above the first number and up to the second, and how many they are."""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What HubSpot says of a private-app token."""

    portal_id: int | None
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DailyQuota:
    """The account's requests of a day; `resets_at` is HubSpot's own timestamp."""

    limit: int
    used: int | None
    resets_at: str | None


@dataclass(frozen=True, slots=True)
class ArchivedCount:
    """Archived deals: all of them, and those inside a range; `is_whole` unless time ran out."""

    total: int
    inside: int
    is_whole: bool


async def fetch_token_info(client: HubSpotClient, _: Endpoints) -> TokenInfo:
    """Return a private-app token's scopes; it needs none itself. Raises HubSpotDealsError."""
    answer = await client.post(TOKEN_INFO, {"tokenKey": client.token.get_secret_value()})
    scopes, portal = answer.get("scopes"), answer.get("hubId")
    return TokenInfo(
        portal_id=portal if isinstance(portal, int) else None,
        scopes=tuple(sorted(map(str, scopes))) if isinstance(scopes, list) else (),
    )


async def fetch_daily_quota(client: HubSpotClient, endpoints: Endpoints) -> DailyQuota | None:
    """Return the day's limit and use of private apps; None where HubSpot counts none.

    Raises HubSpotDealsError.
    """
    answer = await client.get(endpoints.usage)
    for usage in results_of(answer, key="name"):
        limit, used, resets_at = (
            usage.get(name) for name in ("usageLimit", "currentUsage", "resetsAt")
        )
        if isinstance(limit, int) and limit > 0:
            return DailyQuota(
                limit,
                used if isinstance(used, int) else None,
                resets_at if isinstance(resets_at, str) else None,
            )
    return None


async def count_archived(
    client: HubSpotClient, endpoints: Endpoints, span: DateRange | None, seconds: float
) -> ArchivedCount:
    """Count archived deals for so many seconds at most.

    No search finds them and no answer counts them, so their list is read.
    """
    reader = DealReader(client, endpoints, (span.field if span else NUMERIC_ID,))
    total = inside = 0
    deadline = time.monotonic() + seconds
    async for page in reader.list_pages(None, archived=True):
        total += len(page.deals)
        inside += sum(is_inside(deal, span) for deal in page.deals)
        if page.following is not None and time.monotonic() > deadline:
            return ArchivedCount(total, inside, is_whole=False)
    return ArchivedCount(total, inside, is_whole=True)


async def locate_deals(
    client: HubSpotClient, endpoints: Endpoints, extent: Extent, scale: float
) -> list[int]:
    """Return ids that lie about where those of the live deals do, one for `scale` deals.

    How often a list is entered where it has nothing depends on it. Few deals are looked up; of
    many it is counted where they lie. Raises HubSpotDealsError and UnsoundSearchError.
    """
    search = DealSearch(client, endpoints, (NUMERIC_ID,))
    if extent.total <= _LOOKS * SEARCH_PAGE:
        return await _look_up(search)
    first, _ = await DealReader(client, endpoints, ()).list_ids(None)
    newest = extent.newest or 0
    pieces = [((first[0] if first else newest) - 1, newest, extent.total)]
    for _ in range(_LOOKS // _AT_ONCE):
        pieces.sort(key=_splittable)
        fullest, pieces = pieces[-_AT_ONCE:], pieces[:-_AT_ONCE]
        halves = await asyncio.gather(*(_halve(search, piece) for piece in fullest))
        pieces += chain.from_iterable(halves)
    return _fill(pieces, scale)


async def _look_up(search: DealSearch) -> list[int]:
    ids: list[int] = []
    is_last = False
    while not is_last:
        window = await search.window([above_id(ids[-1] if ids else 0)])
        ids += window.ids
        is_last = window.is_last or not window.ids
    return ids


async def _halve(search: DealSearch, piece: _Piece) -> tuple[_Piece, _Piece]:
    low, high, deals = piece
    middle = (low + high) // 2
    counted = await search.count_within([above_id(low), up_to_id(middle)])
    below = min(deals, counted or 0)
    return (low, middle, below), (middle, high, deals - below)


def _splittable(piece: _Piece) -> int:
    low, high, deals = piece
    return deals if high - low > 1 else 0


def _fill(pieces: Iterable[_Piece], scale: float) -> list[int]:
    """Spread the deals of each piece evenly over it."""
    return sorted(
        {
            low + (high - low) * (number + 1) // shown
            for low, high, deals in pieces
            for shown in (round(deals / scale),)
            for number in range(shown)
        }
    )


def tier_of(burst: int | None, daily: int | None) -> str | None:
    """Name the subscription that limits like these belong to; None where they belong to none."""
    if burst is None:
        return None
    return _TIERS.get((burst, daily is not None and daily >= _MUCH))


_MUCH: Final = 1_000_000
_TIERS: Final[Mapping[tuple[int, bool], str]] = {
    (100, False): "Free or Starter",
    (190, False): "Professional",
    (190, True): "Enterprise",
    (250, False): "with API limit increase",
    (250, True): "with API limit increase",
    (110, False): "public OAuth app",
}
