"""What callers want of a scan that exists: each a single compare-and-set with one winner.

Each raises the epoch, so that whatever a worker does from then on is refused. The worker notices
by itself within seconds.
"""

from dataclasses import replace
from typing import Any, Final

from psycopg import AsyncConnection

from hubspot_deals.contract import LaunchReason, Outcome
from hubspot_deals.errors import ScanStateError
from hubspot_deals.warehouse.scans import ScanRecord, get_scan
from hubspot_deals.warehouse.states import (
    HAS_CRASHED,
    IS_HELD,
    IS_UNFINISHED,
    IS_VISIBLE,
    LAUNCH_CLAIM_SECONDS,
    LOST_ITS_WORKER,
)

_CANCEL: Final = f"""
    UPDATE hubspot_deals.scans s SET outcome = '{Outcome.CANCELLED}', ended_at = now(),
        epoch = epoch + 1, resume_at = NULL, resuming_since = NULL, error_message = NULL
    WHERE s.scan_id = %(scan)s AND {IS_VISIBLE} AND {IS_UNFINISHED}
"""
_PAUSE: Final = f"""
    UPDATE hubspot_deals.scans s SET requested = 'pause', epoch = epoch + 1,
        resume_at = NULL, resuming_since = NULL, error_message = NULL
    WHERE s.scan_id = %(scan)s AND {IS_VISIBLE} AND {IS_UNFINISHED}
    AND (s.requested = 'run' AND NOT {HAS_CRASHED} OR s.resume_at IS NOT NULL)
"""
_RESUME: Final = f"""
    UPDATE hubspot_deals.scans s SET requested = 'run', epoch = epoch + 1, run_id = NULL,
        resume_at = NULL, resuming_since = now(), launch_reason = '{LaunchReason.RESUME}',
        auto_resumes = 0, lost_at = NULL, error_message = NULL,
        launch_claimed_until = now() + interval '{LAUNCH_CLAIM_SECONDS} seconds'
    WHERE s.scan_id = %(scan)s AND {IS_VISIBLE} AND {IS_UNFINISHED}
    AND (s.requested = 'pause' OR {HAS_CRASHED})
"""


async def cancel_scan(connection: AsyncConnection[Any], scan_id: str) -> ScanRecord:
    """End a scan for good; raises ScanNotFoundError or ScanStateError. Rows are kept unserved."""
    return await _change(connection, scan_id, _CANCEL, "cancelled")


async def pause_scan(connection: AsyncConnection[Any], scan_id: str) -> ScanRecord:
    """Let a scan rest after its last committed chunk until it is resumed.

    Raises ScanNotFoundError or ScanStateError.
    """
    return await _change(connection, scan_id, _PAUSE, "paused")


async def resume_scan(connection: AsyncConnection[Any], scan_id: str) -> ScanRecord:
    """Let a paused or crashed scan go on, with the launch of its run claimed by the caller.

    Raises ScanNotFoundError or ScanStateError.
    """
    return await _change(connection, scan_id, _RESUME, "resumed")


async def _change(
    connection: AsyncConnection[Any], scan_id: str, statement: str, asked: str
) -> ScanRecord:
    changed = await connection.execute(f"{statement} RETURNING run_id, epoch", {"scan": scan_id})
    row = await changed.fetchone()
    scan = await get_scan(connection, scan_id)
    if row is None:
        raise ScanStateError(scan_id, asked, scan.status)
    # Of this change, whatever has been asked for since.
    return replace(scan, run_id=row[0], epoch=row[1])


async def detect_crashed(connection: AsyncConnection[Any], *, silent_minutes: int) -> list[str]:
    """Return the scans whose worker is gone, oldest first.

    A worker that lives but has made no progress for so many minutes is fenced out first, so that
    its scan goes on elsewhere.
    """
    await connection.execute(
        "UPDATE hubspot_deals.scans s SET epoch = epoch + 1, worker_epoch = epoch + 1,"
        " lost_at = now()"
        f" WHERE {IS_VISIBLE} AND {IS_UNFINISHED} AND s.requested = 'run' AND {IS_HELD}"
        " AND s.progress_at < now() - make_interval(mins => %s)",
        (silent_minutes,),
    )
    # An UPDATE is exact where a SELECT may catch a worker that is just ending its scan.
    crashed = await connection.execute(
        "UPDATE hubspot_deals.scans s SET worker_epoch = epoch"
        f" WHERE {IS_VISIBLE} AND {LOST_ITS_WORKER} RETURNING s.seq, s.scan_id"
    )
    return [scan_id for _, scan_id in sorted(await crashed.fetchall())]
