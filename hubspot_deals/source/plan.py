"""Which ranges of deals a scan reads, one after the other; `reading` cuts each into shards.

A full scan walks the list, which sees every live deal at once. A filtered one searches, because
the list has no filter; the search index lags a few seconds behind writes, so a range that reaches
into the present can miss deals of those seconds. Archived deals are never found by search and
have a list of their own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hubspot_deals.contract import DateRange, ScanFilters
from hubspot_deals.source.arrow import parse_timestamp
from hubspot_deals.source.shards import Frontier

NUMERIC_ID: Final = "hs_object_id"
MODIFIED: Final = "hs_lastmodifieddate"


@dataclass(frozen=True, slots=True)
class MomentRange:
    """Moments on one date property, both ends included, in epoch milliseconds.

    The last one only narrows what is asked for: a deal that has moved on meanwhile is no mistake.
    """

    first_millisecond: int | None
    last_millisecond: int | None
    field: str = MODIFIED


Span = DateRange | MomentRange


@dataclass(frozen=True, slots=True)
class ListRange:
    """A walk along the list of live or of archived deals, in HubSpot's own order."""

    archived: bool = False
    filter: Span | None = None


@dataclass(frozen=True, slots=True)
class SearchRange:
    """A search within a date range, by ascending deal id.

    Where a search is not sure to show every deal the whole list is read instead, unless that is
    not wanted: then the reading ends with UnsoundSearchError.
    """

    filter: Span
    archived: bool = False
    or_list: bool = True


DealRange = ListRange | SearchRange


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where reading goes on: the range, and inside it a cursor or the shards that are left.

    With neither it is the start of the range.
    """

    range_no: int = 0
    cursor: str | None = None
    frontier: Frontier | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what a committed chunk records."""
        if self.frontier is not None:
            return {"range": self.range_no, **self.frontier.to_json()}
        return {"range": self.range_no, "cursor": self.cursor}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> "Checkpoint":
        """Read back what `to_json` wrote; no record means the beginning."""
        if stored is None:
            return cls()
        if "shards" in stored:
            return cls(stored["range"], frontier=Frontier.from_json(stored))
        return cls(stored["range"], stored["cursor"])


def build_plan(filters: ScanFilters) -> list[DealRange]:
    """Return the ranges that together hold every deal the filters ask for."""
    span = filters.date_range
    live: DealRange = ListRange() if span is None else SearchRange(span)
    return [live, ListRange(archived=True, filter=span)] if filters.include_archived else [live]


def above_id(last_id: int) -> dict[str, str]:
    """Return the search filter for deals with a greater id."""
    return {"propertyName": NUMERIC_ID, "operator": "GT", "value": str(last_id)}


def up_to_id(last_id: int) -> dict[str, str]:
    """Return the search filter for deals with this id or a lower one."""
    return {"propertyName": NUMERIC_ID, "operator": "LTE", "value": str(last_id)}


def among_ids(ids: Iterable[int]) -> dict[str, Any]:
    """Return the search filter for deals with one of these ids, a hundred at most."""
    values = [str(number) for number in ids]
    return {"propertyName": NUMERIC_ID, "operator": "IN", "values": values}


def changed_since(millisecond: int) -> dict[str, str]:
    """Return the search filter for deals that were changed, created or restored since a moment."""
    return {"propertyName": MODIFIED, "operator": "GTE", "value": str(millisecond)}


def date_filters(span: Span | None) -> list[dict[str, str]]:
    """Return the search filters for the deals of a date range; none for all deals."""
    if span is None:
        return []
    first, last = span.first_millisecond, span.last_millisecond
    if first is not None and first <= 0:
        # HubSpot answers 500 to a filter at the epoch; every deal found is checked anyway.
        first = None
    filter_on = {"propertyName": span.field}
    if first is not None and last is not None:
        bounds = {"operator": "BETWEEN", "value": str(first), "highValue": str(last)}
        return [filter_on | bounds]
    if first is not None:
        return [filter_on | {"operator": "GTE", "value": str(first)}]
    if last is not None:
        return [filter_on | {"operator": "LTE", "value": str(last)}]
    return []


def is_inside(deal: Mapping[str, Any], span: Span | None) -> bool:
    """Check a deal against the range by its own value.

    The search index matches on values of some seconds ago but returns fresh ones, and the
    archived list has no filter at all.
    """
    if span is None:
        return True
    moment = parse_timestamp(str(deal["properties"].get(span.field) or ""))
    if moment is None:
        return False
    millisecond = moment.timestamp() * 1000
    first, last = span.first_millisecond, span.last_millisecond
    if isinstance(span, MomentRange):
        last = None
    return (first is None or millisecond >= first) and (last is None or millisecond < last + 1)
