"""Removes scans, or only their results: hidden in one statement, deleted in batches behind it.

Whoever hides a scan may die before all of it is deleted; the pipeline's sensor goes on with it.
What Dagster knows of the scan is deleted by that sensor, from the notes in `removed_scans`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection, Connection, sql
from psycopg.rows import class_row, dict_row, scalar_row
from pydantic import SecretStr

from hubspot_deals.contract import DATASET_NAME, TABLE_NAMES, Outcome
from hubspot_deals.errors import ScanStateError
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.leases import end_sessions
from hubspot_deals.warehouse.scans import get_scan
from hubspot_deals.warehouse.states import HAS_ENDED, IS_HELD, IS_VISIBLE, LOCK_ID
from hubspot_deals.warehouse.views import keep_view

_BATCH_ROWS: Final = 2_000
_REST: Final = 0.5
"""Of the time that a batch took, so that deletion leaves room for everybody else."""
_CLAIM: Final = "now() + interval '60 seconds'"

_HIDE: Final = f"""
    UPDATE hubspot_deals.scans s SET removal = %(removal)s, epoch = epoch + 1,
        results_removed_at = coalesce(results_removed_at, now()), removal_claimed_until = {_CLAIM},
        ended_at = coalesce(ended_at, heartbeat_at),
        outcome = coalesce(outcome, '{Outcome.FAILED}'),
        error_message = CASE WHEN outcome IS NULL THEN 'The worker was gone, and nobody resumed the'
            ' scan before its results were removed.' ELSE error_message END
"""
_MARKED: Final = """
    RETURNING s.seq, s.scan_id, (
        SELECT coalesce(sum(c.row_count), 0)::bigint FROM hubspot_deals.scan_chunks c
        WHERE c.scan_id = s.scan_id
    ) AS records
"""


@dataclass(frozen=True, slots=True)
class MarkedScan:
    """A scan that nobody sees any more, or whose results nobody sees."""

    seq: int
    scan_id: str
    records: int
    """Rows that counted."""


@dataclass(frozen=True, slots=True)
class RemovedScan:
    """A scan of which Dagster may still know."""

    scan_id: str
    run_ids: list[str]
    removed_at: datetime


async def mark_scan_for_removal(connection: AsyncConnection[Any], scan_id: str) -> MarkedScan:
    """Hide an ended scan with everything; raises ScanNotFoundError or ScanStateError."""
    async with connection.transaction():
        cursor = connection.cursor(row_factory=class_row(MarkedScan))
        await cursor.execute(
            f"{_HIDE} WHERE s.scan_id = %(scan)s AND {IS_VISIBLE} AND {HAS_ENDED} {_MARKED}",
            {"removal": "scan", "scan": scan_id},
        )
        marked = await cursor.fetchone()
        if marked is None:
            raise ScanStateError(scan_id, "removed", (await get_scan(connection, scan_id)).status)
        await connection.execute(_NOTE, ([scan_id],))
    return marked


async def mark_old_scans(
    connection: AsyncConnection[Any], *, days_old: int, purge: bool = False
) -> list[MarkedScan]:
    """Hide the results of scans that ended so many days ago; with `purge` the scans as well."""
    async with connection.transaction():
        cursor = connection.cursor(row_factory=class_row(MarkedScan))
        await cursor.execute(_MARK_OLD, _of_age(days_old, purge=purge))
        marked = await cursor.fetchall()
        await connection.execute(_NOTE, ([scan.scan_id for scan in marked],))
    return marked


def mark_expired_results(database_url: SecretStr, *, days_old: int) -> None:
    """Hide the results of scans that ended so many days ago, for scheduled retention."""
    with open_connection(database_url) as connection, connection.transaction():
        cursor = connection.cursor(row_factory=class_row(MarkedScan))
        marked = cursor.execute(_MARK_OLD, _of_age(days_old, purge=False)).fetchall()
        connection.execute(_NOTE, ([scan.scan_id for scan in marked],))


_MARK_OLD: Final = f"""{_HIDE}
    WHERE s.removal IS NULL AND {HAS_ENDED} AND NOT {IS_HELD}
    AND (s.results_removed_at IS NULL OR %(purge)s)
    AND coalesce(s.ended_at, s.heartbeat_at, s.created_at) < now() - make_interval(days => %(days)s)
    {_MARKED}"""
_NOTE: Final = """
    INSERT INTO hubspot_deals.removed_scans AS r (scan_id, run_ids)
    SELECT s.scan_id, array_remove(s.run_id || ARRAY(
        SELECT attempt ->> 'runId' FROM jsonb_array_elements(s.attempts) attempt), NULL)
    FROM hubspot_deals.scans s WHERE s.scan_id = ANY(%s::text[])
    ON CONFLICT (scan_id) DO UPDATE
    SET removed_at = now(), run_ids = r.run_ids || EXCLUDED.run_ids
