"""Where the syncs of a connection stand, and how that is written down."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.types.json import Jsonb

from hubspot_deals.warehouse.states import LEASE_SECONDS

SYNC_LOCK_CLASS: Final = 4_864
"""First key of the advisory lock of a connection's syncs; the second is the connection's `seq`."""

IS_SYNCING: Final = f"""EXISTS (
    SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
    AND l.classid = {SYNC_LOCK_CLASS} AND l.objid = c.seq::oid
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
)"""
"""Whether a run holds the lease of a connection, aliased `c`."""

IS_BEATING: Final = f"coalesce(c.heartbeat_at > now() - interval '{LEASE_SECONDS} seconds', false)"
"""Whether a worker of a connection, aliased `c`, has given a sign of life just now."""


@dataclass(frozen=True, slots=True)
class SyncState:
    """Where the next run of a connection goes on. All moments are by HubSpot's clock.

    `cursor` is None until everything has been read once. `full_pass` is a first load that is
    under way: when it `began`, and its `checkpoint`. `archived_after` is where the next pass of
    the archived list begins, `suspects` where ids differ that were not found yet, `unlocated` how
    many at least. `refresh_after` is the last id whose values were read without a change.
    """

    cursor: datetime | None
    full_pass: dict[str, Any] | None
    archived_after: str | None
    suspects: list[Any]
    unlocated: int
    unproved_runs: int
    reconciled_at: datetime | None
    refreshed_at: datetime | None
    refresh_after: str | None


STATE_COLUMNS: Final = tuple(field.name for field in fields(SyncState))
_JSON: Final = {"full_pass", "suspects"}
_WRITABLE: Final = {*STATE_COLUMNS, "fresh_as_of", "portal_id"}


def write_state(
    cursor: psycopg.Cursor[Any], connection_id: str, changes: Mapping[str, Any]
) -> None:
    """Change where the syncs of a connection stand, in the caller's transaction."""
    if unknown := changes.keys() - _WRITABLE:
        msg = f"No columns of a sync's state: {sorted(unknown)}"
        raise ValueError(msg)
    if not changes:
        return
    assignments = ", ".join(f"{name} = %({name})s" for name in changes)
    values = {
        name: Jsonb(value) if name in _JSON and value is not None else value
        for name, value in changes.items()
    }
    cursor.execute(
        f"UPDATE hubspot_deals.connections SET {assignments} WHERE connection_id = %(connection)s",
        {**values, "connection": connection_id},
    )
