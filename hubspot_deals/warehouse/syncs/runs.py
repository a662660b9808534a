"""The runs of connections: how they are written down."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from hubspot_deals.sync_contract import SyncKind, SyncOutcome
from hubspot_deals.sync_errors import PortalTakenError
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.syncs.leases import SyncLease
from hubspot_deals.warehouse.syncs.states import write_state

GONE: Final = "The worker was gone before it could say how it ended."


def begin_run(
    lease: SyncLease, run_id: str, kind: SyncKind, window: tuple[datetime | None, datetime | None]
) -> None:
    """Write down that a run has begun, and that those before it are over."""
    with lease.fenced() as cursor:
        cursor.execute(
            "UPDATE hubspot_deals.sync_runs SET outcome = %s, ended_at = now(),"
            " error_message = coalesce(error_message, %s)"
            " WHERE connection_id = %s AND outcome IS NULL",
            (SyncOutcome.CRASHED, GONE, lease.connection_id),
        )
        cursor.execute(
            "INSERT INTO hubspot_deals.sync_runs (connection_id, run_no, run_id, epoch, kind,"
            " window_start, window_end) VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (lease.connection_id, lease.run_no, run_id, lease.epoch, kind, *window),
        )
        # The launch has been heard of. A backfill reads nothing newer, and leaves the wish for a
        # sync to the run after it.
        cursor.execute(
            "UPDATE hubspot_deals.connections SET launch_claimed_until = NULL,"
            " sync_wanted_at = CASE WHEN %s THEN sync_wanted_at END WHERE connection_id = %s",
            (kind is SyncKind.BACKFILL, lease.connection_id),
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
                SyncOutcome.COMPLETED,
                kind,
                Jsonb(report),
                read_until,
                is_proved,
                lease.connection_id,
                lease.run_no,
            ),
        )


def end_run(
    lease: SyncLease, outcome: SyncOutcome, message: str | None, report: Mapping[str, Any]
) -> None:
    """Write down why a run ended early, also when its lease is lost: the row is its own."""
    with open_connection(lease.database_url) as connection:
        connection.execute(
            "UPDATE hubspot_deals.sync_runs SET outcome = %s, ended_at = now(),"
            " error_message = %s, counts = %s"
            " WHERE connection_id = %s AND run_no = %s AND outcome IS NULL",
            (outcome, message, Jsonb(report), lease.connection_id, lease.run_no),
        )