"""


def _of_age(days_old: int, *, purge: bool) -> dict[str, Any]:
    return {"removal": "scan" if purge else "results", "days": days_old, "purge": purge}


def claim_unfinished_removals(database_url: SecretStr, *, limit: int) -> list[int]:
    """Return the numbers (`seq`) of scans whose rows nobody is deleting, oldest first."""
    with open_connection(database_url) as connection:
        claimed = connection.execute(
            f"UPDATE hubspot_deals.scans SET removal_claimed_until = {_CLAIM}"
            " WHERE seq IN (SELECT seq FROM hubspot_deals.scans WHERE removal IS NOT NULL"
            " AND removal_claimed_until < now() ORDER BY removal_claimed_until LIMIT %s"
            " FOR UPDATE SKIP LOCKED) RETURNING seq",
            (limit,),
        ).fetchall()
    return sorted(seq for (seq,) in claimed)


def remove_marked_rows(database_url: SecretStr, seq: int, *, seconds: float) -> bool:
    """Delete what belongs to a marked scan, for less than a minute; True when nothing is left.

    Small transactions with pauses between them: whoever reads other scans waits for none of it.
    """
    deadline = time.monotonic() + seconds
    with open_connection(database_url) as connection:
        scan = (
            connection.cursor(row_factory=dict_row)
            .execute(
                "SELECT scan_id, organization_id, removal, epoch FROM hubspot_deals.scans"
                " WHERE seq = %s AND removal IS NOT NULL",
                (seq,),
            )
            .fetchone()
        )
        if scan is None:
            return True
        connection.execute(
            f"UPDATE hubspot_deals.scans SET removal_claimed_until = {_CLAIM} WHERE seq = %s",
            (seq,),
        )
        end_sessions(connection, scan["scan_id"], seq, before_epoch=scan["epoch"])
        for table_name in TABLE_NAMES:
            while _delete_pass(connection, table_name, scan["scan_id"], deadline):
                continue
            if time.monotonic() > deadline:
                return False
        _delete_scan(connection, seq, scan["scan_id"], scan["removal"])
        keep_view(connection, scan["organization_id"])
        return True


def _delete_pass(
    connection: Connection[Any], table_name: str, scan_id: str, deadline: float
) -> bool:
    """Walk a scan's rows upwards once, so that no batch searches among rows deleted before.

    Returns whether another pass may find more: generations share their row numbers.
    """
    found = False
    last_row = -1
    while time.monotonic() < deadline:
        began = time.monotonic()
        row = connection.execute(
            sql.SQL(
                "WITH doomed AS MATERIALIZED (SELECT ctid AS place, row_no FROM {dataset}.{table}"
                " WHERE scan_id = %s AND row_no > %s ORDER BY row_no LIMIT %s),"
                " gone AS (DELETE FROM {dataset}.{table} WHERE ctid IN (SELECT place FROM doomed)"
                " RETURNING _dlt_load_id), loads AS (DELETE FROM {dataset}._dlt_loads"
                " WHERE load_id IN (SELECT DISTINCT _dlt_load_id FROM gone))"
                " SELECT max(row_no) FROM doomed"
            ).format(dataset=sql.Identifier(DATASET_NAME), table=sql.Identifier(table_name)),
            (scan_id, last_row, _BATCH_ROWS),
        ).fetchone()
        if row is None or row[0] is None:
            return found
        last_row, found = row[0], True
        time.sleep(_REST * (time.monotonic() - began))
    return False


def _delete_scan(connection: Connection[Any], seq: int, scan_id: str, removal: str) -> None:
    """Delete the scan itself, or what a tombstone does not keep."""
    with connection.transaction():
        connection.execute(
            sql.SQL("DELETE FROM {}._dlt_pipeline_state WHERE pipeline_name LIKE %s").format(
                sql.Identifier(DATASET_NAME)
            ),
            (f"scan\\_{seq}\\_%",),
        )
        if removal == "scan":
            connection.execute(
                "DELETE FROM hubspot_deals.scans WHERE seq = %s AND removal = 'scan'", (seq,)
            )
            return
        for table in ("scan_chunks", "scan_tables", "certificates", "credentials"):
            connection.execute(f"DELETE FROM hubspot_deals.{table} WHERE scan_id = %s", (scan_id,))
        connection.execute(
            "UPDATE hubspot_deals.scans SET removal = NULL WHERE seq = %s AND removal = 'results'",
            (seq,),
        )


def drop_credentials(database_url: SecretStr, *, hours_old: int) -> int:
    """Delete the access tokens of scans that ended so long ago; return how many.

    A scan that has ended needs its token only for a rerun by hand in Dagster. One that is being run
    again, that rests or that has crashed keeps it: it can still go on.
    """
    with open_connection(database_url) as connection:
        # Locked, a scan cannot be started anew meanwhile, whose new token would be deleted.
        dropped = connection.execute(
            "WITH ended AS (SELECT s.scan_id FROM hubspot_deals.scans s"
            " WHERE s.scan_id IN (SELECT scan_id FROM hubspot_deals.credentials)"
            " AND s.outcome IS NOT NULL AND s.ended_at <= now() - make_interval(hours => %s)"
            f" AND NOT {IS_HELD} FOR UPDATE SKIP LOCKED)"
            " DELETE FROM hubspot_deals.credentials c USING ended WHERE c.scan_id = ended.scan_id",
            (hours_old,),
        )
        return dropped.rowcount


def find_removed_scans(database_url: SecretStr, *, limit: int) -> list[RemovedScan]:
    """Return scans of which Dagster may still know, the oldest removals first."""
    with open_connection(database_url) as connection:
        cursor = connection.cursor(row_factory=class_row(RemovedScan))
        cursor.execute(
            "SELECT scan_id, run_ids, removed_at FROM hubspot_deals.removed_scans"
            " ORDER BY removed_at LIMIT %s",
            (limit,),
        )
        return cursor.fetchall()


@contextmanager
def locked_id(database_url: SecretStr, scan_id: str) -> Iterator[bool]:
    """Keep a scan id from being taken; yields whether a scan with results has it now."""
    with open_connection(database_url) as connection:
        connection.execute(LOCK_ID.format(kind="lock"), (scan_id,))
        cursor = connection.cursor(row_factory=scalar_row)
        cursor.execute(
            "SELECT EXISTS (SELECT FROM hubspot_deals.scans"
            " WHERE scan_id = %s AND results_removed_at IS NULL)",
            (scan_id,),
        )
        yield bool(cursor.fetchone())


def forget_removed_scan(database_url: SecretStr, removed: RemovedScan) -> None:
    """Strike a scan off the list, unless it was removed once more since."""
    with open_connection(database_url) as connection:
        connection.execute(
            "DELETE FROM hubspot_deals.removed_scans WHERE scan_id = %s AND removed_at = %s",
            (removed.scan_id, removed.removed_at),
        )
