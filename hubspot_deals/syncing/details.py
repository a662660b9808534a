"""What is read of deals beside their values: associations and stage histories."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa

from hubspot_deals.errors import HubSpotRequestError, HubSpotScopeError
from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.arrow import rows_to_arrow
from hubspot_deals.source.associations import read_associations
from hubspot_deals.source.fates import Fate
from hubspot_deals.source.stage_history import read_stage_history
from hubspot_deals.tables import (
    DEAL_ASSOCIATIONS,
    DEAL_STAGE_HISTORY,
    DEAL_TOMBSTONES,
    Table,
)

_Rows = Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class Details:
    """Reads the details that are wanted and that the token may read.

    What HubSpot refuses is noted once and not asked for again.
    """

    account: HubSpotAccount
    wanted: set[str]
    notes: list[str] = field(default_factory=list)

    def associations(self, ids: Sequence[str]) -> pa.Table | None:
        """Return the rows of the deals' associations; None if they are not read."""
        rows = self._ask("associations", read_associations, ids)
        return None if rows is None else rows_of(DEAL_ASSOCIATIONS, rows)

    def stages(self, ids: Sequence[str]) -> pa.Table | None:
        """Return the rows of the deals' stays in stages; None if they are not read."""
        rows = self._ask("stage_history", read_stage_history, ids)
        return None if rows is None else rows_of(DEAL_STAGE_HISTORY, rows)

    def _ask(self, name: str, read: Callable[..., Any], ids: Sequence[str]) -> _Rows | None:
        if name not in self.wanted or not ids:
            return None
        try:
            rows: _Rows = self.account.ask(partial(read, deal_ids=ids))
        except (HubSpotScopeError, HubSpotRequestError) as error:
            self.wanted.discard(name)
            self.notes.append(f"deal_{name} is not kept current. {error}")
            return None
        return rows


def tombstone_rows(fates: Iterable[Fate], losers: Mapping[str, str]) -> pa.Table:
    """Return the rows of deals that are not live: fates, and who was merged into whom."""
    rows = {
        fate.deal_id: {
            "deal_id": fate.deal_id,
            "reason": fate.end.value,
            "survivor": fate.survivor,
            "archived_at": fate.archived_at,
            "properties": fate.deal["properties"] if fate.deal else None,
        }
        for fate in fates
    }
    for loser, survivor in losers.items():
        rows[loser] = {"deal_id": loser, "reason": "merged", "survivor": survivor}
    return rows_of(DEAL_TOMBSTONES, list(rows.values()))


def rows_of(table: Table, rows: _Rows) -> pa.Table:
    """Return rows as Arrow; moments are spelled, as everything of HubSpot is."""
    return rows_to_arrow(table, [_spelled(row) for row in rows])


def _spelled(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def chosen(objects: Collection[str]) -> set[str]:
    """Return which of the details a connection wants."""
    return {"associations", "stage_history"} & set(objects)
