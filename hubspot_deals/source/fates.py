"""Finds out what became of deals that are no longer where they were."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from hubspot_deals.source.arrow import parse_timestamp
from hubspot_deals.source.batches import MERGED_PROPERTY, BatchRead, read_batches
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.endpoints import Endpoints


class End(StrEnum):
    """What became of a deal."""

    LIVE = "live"
    """It was there all the time, or is back."""
    ARCHIVED = "archived"
    MERGED = "merged"
    DELETED = "deleted"
    """HubSpot knows nothing of it: deleted for good, or purged from the bin."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one deal.

    `deal` is it as HubSpot sends it, live or archived; `survivor` is the id that it was merged
    into, through however many merges; `archived_at` when, as HubSpot tells it.
    """

    deal_id: str
    end: End
    deal: dict[str, Any] | None = None
    survivor: str | None = None
    archived_at: datetime | None = None


async def find_fates(
    client: HubSpotClient, endpoints: Endpoints, ids: Sequence[str], properties: Sequence[str]
) -> list[Fate]:
    """Return the fates of deals, in the order of their ids as given.

    Costs a request for each hundred of them, one more for those that are not live, and a third for
    those that are nowhere: a deal that is restored just then must not be taken for deleted.
    """
    ids, properties = list(dict.fromkeys(ids)), list(dict.fromkeys([*properties, MERGED_PROPERTY]))
    fates: dict[str, Fate] = {}
    for archived in (False, True, False):
        left = [deal_id for deal_id in ids if deal_id not in fates]
        read = await read_batches(client, endpoints, left, properties, archived=archived)
        fates |= _told(read, archived=archived)
    return [fates.get(deal_id) or Fate(deal_id, End.DELETED) for deal_id in ids]


def archived_fate(deal: dict[str, Any]) -> Fate:
    """Return the fate of a deal of the archived list."""
    archived_at = parse_timestamp(str(deal.get("archivedAt") or ""))
    return Fate(str(deal["id"]), End.ARCHIVED, deal, archived_at=archived_at)


def _told(read: BatchRead, *, archived: bool) -> dict[str, Fate]:
    fates = {}
    for deal_id, deal in read.found.items():
        if (answering := str(deal["id"])) != deal_id:
            fates[deal_id] = Fate(deal_id, End.MERGED, survivor=answering)
        elif archived:
            fates[deal_id] = archived_fate(deal)
        else:
            fates[deal_id] = Fate(deal_id, End.LIVE, deal)
    return fates
