"""What a scan would bring, ask HubSpot and take: begun like the scan, then rehearsed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from hubspot_deals.contract import TABLE_NAMES, ScanFilters
from hubspot_deals.errors import HubSpotDealsError
from hubspot_deals.planning.access import (
    Access,
    connection_options,
    look,
    look_at_access,
    missing_scope,
    sent,
)
from hubspot_deals.settings import HubSpotSettings
from hubspot_deals.source.account import HubSpotAccount, Refusal
from hubspot_deals.source.governor import Budget
from hubspot_deals.source.pipelines import stage_rows
from hubspot_deals.source.plan import build_plan
from hubspot_deals.source.properties import (
    PropertySelection,
    needs_definitions,
    select_properties,
)
from hubspot_deals.source.reading import Sizes
from hubspot_deals.source.rehearsal import ImaginedAccount, rehearse, scale_of
from hubspot_deals.source.search import Extent, UnsoundSearchError
from hubspot_deals.source.survey import ArchivedCount, count_archived, locate_deals

SEARCHES_OF_PROOF: Final = 1
"""Counts that a scan asks for once everything is read, to prove that it is complete."""
_WALK_SECONDS: Final = 30.0
"""Longest time that archived deals are counted."""
_START_SECONDS: Final = 2.0
"""From the start request until a worker asks HubSpot."""
_GAP: Final = 1_000
"""Between two ids where their places do not matter."""

_COUNTED, _AT_LEAST, _UNKNOWN = "counted", "atLeast", "unknown"

Document = dict[str, Any]


def plan_scan(token: SecretStr, filters: ScanFilters, settings: HubSpotSettings) -> Document:
    """Return what `POST /scan/plan` answers. Raises HubSpotDealsError when nothing can be said."""
    with HubSpotAccount(token, connection_options(settings)) as account:
        access = look_at_access(account)
        start = _look_around(account, filters, access)
        deals = _count_deals(account, filters) if start.selection else None
        tables = {table.name: table for table in [_deals_table(start, deals), *start.tables]}
        missing = [
            scope
            for table in tables.values()
            if table.refusal and (scope := missing_scope(table.refusal.error))
        ]
        return (
            access.describe(settings, missing)
            | ({"canScan": False, "reason": str(start.obstacle.error)} if start.obstacle else {})
            | {"tables": [tables[name].describe() for name in TABLE_NAMES]}
            | {"deals": deals.describe() if deals else None}
            | {"properties": _describe_properties(start.selection)}
            | _foresee(account, filters, settings, access, start, deals)
            | {"notes": account.notes, "requestsUsed": account.counts.requests}
        )


@dataclass(frozen=True, slots=True)
class _Table:
    """What is expected of a table; `refusal` is why it has not what it could have."""

    name: str
    rows: int | None
    basis: str = _COUNTED
    refusal: Refusal | None = None

    def describe(self) -> Document:
        refusal = self.refusal
        return {
            "name": self.name,
            "rows": None if refusal else self.rows,
            "basis": _UNKNOWN if refusal else self.basis,
            "missingScope": missing_scope(refusal.error) if refusal else None,
            "consequence": refusal.consequence if refusal else None,
        }


@dataclass(frozen=True, slots=True)
class _Start:
    """What a scan does before it reads deals, done.

    `requests` are those of the scan itself; without `selection` there is an `obstacle`.
    """

    tables: Sequence[_Table]
    requests: int
    selection: PropertySelection | None
    obstacle: Refusal | None


@dataclass(frozen=True, slots=True)
class _Deals:
    """How many deals there are to read; `live` is None where HubSpot does not tell.

    `is_alone` tells that the account has no live deals but those asked for.
    """

    live: Extent | None
    archived: ArchivedCount | None
    is_alone: bool

    @property
    def basis(self) -> str:
        if self.live is None:
            return _UNKNOWN
        return _COUNTED if self.archived is None or self.archived.is_whole else _AT_LEAST

    @property
    def rows(self) -> int | None:
        if self.live is None:
            return None
        return self.live.total + (self.archived.inside if self.archived else 0)

    def describe(self) -> Document:
        return {
            "live": self.live.total if self.live else None,
            "archived": self.archived.inside if self.archived else None,
            "total": self.rows,
            "basis": self.basis,
        }


def _look_around(account: HubSpotAccount, filters: ScanFilters, access: Access) -> _Start:
    """Fetch the small tables as a scan does."""
    before = sent(account)
    needed = needs_definitions(filters)
    obstacle = Refusal("No scan is possible.", access.refusal) if access.refusal else None
    definitions, no_definitions = look(account, account.fetch_definitions)
    if needed and no_definitions:
        # Nothing but the answer differs where a scan needs them.
        obstacle = obstacle or Refusal("A scan of all properties fails.", no_definitions.error)
    pipelines, no_pipelines = look(account, account.fetch_pipelines)
    owners, no_owners = look(account, account.fetch_owners)
    stages = list(stage_rows(pipelines))
    return _Start(
        tables=[
            # Ids that only deals know come on top.
            _Table("users", len(owners), _AT_LEAST, no_owners),
            _Table("pipelines", len(pipelines), refusal=no_pipelines),
            _Table("pipeline_stages", len(stages), refusal=no_pipelines),
            _Table("deal_properties", len(definitions), refusal=no_definitions),
        ],
        requests=access.requests + sent(account) - before,
        selection=None if obstacle else select_properties(filters, definitions),
        obstacle=obstacle,
    )


def _count_deals(account: HubSpotAccount, filters: ScanFilters) -> _Deals:
    span = filters.date_range
    live = account.measure_deals(span)
    archived = None
    if filters.include_archived:
        archived = account.ask(
            lambda client, endpoints: count_archived(client, endpoints, span, _WALK_SECONDS)
        )
    is_alone = False
    if span is not None and live is not None and live.total == 0:
        everything = account.measure_deals(None)
        is_alone = everything is not None and everything.total == 0
    return _Deals(live, archived, is_alone)


def _deals_table(start: _Start, deals: _Deals | None) -> _Table:
    if deals is None:
        return _Table("deals", None, _UNKNOWN, start.obstacle)
    return _Table("deals", deals.rows, deals.basis)


def _describe_properties(selection: PropertySelection | None) -> Document | None:
    if selection is None:
        return None
    return {"selected": list(selection.shown), "unknown": list(selection.unknown)}


def _foresee(  # noqa: PLR0913, PLR0917 - everything that was learned
    account: HubSpotAccount,
    filters: ScanFilters,
    settings: HubSpotSettings,
    access: Access,
    start: _Start,
    deals: _Deals | None,
) -> Document:
    """Return what the scan will ask and take; nothing where HubSpot does not say how much it has.

    The reader is rehearsed with the deals, limits and answering times that were met.
    """
    if deals is None or deals.live is None or start.selection is None:
        return {"requests": None, "dailyShare": None, "minutes": None}
    scale = scale_of(deals.live.total)
    imagined = ImaginedAccount(
        ids=_place(account, filters, deals.live, scale),
        scale=scale,
        archived=deals.archived.total if deals.archived else 0,
        has_others=not deals.is_alone,
        burst=access.burst,
        latency={budget: account.counts.mean_seconds(budget) for budget in Budget},
    )
    rehearsal = rehearse(
        build_plan(filters), start.selection.fetched, imagined, connection_options(settings)
    )
    searches = rehearsal.searches + SEARCHES_OF_PROOF
    others = start.requests - access.lists + rehearsal.others
    total = access.lists + rehearsal.lists + searches + others
    answer = account.counts.mean_seconds(Budget.BURST)
    seconds = _START_SECONDS + start.requests * answer + rehearsal.seconds
    return {
        "requests": {
            "total": total,
            "list": access.lists + rehearsal.lists,
            "search": searches,
            "other": others,
            "basis": "estimated" if deals.basis == _COUNTED else _AT_LEAST,
        },
        "dailyShare": round(100 * total / access.quota.limit, 3) if access.quota else None,
        "minutes": round(seconds / 60, 2),
    }


def _place(
    account: HubSpotAccount, filters: ScanFilters, live: Extent, scale: float
) -> Sequence[int]:
    """Return ids for the live deals: about the real ones where it makes a difference."""
    if filters.date_range is None and live.total > Sizes().few:
        try:
            return account.ask(
                lambda client, endpoints: locate_deals(client, endpoints, live, scale)
            )
        except (UnsoundSearchError, HubSpotDealsError):
            pass  # then the list is read alone, and where deals lie is not known
    return range(_GAP, _GAP * (round(live.total / scale) + 1), _GAP)
