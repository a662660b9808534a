"""How a worker ends a scan, or sets it aside: each in one transaction of its epoch."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from hubspot_deals.contract import Outcome
from hubspot_deals.warehouse.certificates import store_certificate
from hubspot_deals.warehouse.chunks import delete_uncounted_rows
from hubspot_deals.warehouse.leases import Lease


@dataclass(frozen=True, slots=True)
class TableResult:
    """A table of the snapshot that a scan completes with."""

    table_name: str
    row_count: int
    extracted_count: int
    columns: tuple[str, ...]


def complete(
    lease: Lease,
    tables: Sequence[TableResult],
    metadata: Mapping[str, Any],
    certificate: Mapping[str, Any] | None = None,
) -> None:
    """Serve this generation from now on, then drop the rows of earlier ones."""
    deals = sum(table.row_count for table in tables if table.table_name == "deals")
    with lease.fenced() as cursor:
        cursor.executemany(
            "INSERT INTO hubspot_deals.scan_tables (scan_id, generation, table_name,"
            " row_count, extracted_count, columns) VALUES (%s, %s, %s, %s, %s, %s)",
            [
                (
                    lease.config.scan_id,
                    lease.generation,
                    table.table_name,
                    table.row_count,
                    table.extracted_count,
                    list(table.columns),
                )
                for table in tables
            ],
        )
        cursor.execute(
            "UPDATE hubspot_deals.scans SET outcome = %s, generation = %s, ended_at = now(),"
            " heartbeat_at = now(), error_message = NULL,"
            # A rerun replaces the earlier run's times as well as its rows.
            " started_at = CASE WHEN outcome = 'completed' THEN %s ELSE started_at END,"
            " records_extracted = %s, metadata = %s WHERE scan_id = %s",
            (
                Outcome.COMPLETED,
                lease.generation,
                lease.taken_at,
                deals,
                Jsonb(metadata),
                lease.config.scan_id,
            ),
        )
        for kept in ("scan_chunks", "scan_tables"):
            cursor.execute(
                f"DELETE FROM hubspot_deals.{kept} WHERE scan_id = %s AND generation < %s",
                (lease.config.scan_id, lease.generation),
            )
        if certificate is not None:
            store_certificate(cursor, lease, certificate)
    # Nobody sees these rows any more, and the next run of the scan would delete them too.
    with suppress(psycopg.Error):
        delete_uncounted_rows(lease)


def fail(lease: Lease, message: str) -> None:
    """Record why the scan ended; a failed rerun leaves the served outcome as it is."""
    _end(lease, Outcome.FAILED, message)


def cancel(lease: Lease) -> None:
    """Record that the run was terminated by hand; what a rerun would replace stays served."""
    _end(lease, Outcome.CANCELLED, None)


def pause(lease: Lease, resume_at: datetime, reason: str) -> bool:
    """Set the scan aside until HubSpot's limit is free; a sensor lets it go on then.

    A rerun of a completed scan has nothing to come back to: it ends, the scan stays served, and
    the answer is False.
    """
    with lease.fenced() as cursor:
        cursor.execute(
            "UPDATE hubspot_deals.scans SET requested = 'pause', resume_at = %s,"
            " error_message = %s, epoch = epoch + 1 WHERE scan_id = %s AND outcome IS NULL",
            (resume_at, reason, lease.config.scan_id),
        )
        is_paused = cursor.rowcount > 0
        _note_rerun(cursor, lease, Outcome.FAILED, reason)
    return is_paused


def note_interruption(lease: Lease, message: str) -> None:
    """Write down why the worker gives up, and leave the scan to be resumed by itself.

    It has failed when that was tried as often in a row as it may be.
    """
    with lease.fenced() as cursor:
        cursor.execute(
            "UPDATE hubspot_deals.scans SET error_message = %s,"
            " outcome = CASE WHEN auto_resumes >= auto_resume_limit THEN %s END,"
            " ended_at = CASE WHEN auto_resumes >= auto_resume_limit THEN now() END"
            " WHERE scan_id = %s AND outcome IS NULL",
            (message, Outcome.FAILED, lease.config.scan_id),
        )
        _note_rerun(cursor, lease, Outcome.FAILED, message)


def _end(lease: Lease, outcome: Outcome, message: str | None) -> None:
    with lease.fenced() as cursor:
        cursor.execute(
            "UPDATE hubspot_deals.scans SET outcome = %s, ended_at = now(),"
            " heartbeat_at = now(), error_message = %s WHERE scan_id = %s AND outcome IS NULL",
            (outcome, message, lease.config.scan_id),
        )
        _note_rerun(cursor, lease, outcome, message)


def _note_rerun(
    cursor: psycopg.Cursor[Any], lease: Lease, outcome: Outcome, message: str | None
) -> None:
    """Note on a completed scan how the run ended that would have replaced its result."""
    rerun = {"runId": lease.run_id, "outcome": outcome, "error": message}
    cursor.execute(
        "UPDATE hubspot_deals.scans SET metadata = metadata || %s"
        " WHERE scan_id = %s AND outcome = %s",
        (Jsonb({"lastRerun": rerun}), lease.config.scan_id, Outcome.COMPLETED),
    )
