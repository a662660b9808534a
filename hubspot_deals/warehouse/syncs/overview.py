"""Connections and their runs as callers ask for them: look one up, list and count them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row, scalar_row

from hubspot_deals.sync_contract import (
    ConnectionFacts,
    ConnectionStatus,
    SyncOutcome,
    SyncSettings,
    derive_connection_status,
)
from hubspot_deals.sync_errors import ConnectionNotFoundError
from hubspot_deals.warehouse.syncs.connections import COLUMNS
from hubspot_deals.warehouse.syncs.states import IS_BEATING

_RUN_COLUMNS: Final = (
    "r.run_no, r.run_id, r.kind, r.window_start, r.window_end, r.started_at, r.ended_at, r.outcome,"
    " r.read_until, r.is_proved, r.counts, r.error_message"
)
# A run that was cancelled says nothing about the account: the one before it does.
_COLUMNS: Final = f"""
    {COLUMNS}, c.sync_wanted_at, now() AS seen_at,
    o.run_id AS run_id, o.run_id IS NOT NULL AND {IS_BEATING} AS is_syncing,
    e.outcome AS last_outcome, e.error_message AS last_error
"""
_FROM: Final = """
    FROM hubspot_deals.connections c
    LEFT JOIN LATERAL (
        SELECT r.run_id FROM hubspot_deals.sync_runs r
        WHERE r.connection_id = c.connection_id AND r.ended_at IS NULL AND r.epoch = c.epoch
        ORDER BY r.run_no DESC LIMIT 1
    ) o ON true
    LEFT JOIN LATERAL (
        SELECT r.outcome, r.error_message FROM hubspot_deals.sync_runs r
        WHERE r.connection_id = c.connection_id AND r.ended_at IS NOT NULL
            AND r.outcome <> 'cancelled'
        ORDER BY r.run_no DESC LIMIT 1
    ) e ON true
    WHERE c.removed_at IS NULL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRecord:
    """A connection as callers see it; nothing in it is secret."""

    seq: int
    connection_id: str
    organization_id: str
    name: str
    portal_id: int | None
    settings: SyncSettings
    is_enabled: bool
    created_at: datetime
    updated_at: datetime
    fresh_as_of: datetime | None
    sync_wanted_at: datetime | None
    seen_at: datetime
    """When this was so."""
    run_id: str | None
    """Of the run that has taken the connection up and has not ended."""
    is_syncing: bool
    last_outcome: str | None
    last_error: str | None

    @property
    def status(self) -> ConnectionStatus:
        """The status that these facts allow."""
        outcome = SyncOutcome(self.last_outcome) if self.last_outcome else None
        facts = ConnectionFacts(
            is_enabled=self.is_enabled,
            is_syncing=self.is_syncing,
            fresh_as_of=self.fresh_as_of,
            last_outcome=outcome,
            cadence=self.settings.cadence,
        )
        return derive_connection_status(facts, self.seen_at)

    @property
    def seconds_old(self) -> float | None:
        """How long ago `fresh_as_of` was."""
        if self.fresh_as_of is None:
            return None
        return max(round((self.seen_at - self.fresh_as_of).total_seconds(), 3), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRunRecord:
    """One run of a connection; without outcome while it is under way, or after it died."""

    run_no: int
    run_id: str
    kind: str
    window_start: datetime | None
    window_end: datetime | None
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    read_until: datetime | None
    is_proved: bool | None
    counts: dict[str, Any]
    error_message: str | None


async def get_connection(connection: AsyncConnection[Any], connection_id: str) -> ConnectionRecord:
    """Return a connection; raises ConnectionNotFoundError."""
    found = await _select(connection, "AND c.connection_id = %(id)s", {"id": connection_id})
    if not found:
        raise ConnectionNotFoundError(connection_id)
    return found[0]


async def page_of_connections(
    connection: AsyncConnection[Any],
    organizations: Sequence[str] | None,
    *,
    limit: int,
    before: int | None = None,
) -> tuple[list[ConnectionRecord], int]:
    """Return connections from newest to oldest, after the one with a `seq`, and how many are.

    Those of some organizations, or of all.
    """
    own = _own(organizations)
    older = "" if before is None else "AND c.seq < %(before)s"
    values = {"organizations": organizations, "before": before, "limit": limit}
    found = await _select(connection, f"{own} {older} ORDER BY c.seq DESC LIMIT %(limit)s", values)
    counter = connection.cursor(row_factory=scalar_row)
    await counter.execute(
        f"SELECT count(*) FROM hubspot_deals.connections c WHERE c.removed_at IS NULL {own}", values
    )
    return found, await counter.fetchone() or 0


async def list_all_connections(
    connection: AsyncConnection[Any], organizations: Sequence[str] | None
) -> list[ConnectionRecord]:
    """Return every connection, or every one of some organizations."""
    return await _select(connection, _own(organizations), {"organizations": organizations})


async def page_of_runs(
    connection: AsyncConnection[Any], connection_id: str, *, limit: int, before: int | None = None
) -> tuple[list[SyncRunRecord], int]:
    """Return runs from newest to oldest, after the one with a number, and how many there are.

    Raises ConnectionNotFoundError.
    """
    await get_connection(connection, connection_id)
    values = {"id": connection_id, "before": before, "limit": limit}
    older = "" if before is None else "AND r.run_no < %(before)s"
    of_it = "FROM hubspot_deals.sync_runs r WHERE r.connection_id = %(id)s"
    cursor = connection.cursor(row_factory=class_row(SyncRunRecord))
    await cursor.execute(
        f"SELECT {_RUN_COLUMNS} {of_it} {older} ORDER BY r.run_no DESC LIMIT %(limit)s", values
    )
    runs = await cursor.fetchall()
    counter = connection.cursor(row_factory=scalar_row)
    await counter.execute(f"SELECT count(*) {of_it}", values)
    return runs, await counter.fetchone() or 0


def _own(organizations: Sequence[str] | None) -> str:
    return "" if organizations is None else "AND c.organization_id = ANY(%(organizations)s)"


async def _select(
    connection: AsyncConnection[Any], condition: str, values: dict[str, Any]
) -> list[ConnectionRecord]:
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(f"SELECT {_COLUMNS} {_FROM} {condition}", values)
    return [
        ConnectionRecord(**{**row, "settings": SyncSettings.from_json(row["settings"])})
        for row in await cursor.fetchall()
    ]
