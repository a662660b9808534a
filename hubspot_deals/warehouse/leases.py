"""The right of one worker to write a scan: taken up, kept alive, and fenced."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.rows import dict_row, scalar_row
from pydantic import SecretStr

from hubspot_deals.contract import LaunchReason, ScanConfig
from hubspot_deals.errors import (
    ConfigurationError,
    CredentialError,
    DatabaseLostError,
    LeaseLostError,
    ResultsRemovedError,
    ScanBusyError,
    ScanNotFoundError,
    ScanSupersededError,
)
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.credentials import KeyRing, SealedToken
from hubspot_deals.warehouse.heartbeats import (
    EVICTION_POLL_SECONDS,
    EVICTION_SECONDS,
    Heartbeat,
    end_earlier_sessions,
    end_silent_holder,
    name_sessions,
    notice_lost_machines,
)
from hubspot_deals.warehouse.states import IS_HELD, IS_VISIBLE, LEASE_LOCK_CLASS


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one scan, until the worker ends or another run takes over."""

    database_url: SecretStr
    connection: Connection[Any]
    config: ScanConfig
    seq: int
    generation: int
    epoch: int
    run_id: str
    taken_at: datetime
    heartbeat: Heartbeat

    @property
    def session_name(self) -> str:
        """The name under which every session of this worker shows in `pg_stat_activity`."""
        return _session_name(self.seq, self.epoch)

    def get_token(self, keys: KeyRing) -> SecretStr:
        """Decrypt the scan's access token; raises CredentialError."""
        row = self.connection.execute(
            "SELECT key_id, nonce, ciphertext FROM hubspot_deals.credentials WHERE scan_id = %s",
            (self.config.scan_id,),
        ).fetchone()
        if row is None:
            msg = (
                f"The access token of scan {self.config.scan_id} is not stored any more: it is "
                "dropped some hours after a scan has ended (HUBSPOT_DEALS_CREDENTIAL_HOURS). "
                "Start a new scan through the API, with the token."
            )
            raise CredentialError(msg)
        return keys.open(SealedToken(*row), bound_to=self.config.scan_id)

    def report_progress(self, *, deals: int, expected: int | None) -> None:
        """Tell callers how many deals are committed; a rerun leaves the served numbers alone.

        The expected number is said once, so that progress never runs backwards.
        """
        with self.fenced() as cursor:
            cursor.execute(
                "UPDATE hubspot_deals.scans SET progress_at = now(),"
                " records_extracted = CASE WHEN outcome IS NULL THEN %s ELSE records_extracted END,"
                " records_expected = coalesce(records_expected, %s) WHERE scan_id = %s",
                (deals, expected, self.config.scan_id),
            )

    def was_lost(self) -> bool:
        """Ask on a fresh connection whether the scan has moved on: ours may have been ended."""
        try:
            with open_connection(self.database_url) as connection:
                found = connection.execute(
                    "SELECT 1 FROM hubspot_deals.scans WHERE scan_id = %s AND epoch = %s",
                    (self.config.scan_id, self.epoch),
                )
                return found.fetchone() is None
        except (ConfigurationError, psycopg.Error):
            return False

    @contextmanager
    def fenced(self) -> Iterator[psycopg.Cursor[Any]]:
        """Open a transaction that only the holder of the current epoch can commit.

        Raises LeaseLostError when the epoch has passed, DatabaseLostError without PostgreSQL.
        """
        try:
            with self.connection.transaction(), self.connection.cursor() as cursor:
                cursor.execute(
                    "SELECT 1 FROM hubspot_deals.scans WHERE scan_id = %s AND epoch = %s"
                    " FOR UPDATE",
                    (self.config.scan_id, self.epoch),
                )
                if cursor.fetchone() is None:
                    raise LeaseLostError(self.config.scan_id, self.epoch)
                yield cursor
        except (psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout) as error:
            raise DatabaseLostError(self.config.scan_id, str(error)) from error


@contextmanager
def hold_lease(
    database_url: SecretStr, scan_id: str, run_id: str, *, launch_epoch: int | None
) -> Iterator[Lease]:
    """Take a scan up for this run, and let it go at the end.

    `launch_epoch` is the epoch for which the run was launched, None for a rerun by hand. A rerun
    of a completed scan fills a new generation beside the served one; any other goes on after the
    last committed chunk. Raises ScanNotFoundError, ResultsRemovedError, ScanBusyError or
    ScanSupersededError.
    """
    with (
        open_connection(database_url, application_name="hubspot_deals_scan") as holder,
        open_connection(database_url, application_name="hubspot_deals_scan") as connection,
    ):
        notice_lost_machines(holder)
        _lock(holder, scan_id, launch_epoch)
        taken = _take_up(holder, scan_id, run_id, launch_epoch)
        epoch = taken["epoch"]
        heartbeat = Heartbeat(
            holder,
            "UPDATE hubspot_deals.scans SET heartbeat_at = now() WHERE scan_id = %s AND epoch = %s",
            (scan_id, epoch),
            lost=lambda: LeaseLostError(scan_id, epoch),
            broken=lambda reason: DatabaseLostError(scan_id, reason),
        )
        lease = Lease(
            database_url,
            connection,
            ScanConfig.from_json(taken["config"]),
            seq=taken["seq"],
            generation=taken["working_generation"],
            epoch=epoch,
            run_id=run_id,
            taken_at=taken["heartbeat_at"],
            heartbeat=heartbeat,
        )
        name_sessions(lease.session_name, holder, connection)
        with heartbeat.beating():
            end_sessions(connection, scan_id, lease.seq, before_epoch=lease.epoch)
            yield lease


