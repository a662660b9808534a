"""The right of one worker to write a scan: taken up, kept alive, and fenced.

A lease is a PostgreSQL session lock, a heartbeat and an epoch. The lock ends with the worker, so
its death shows at once; the heartbeat shows that a worker which holds the lock also lives; the
epoch, raised by whoever takes the scan up or sets it aside, fences out everybody else.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

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
    TransientError,
)
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.credentials import KeyRing, SealedToken
from hubspot_deals.warehouse.states import (
    HEARTBEAT_SECONDS,
    IS_HELD,
    IS_VISIBLE,
    LEASE_LOCK_CLASS,
    LEASE_SECONDS,
)

_SERVER_KEEPALIVE: Final = {
    "tcp_keepalives_idle": 15,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_EVICTION_SECONDS: Final = 15
_EVICTION_POLL_SECONDS: Final = 0.1


@dataclass(slots=True)
class Heartbeat:
    """Tells whether the lease is still ours, and says so once it is not.

    It has the connection that holds the lock to itself: a statement of the worker may take long.
    """

    connection: Connection[Any]
    scan_id: str
    epoch: int
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)
    _listeners: list[Callable[[Exception], None]] = field(default_factory=list)
    _loss: TransientError | None = None

    def call_when_lost(self, listener: Callable[[Exception], None]) -> None:
        """Call a function with the reason, from another thread, when the lease is lost."""
        with self._lock:
            self._listeners.append(listener)
            loss = self._loss
        if loss is not None:
            listener(loss)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat in a thread of its own."""
        thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                beat = self.connection.execute(
                    "UPDATE hubspot_deals.scans SET heartbeat_at = now()"
                    " WHERE scan_id = %s AND epoch = %s",
                    (self.scan_id, self.epoch),
                )
            except psycopg.Error as error:
                return self._tell(DatabaseLostError(self.scan_id, str(error)))
            if beat.rowcount == 0:
                return self._tell(LeaseLostError(self.scan_id, self.epoch))
        return None

    def _tell(self, loss: TransientError) -> None:
        with self._lock:
            self._loss = loss
            listeners = list(self._listeners)
        for listener in listeners:
            listener(loss)


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
        # So that the server, too, notices within half a minute that the worker's machine is gone.
        for name, value in _SERVER_KEEPALIVE.items():
            holder.execute(f"SET {name} = {value}")
        _lock(holder, scan_id, launch_epoch)
        taken = _take_up(holder, scan_id, run_id, launch_epoch)
        heartbeat = Heartbeat(holder, scan_id, taken["epoch"])
        lease = Lease(
            database_url,
            connection,
            ScanConfig.from_json(taken["config"]),
            seq=taken["seq"],
            generation=taken["working_generation"],
            epoch=taken["epoch"],
            run_id=run_id,
            taken_at=taken["heartbeat_at"],
            heartbeat=heartbeat,
        )
        for session in (holder, connection):
            # Frozen in the middle of a transaction, a worker would hold up whoever wants its locks.
            session.execute(f"SET idle_in_transaction_session_timeout = '{LEASE_SECONDS}s'")
            session.execute(
                "SELECT set_config('application_name', %s, false)", (lease.session_name,)
            )
        with heartbeat.beating():
            end_sessions(connection, scan_id, lease.seq, before_epoch=lease.epoch)
            yield lease


def end_sessions(connection: Connection[Any], scan_id: str, seq: int, *, before_epoch: int) -> None:
    """End what workers of earlier epochs still have open, and wait until it is gone.

    A statement of theirs that was under way is undone with its session; a later one meets the
    fence. Raises ScanBusyError when PostgreSQL does not end them in time.
    """
    deadline = time.monotonic() + _EVICTION_SECONDS
    while True:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database()"
            " AND substring(application_name FROM %s)::integer < %s",
            (f"^hubspot_deals_scan_{seq}_epoch_([0-9]+)$", before_epoch),
        )
        if ended.rowcount == 0:
            return
        if time.monotonic() > deadline:
            raise ScanBusyError(scan_id)
        time.sleep(_EVICTION_POLL_SECONDS)


def _session_name(seq: int, epoch: int) -> str:
    return f"hubspot_deals_scan_{seq}_epoch_{epoch}"  # dlt hands no blanks on to libpq


def _lock(holder: Connection[Any], scan_id: str, launch_epoch: int | None) -> None:
    """Take the scan's lock, from a worker that is fenced out or frozen if need be."""
    deadline = time.monotonic() + _EVICTION_SECONDS
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
        _end_silent_holder(holder, scan["seq"])
        time.sleep(_EVICTION_POLL_SECONDS)


def _end_silent_holder(holder: Connection[Any], seq: int) -> None:
    """End a session that took the lock and froze before it could give itself a name."""
    holder.execute(
        "SELECT pg_terminate_backend(a.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = %s"
        " AND l.objid = %s::oid AND a.datname = current_database()"
        " AND a.state_change < now() - make_interval(secs => %s)",
        (LEASE_LOCK_CLASS, seq, LEASE_SECONDS),
    )


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
