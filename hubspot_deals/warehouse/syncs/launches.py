"""Where the connections stand, as the sensor that launches their syncs sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg.rows import dict_row
from pydantic import SecretStr

from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.syncs.connections import StoredConnection, connection_of

_CLAIM: Final = "interval '60 seconds'"
"""After this, a launch that nobody has heard of is taken for lost."""

_STANDING: Final = """
    SELECT c.seq, c.connection_id, c.organization_id, c.name, c.portal_id, c.settings,
        c.is_enabled, c.created_at, c.updated_at, c.fresh_as_of, k.account,
        c.cursor IS NOT NULL AS is_loaded,
        coalesce(c.sync_wanted_at > coalesce(r.last_start, '-infinity'), false) AS is_wanted,
        coalesce(r.failures, 0) AS failures, r.last_end,
        coalesce(r.is_hopeless AND c.updated_at <= r.last_start, false) AS is_hopeless
    FROM hubspot_deals.connections c
    LEFT JOIN hubspot_deals.connection_credentials k USING (connection_id)
    LEFT JOIN LATERAL (
        SELECT max(started_at) AS last_start, max(ended_at) AS last_end,
            count(*) FILTER (WHERE run_no > coalesce((
                SELECT max(d.run_no) FROM hubspot_deals.sync_runs d
                WHERE d.connection_id = c.connection_id AND d.outcome = 'completed'
            ), 0)) AS failures,
            false AS is_hopeless
        FROM (
            SELECT * FROM hubspot_deals.sync_runs s WHERE s.connection_id = c.connection_id
            ORDER BY s.run_no DESC LIMIT 20
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


@dataclass(frozen=True, slots=True)
class Standing:
    """How a connection's syncs went up to now."""

    connection: StoredConnection
    is_loaded: bool
    """Everything was read once."""
    is_wanted: bool
    """Somebody asked for a sync, and none has begun since."""
    failures: int
    """Runs in a row, up to the last one, that did not complete."""
    last_end: datetime | None
    is_hopeless: bool
    """The last run has failed for good, and nothing was changed since."""

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


def _standing_of(row: dict[str, Any]) -> Standing:
    own = ("is_loaded", "is_wanted", "failures", "last_end", "is_hopeless")
    said = {name: row.pop(name) for name in own}
    return Standing(connection_of(row), **said)
