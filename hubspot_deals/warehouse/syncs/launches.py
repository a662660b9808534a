"""Where the connections stand, as the sensor that launches their syncs sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg.rows import dict_row
from pydantic import SecretStr

from hubspot_deals.sync_contract import SyncOutcome
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.states import LEASE_SECONDS
from hubspot_deals.warehouse.syncs.connections import (
    COLUMNS,
    WITH_CREDENTIALS,
    StoredConnection,
    connection_of,
)
from hubspot_deals.warehouse.syncs.runs import GONE
from hubspot_deals.warehouse.syncs.states import IS_SYNCING

_SILENT_SECONDS: Final = 2 * LEASE_SECONDS
_CLAIM: Final = "interval '60 seconds'"
"""After this, a launch that nobody has heard of is taken for lost."""

_MOST_RUNS: Final = 20
"""That are looked at for failures in a row."""

_STANDING: Final = f"""
    SELECT {COLUMNS}, k.account, c.cursor IS NOT NULL AS is_loaded,
        c.sync_wanted_at IS NOT NULL AS is_wanted, r.failures, r.last_end,
        CASE WHEN c.sync_wanted_at IS NOT NULL THEN c.sync_request_id END AS request_id,
        CASE WHEN c.sync_wanted_at IS NOT NULL THEN c.sync_trace_parent END AS trace_parent
    FROM {WITH_CREDENTIALS}
    LEFT JOIN LATERAL (
        SELECT max(last.ended_at) AS last_end, count(*) FILTER (
            WHERE last.outcome IN ('failed', 'crashed') AND last.run_no > last.completed
        ) AS failures
        FROM (
            SELECT s.outcome, s.run_no, s.ended_at, coalesce(
                max(s.run_no) FILTER (WHERE s.outcome = 'completed') OVER (), 0) AS completed
            FROM (
                SELECT * FROM hubspot_deals.sync_runs s WHERE s.connection_id = c.connection_id
                ORDER BY s.run_no DESC LIMIT {_MOST_RUNS}
            ) s
            -- With another token or other settings, failures of before mean nothing.
            WHERE s.started_at > c.updated_at OR s.outcome = 'completed'
        ) last
    ) r ON true
    WHERE c.removed_at IS NULL
    ORDER BY c.seq
"""
_GAPS: Final = """
    SELECT connection_id, lower(gap), upper(gap) FROM (
    SELECT a.connection_id, unnest(tstzmultirange(tstzrange(a.first, a.last)) - coalesce((
        SELECT range_agg(tstzrange(s.window_start, s.window_end)) FROM hubspot_deals.sync_runs s
        WHERE s.connection_id = a.connection_id AND s.outcome = 'completed'
            AND s.window_end > a.first
    ), '{}')) AS gap
    FROM unnest(%s::text[], %s::timestamptz[], %s::timestamptz[]) AS a (connection_id, first, last)
    ) gaps ORDER BY 1, 2
"""
_END_LOST: Final = f"""
    UPDATE hubspot_deals.sync_runs r SET outcome = %s, ended_at = now(), error_message = %s
    FROM hubspot_deals.connections c
    WHERE c.connection_id = r.connection_id AND r.outcome IS NULL
        AND (NOT {IS_SYNCING} OR c.heartbeat_at < now() - interval '{_SILENT_SECONDS} seconds')
    RETURNING r.run_id
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a connection's syncs went up to now."""

    connection: StoredConnection
    is_loaded: bool
    """Everything was read once."""
    is_wanted: bool
    """Somebody asked for a sync, and no run has taken the connection up since."""
    failures: int
    """Runs in a row, up to the last one, that failed or crashed."""
    last_end: datetime | None
    request_id: str | None = None
    """Of the request that asked for a sync, while one is wanted."""
    trace_parent: str | None = None

    @property
    def is_enabled(self) -> bool:
        """False while it is paused."""
        return self.connection.is_enabled


def list_standings(database_url: SecretStr) -> list[Standing]:
    """Return where all connections stand, oldest first."""
    with (
        open_connection(database_url) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        cursor.execute(_STANDING)
        return [_standing_of(row) for row in cursor]


def find_gaps(
    database_url: SecretStr, stretches: Sequence[tuple[str, datetime, datetime]]
) -> dict[str, list[tuple[datetime, datetime]]]:
    """Return what no completed run was for, of a stretch of time of each connection."""
    gaps: dict[str, list[tuple[datetime, datetime]]] = {id_: [] for id_, _, _ in stretches}
    with open_connection(database_url) as connection:
        columns = [list(column) for column in zip(*stretches, strict=True)] or [[], [], []]
        for connection_id, start, end in connection.execute(_GAPS, columns):
            gaps[connection_id].append((start, end))
    return gaps


def claim_launch(database_url: SecretStr, connection_id: str) -> datetime | None:
    """Claim the right to launch a connection's next run; None when somebody else has it.

    Returns what this launch is known by. A claimer that dies delays the run by a minute.
    """
    with open_connection(database_url) as connection:
        row = connection.execute(
            f"UPDATE hubspot_deals.connections SET launch_claimed_until = now() + {_CLAIM}"
            " WHERE connection_id = %s AND is_enabled AND removed_at IS NULL"
            " AND (launch_claimed_until IS NULL OR launch_claimed_until < now())"
            " RETURNING launch_claimed_until",
            (connection_id,),
        ).fetchone()
    return None if row is None else row[0]


def is_enabled(database_url: SecretStr, connection_id: str) -> bool:
    """Tell whether a connection is there and not paused."""
    with open_connection(database_url) as connection:
        row = connection.execute(
            "SELECT is_enabled FROM hubspot_deals.connections"
            " WHERE connection_id = %s AND removed_at IS NULL",
            (connection_id,),
        ).fetchone()
    return row is not None and row[0]


def list_removed(database_url: SecretStr) -> list[tuple[int, str]]:
    """Return number and id of connections that were removed and have left something."""
    with open_connection(database_url) as connection:
        return connection.execute(
            "SELECT seq, connection_id FROM hubspot_deals.connections"
            " WHERE removed_at IS NOT NULL ORDER BY removed_at"
        ).fetchall()


def end_lost_runs(database_url: SecretStr) -> list[str]:
    """Write down that runs crashed which nobody works on any more, and return their Dagster runs.

    Nobody: none holds the connection's lease, or whoever does has long been silent; the next run
    takes it away from a worker that is frozen.
    """
    with open_connection(database_url) as connection:
        ended = connection.execute(_END_LOST, (SyncOutcome.CRASHED, GONE))
        return [run_id for (run_id,) in ended]


def get_freshness(database_url: SecretStr, connection_id: str) -> datetime | None:
    """Return the moment before which everything is in a connection's tables."""
    with open_connection(database_url) as connection:
        row = connection.execute(
            "SELECT fresh_as_of FROM hubspot_deals.connections WHERE connection_id = %s",
            (connection_id,),
        ).fetchone()
    return None if row is None else row[0]


def _standing_of(row: dict[str, Any]) -> Standing:
    own = ("is_loaded", "is_wanted", "failures", "last_end", "request_id", "trace_parent")
    said = {name: row.pop(name) for name in own}
    return Standing(connection_of(row), **said)