def end_sessions(connection: Connection[Any], scan_id: str, seq: int, *, before_epoch: int) -> None:
    """End what workers of earlier epochs still have open, and wait until it is gone.

    A statement of theirs that was under way is undone with its session; a later one meets the
    fence. Raises ScanBusyError when PostgreSQL does not end them in time.
    """
    prefix = _session_name(seq, "")
    end_earlier_sessions(
        connection, prefix, before_epoch=before_epoch, busy=lambda: ScanBusyError(scan_id)
    )


def _session_name(seq: int, epoch: int | str) -> str:
    return f"hubspot_deals_scan_{seq}_epoch_{epoch}"  # dlt hands no blanks on to libpq


def _lock(holder: Connection[Any], scan_id: str, launch_epoch: int | None) -> None:
    """Take the scan's lock, from a worker that is fenced out or frozen if need be."""
    deadline = time.monotonic() + EVICTION_SECONDS
    while True:
        scan = _find_scan(holder, scan_id)
        if scan["results_removed_at"] is not None:
            raise ResultsRemovedError(scan_id, scan["results_removed_at"])
        if launch_epoch not in {None, scan["epoch"]}:
            raise ScanSupersededError(scan_id)
        locked = holder.cursor(row_factory=scalar_row).execute(
            "SELECT pg_try_advisory_lock(%s, %s)", (LEASE_LOCK_CLASS, scan["seq"])
        )
        if locked.fetchone():
            return
        if scan["is_held"] or time.monotonic() > deadline:
            raise ScanBusyError(scan_id)
        end_sessions(holder, scan_id, scan["seq"], before_epoch=scan["epoch"] + 1)
        end_silent_holder(holder, LEASE_LOCK_CLASS, scan["seq"])
        time.sleep(EVICTION_POLL_SECONDS)


def _find_scan(holder: Connection[Any], scan_id: str) -> dict[str, Any]:
    cursor = holder.cursor(row_factory=dict_row)
    cursor.execute(
        f"SELECT s.seq, s.epoch, s.results_removed_at, {IS_HELD} AS is_held"
        " FROM hubspot_deals.scans s"
        f" WHERE s.scan_id = %s AND {IS_VISIBLE}",
        (scan_id,),
    )
    if (scan := cursor.fetchone()) is None:
        raise ScanNotFoundError(scan_id)
    return scan


def _take_up(
    holder: Connection[Any], scan_id: str, run_id: str, launch_epoch: int | None
) -> dict[str, Any]:
    cursor = holder.cursor(row_factory=dict_row)
    cursor.execute(
        "UPDATE hubspot_deals.scans SET epoch = epoch + 1, worker_epoch = epoch + 1,"
        " run_id = %(run)s, started_at = coalesce(started_at, now()), heartbeat_at = now(),"
        " progress_at = now(), requested = 'run', resume_at = NULL, resuming_since = NULL,"
        " lost_at = NULL,"
        " auto_resumes = CASE WHEN %(epoch)s::int IS NULL THEN 0 ELSE auto_resumes END,"
        " attempts = attempts || jsonb_build_object('runId', %(run)s::text, 'startedAt',"
        """ to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),"""
        " 'why', CASE WHEN %(epoch)s::int IS NULL THEN %(rerun)s ELSE launch_reason END),"
        # Beside a served snapshot a rerun starts anew; an unfinished scan goes on.
        " working_generation = working_generation"
        " + CASE WHEN outcome = 'completed' THEN 1 ELSE 0 END,"
        " outcome = CASE WHEN outcome = 'completed' THEN outcome END,"
        " error_message = NULL, ended_at = CASE WHEN outcome = 'completed' THEN ended_at END"
        " WHERE scan_id = %(scan)s AND results_removed_at IS NULL AND (%(epoch)s::int IS NULL"
        " OR (epoch = %(epoch)s AND outcome IS NULL AND requested = 'run'))"
        " RETURNING seq, config, working_generation, epoch, heartbeat_at",
        {"run": run_id, "scan": scan_id, "epoch": launch_epoch, "rerun": LaunchReason.RERUN},
    )
    if (taken := cursor.fetchone()) is None:
        raise ScanSupersededError(scan_id)
    # Of reruns that never came to their end.
    cursor.execute(
        "DELETE FROM hubspot_deals.scan_chunks c USING hubspot_deals.scans s"
        " WHERE s.scan_id = c.scan_id AND c.scan_id = %s AND c.generation > s.generation"
        " AND c.generation < s.working_generation",
        (scan_id,),
    )
    return taken
