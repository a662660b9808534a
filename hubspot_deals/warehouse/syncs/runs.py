"""The runs of connections: how they are written down, and which windows they leave open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from hubspot_deals.contract import Outcome
from hubspot_deals.sync_contract import SyncKind
from hubspot_deals.sync_errors import PortalTakenError
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.syncs.leases import SyncLease
from hubspot_deals.warehouse.syncs.states import IS_SYNCING, write_state

CRASHED: str = "crashed"
_GONE = "The worker was gone before it could say how it ended."


@dataclass(frozen=True, slots=True)
class SyncRun:
    """One run of a connection. `counts` is what its report says, in the REST spelling.

    `window_start` and `window_end` are None where it was for no partition. `outcome` is completed,
    failed, cancelled or crashed, and None while it is at work.
    """

    connection_id: str
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


_COLUMNS = (
    "r.connection_id, r.run_no, r.run_id, r.kind, r.window_start, r.window_end, r.started_at,"
    " r.ended_at, r.outcome, r.read_until, r.is_proved, r.counts, r.error_message"
)


def begin_run(
    lease: SyncLease, run_id: str, kind: SyncKind, window: tuple[datetime | None, datetime | None]
) -> None:
    """Write down that a run has begun, and that those before it are over."""
    with lease.fenced() as cursor:
        cursor.execute(
            "UPDATE hubspot_deals.sync_runs SET outcome = %s, ended_at = now(),"
            " error_message = coalesce(error_message, %s)"
            " WHERE connection_id = %s AND outcome IS NULL",
            (CRASHED, _GONE, lease.connection_id),
        )
        cursor.execute(
            "INSERT INTO hubspot_deals.sync_runs (connection_id, run_no, run_id, epoch, kind,"
            " window_start, window_end) VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (lease.connection_id, lease.run_no, run_id, lease.epoch, kind, *window),
        )
        if kind is not SyncKind.BACKFILL:
            # That reads nothing newer, and leaves the wish for a sync to the run after it.
            cursor.execute(
                "UPDATE hubspot_deals.connections SET sync_wanted_at = NULL"
                " WHERE connection_id = %s",
                (lease.connection_id,),
            )


def claim_portal(lease: SyncLease, portal_id: int) -> None:
    """Note which HubSpot account a connection is of, which nobody knew.

    Raises PortalTakenError when another connection of the organization is of that account.
    """
    try:
        with lease.fenced() as cursor:
            write_state(cursor, lease.connection_id, {"portal_id": portal_id})
    except UniqueViolation:
        found = lease.connection.execute(
            "SELECT connection_id FROM hubspot_deals.connections"
            " WHERE organization_id = %s AND portal_id = %s AND removed_at IS NULL",
            (lease.organization_id, portal_id),
        ).fetchone()
        other = found[0] if found else "(removed just now)"
        raise PortalTakenError(lease.connection_id, portal_id, other) from None


def complete_run(  # noqa: PLR0913 - what a run ends with
    lease: SyncLease,
    kind: SyncKind,
    report: Mapping[str, Any],
    *,
    read_until: datetime | None,
    is_proved: bool,
    state: Mapping[str, Any],
) -> None:
    """Let the next run go on from here, in the transaction that says that this one is complete."""
    with lease.fenced() as cursor:
        write_state(cursor, lease.connection_id, state)
        cursor.execute(
            "UPDATE hubspot_deals.sync_runs SET outcome = %s, ended_at = now(), kind = %s,"
            " counts = %s, read_until = %s, is_proved = %s"
            " WHERE connection_id = %s AND run_no = %s",
            (
                Outcome.COMPLETED,
                kind,
                Jsonb(report),
                read_until,
                is_proved,
                lease.connection_id,
                lease.run_no,
            ),
        )


def end_run(
    lease: SyncLease, outcome: Outcome, message: str | None, report: Mapping[str, Any]
) -> None:
    """Write down why a run ended early, also when its lease is lost: the row is its own."""
    with open_connection(lease.database_url) as connection:
        connection.execute(
            "UPDATE hubspot_deals.sync_runs SET outcome = %s, ended_at = now(),"
            " error_message = %s, counts = %s"
            " WHERE connection_id = %s AND run_no = %s AND outcome IS NULL",
            (outcome, message, Jsonb(report), lease.connection_id, lease.run_no),
        )


def missing_windows(
    connection: psycopg.Connection[Any], connection_id: str
) -> Sequence[tuple[datetime, datetime]]:
    """Return the stretches between a connection's first window and its cursor without a run.

    What happened in them is in the tables, since every run goes on where the last one stopped:
    but no completed run was for them, so that their partitions look open. Oldest first; none
    before the first load is complete.
    """
    return connection.execute(
        "WITH done AS ("
        " SELECT range_agg(tstzrange(window_start, window_end)) AS covered,"
        " min(window_start) AS first FROM hubspot_deals.sync_runs"
        " WHERE connection_id = %(connection)s AND outcome = %(completed)s"
        " AND window_start < window_end)"
        " SELECT lower(hole), upper(hole) FROM done JOIN hubspot_deals.connections c"
        " ON c.connection_id = %(connection)s AND c.cursor > done.first,"
        " unnest(tstzmultirange(tstzrange(done.first, c.cursor)) - done.covered) AS hole"
        " ORDER BY 1",
        {"connection": connection_id, "completed": Outcome.COMPLETED},
    ).fetchall()


def find_lost_runs(connection: psycopg.Connection[Any]) -> list[SyncRun]:
    """Return runs that have not ended although nobody holds their connection's lease."""
    cursor = connection.cursor(row_factory=class_row(SyncRun))
    cursor.execute(
        f"SELECT {_COLUMNS} FROM hubspot_deals.sync_runs r"
        " JOIN hubspot_deals.connections c USING (connection_id)"
        f" WHERE r.outcome IS NULL AND NOT {IS_SYNCING}"
    )
    return cursor.fetchall()


def mark_lost_run(database_url: SecretStr, run: SyncRun) -> bool:
    """Write down that a run crashed, unless it has ended meanwhile; return whether it had not."""
    with open_connection(database_url) as connection:
        marked = connection.execute(
            "UPDATE hubspot_deals.sync_runs r SET outcome = %s, ended_at = now(),"
            " error_message = %s FROM hubspot_deals.connections c"
            " WHERE c.connection_id = r.connection_id AND r.connection_id = %s AND r.run_no = %s"
            f" AND r.outcome IS NULL AND NOT {IS_SYNCING}",
            (CRASHED, _GONE, run.connection_id, run.run_no),
        )
        return marked.rowcount > 0
