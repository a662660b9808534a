"""Scans that wait for a run, and scans whose run is gone, as the sensor sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.rows import class_row
from pydantic import SecretStr

from hubspot_deals.contract import LaunchReason, Outcome
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.states import (
    IS_FRESH,
    IS_HELD,
    IS_UNFINISHED,
    IS_VISIBLE,
    LOOK_AGAIN_SECONDS,
    LOST_ITS_WORKER,
    WILL_RESUME,
)

_FIRST_PAUSE: Final = "interval '5 seconds'"
"""Before the second resumption in a row; it doubles from then on."""

_LAST_WORDS: Final = "interval '30 seconds'"

_GOES_ON: Final = """
    requested = 'run', epoch = epoch + 1, run_id = NULL, resume_at = NULL, lost_at = NULL,
    resuming_since = CASE WHEN started_at IS NOT NULL THEN now() END, launch_claimed_until = NULL
"""
_IS_WAITING: Final = f"""
    {IS_VISIBLE} AND {IS_UNFINISHED} AND s.requested = 'run'
    AND s.worker_epoch IS DISTINCT FROM s.epoch
"""


@dataclass(frozen=True, slots=True)
class WaitingScan:
    """A scan that no worker has taken up since it was accepted or was to go on."""

    seq: int
    scan_id: str
    organization_id: str
    account: str | None
    epoch: int
    waiting_seconds: float
    request_id: str | None
    trace_parent: str | None
    run_id: str | None
    """The run that the API has launched; of one that the sensor asked for only the key is known."""

    @property
    def run_key(self) -> str:
        """What Dagster knows this launch by, so that it is carried out once."""
        return f"{self.scan_id}/{self.seq}/{self.epoch}"


def resume_due_scans(database_url: SecretStr) -> list[tuple[str, str]]:
    """Let scans go on whose worker is gone or whose pause is over; return them with their last run.

    Those that crash again and again without progress go on after growing pauses, and only as
    often as their limit says.
    """
    last_run = "s.seq, s.scan_id, coalesce(s.attempts -> -1 ->> 'runId', '')"
    with open_connection(database_url) as connection:
        crashed = connection.execute(
            f"UPDATE hubspot_deals.scans s SET {_GOES_ON}, auto_resumes = auto_resumes + 1,"
            f" launch_reason = '{LaunchReason.CRASH}'"
            f" WHERE {IS_VISIBLE} AND {LOST_ITS_WORKER} AND {WILL_RESUME} AND s.heartbeat_at"
            f" < now() - {_FIRST_PAUSE} * (2 ^ least(s.auto_resumes, 10) - 1)"
            f" RETURNING {last_run}"
        ).fetchall()
        rested = connection.execute(
            f"UPDATE hubspot_deals.scans s SET {_GOES_ON},"
            f" launch_reason = '{LaunchReason.QUOTA}', error_message = NULL"
            f" WHERE {IS_VISIBLE} AND {IS_UNFINISHED} AND s.requested = 'pause'"
            f" AND s.resume_at <= now() RETURNING {last_run}"
        ).fetchall()
    return [(scan_id, run_id) for _, scan_id, run_id in sorted(crashed + rested)]


def claim_waiting_scans(database_url: SecretStr, *, limit: int) -> list[WaitingScan]:
    """Claim scans that nobody is launching, in the order in which they were accepted.

    They may have a run already that waits in Dagster's queue, or that is dead. A claimer that dies
    only delays its scans by the length of the claim.
    """
    with (
        open_connection(database_url) as connection,
        connection.cursor(row_factory=class_row(WaitingScan)) as cursor,
    ):
        cursor.execute(
            f"""
            UPDATE hubspot_deals.scans
            SET launch_claimed_until = now() + interval '{LOOK_AGAIN_SECONDS} seconds'
            WHERE seq IN (
                SELECT s.seq FROM hubspot_deals.scans s WHERE {_IS_WAITING}
                AND (s.launch_claimed_until IS NULL OR s.launch_claimed_until < now())
                ORDER BY s.seq LIMIT %s FOR UPDATE SKIP LOCKED
            )
            RETURNING seq, scan_id, organization_id, epoch, run_id, request_id, trace_parent,
                (SELECT c.account FROM hubspot_deals.credentials c
                 WHERE c.scan_id = scans.scan_id) AS account,
                extract(epoch FROM now()
                    - coalesce(resuming_since, restarted_at, created_at))::float AS waiting_seconds
            """,
            (limit,),
        )
        return sorted(cursor.fetchall(), key=lambda scan: scan.seq)


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that Dagster counts as working, and the scan of its partition."""

    run_id: str
    scan_id: str
    is_of_scan_job: bool


def find_abandoned_runs(database_url: SecretStr, runs: Sequence[StartedRun]) -> list[str]:
    """Return those of these runs that no worker works for.

    A worker that has just let its scan go may still be telling Dagster so.
    """
    with open_connection(database_url) as connection:
        found = connection.execute(
            "SELECT r.run_id FROM unnest(%s::text[], %s::text[], %s::boolean[])"
            " AS r (run_id, scan_id, is_of_scan_job)"
            " LEFT JOIN hubspot_deals.scans s ON s.scan_id = r.scan_id AND s.run_id = r.run_id"
            " WHERE CASE WHEN s.seq IS NULL THEN r.is_of_scan_job"
            f" ELSE NOT {IS_HELD} AND s.heartbeat_at < now() - {_LAST_WORDS} END",
            (
                [run.run_id for run in runs],
                [run.scan_id for run in runs],
                [run.is_of_scan_job for run in runs],
            ),
        )
        return [run_id for (run_id,) in found]


def give_up_silent_workers(database_url: SecretStr) -> None:
    """Fence out workers that are silent where nobody takes over: their scans have crashed."""
    with open_connection(database_url) as connection:
        connection.execute(
            "UPDATE hubspot_deals.scans s SET epoch = epoch + 1, worker_epoch = epoch + 1,"
            f" lost_at = now() WHERE {IS_VISIBLE} AND {IS_UNFINISHED} AND s.requested = 'run'"
            f" AND {IS_HELD} AND NOT {IS_FRESH}"
        )


def cancel_scan_of_run(database_url: SecretStr, run: StartedRun) -> bool:
    """End a scan whose run was terminated by hand, if that run still works on it."""
    with open_connection(database_url) as connection:
        changed = connection.execute(
            "UPDATE hubspot_deals.scans s SET outcome = %s, ended_at = now(), epoch = epoch + 1"
            f" WHERE s.scan_id = %s AND s.run_id = %s AND {IS_VISIBLE} AND {IS_UNFINISHED}"
            " AND s.requested = 'run' AND s.worker_epoch = s.epoch",
            (Outcome.CANCELLED, run.scan_id, run.run_id),
        )
        return changed.rowcount > 0


def launch_anew(database_url: SecretStr, scan: WaitingScan, message: str) -> None:
    """Give up on the run that a waiting scan had, unless the scan has moved on.

    It counts as a crash: a scan whose runs die before they begin, as often as its limit says, has
    failed with this message.
    """
    with open_connection(database_url) as connection:
        changed = connection.execute(
            f"UPDATE hubspot_deals.scans s SET {_GOES_ON}, auto_resumes = auto_resumes + 1"
            f" WHERE s.seq = %s AND s.epoch = %s AND {_IS_WAITING} AND {WILL_RESUME}",
            (scan.seq, scan.epoch),
        )
        if changed.rowcount == 0:
            _end(connection, scan, Outcome.FAILED, message)


def end_waiting_scan(
    database_url: SecretStr, scan: WaitingScan, outcome: Outcome, message: str
) -> None:
    """Record the end of a scan whose run was ended before a worker took it up."""
    with open_connection(database_url) as connection:
        _end(connection, scan, outcome, message)


def _end(
    connection: psycopg.Connection[Any], scan: WaitingScan, outcome: Outcome, message: str
) -> None:
    connection.execute(
        "UPDATE hubspot_deals.scans s SET outcome = %s, ended_at = now(), error_message = %s,"
        f" resuming_since = NULL, epoch = epoch + 1 WHERE s.seq = %s AND s.epoch = %s"
        f" AND {_IS_WAITING}",
        (outcome, message, scan.seq, scan.epoch),
    )
