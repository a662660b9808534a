"""The right of one run to synchronize a connection: taken up, kept alive, and fenced."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import Connection
from psycopg.rows import dict_row, scalar_row
from pydantic import SecretStr

from hubspot_deals.errors import ConfigurationError
from hubspot_deals.sync_contract import SyncSettings
from hubspot_deals.sync_errors import (
    ConnectionNotFoundError,
    SyncBusyError,
    SyncInterruptedError,
    SyncSupersededError,
)
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.heartbeats import (
    EVICTION_POLL_SECONDS,
    Heartbeat,
    end_earlier_sessions,
    end_silent_holder,
    name_sessions,
    notice_lost_machines,
)
from hubspot_deals.warehouse.syncs.states import (
    IS_BEATING,
    STATE_COLUMNS,
    SYNC_LOCK_CLASS,
    SyncState,
)

PATIENCE_SECONDS: Final = 15.0
"""How long a run waits for the one before it to end."""
_SESSION: Final = "hubspot_deals_sync"


@dataclass(frozen=True, slots=True)
class SyncLease:
    """The right to write one connection's tables, until the worker ends or is fenced out."""

    database_url: SecretStr
    connection: Connection[Any]
    connection_id: str
    organization_id: str
    seq: int
    epoch: int
    run_no: int
    portal_id: int | None
    settings: SyncSettings
    state: SyncState
    """As it was when the lease was taken."""
    heartbeat: Heartbeat

    @property
    def key(self) -> dict[str, Any]:
        """What every row of this connection has, and the number of the run."""
        return {
            "organization": self.organization_id,
            "connection": self.connection_id,
            "run_no": self.run_no,
        }

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        """Open a transaction; call `fence` before anything is written that counts.

        Raises SyncInterruptedError without PostgreSQL.
        """
        try:
            with self.connection.transaction(), self.connection.cursor() as cursor:
                yield cursor
        except (psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout) as error:
            raise SyncInterruptedError(self.connection_id, str(error)) from error

    def fence(self, cursor: psycopg.Cursor[Any]) -> None:
        """Let only the holder of the current epoch commit; raises SyncSupersededError."""
        cursor.execute(
            "SELECT 1 FROM hubspot_deals.connections WHERE connection_id = %s AND epoch = %s"
            " FOR UPDATE",
            (self.connection_id, self.epoch),
        )
        if cursor.fetchone() is None:
            raise SyncSupersededError(self.connection_id, self.epoch)

    @contextmanager
    def fenced(self) -> Iterator[psycopg.Cursor[Any]]:
        """Open a transaction that only the holder of the current epoch can commit."""
        with self.transaction() as cursor:
            self.fence(cursor)
            yield cursor

    def was_lost(self) -> bool:
        """Ask on a fresh connection whether another run has taken over, or nobody may."""
        with suppress(ConfigurationError, psycopg.Error), open_connection(self.database_url) as new:
            found = new.execute(
                "SELECT 1 FROM hubspot_deals.connections WHERE connection_id = %s AND epoch = %s",
                (self.connection_id, self.epoch),
            )
            return found.fetchone() is None
        return False


@contextmanager
def hold_sync_lease(
    database_url: SecretStr, connection_id: str, *, patience: float = PATIENCE_SECONDS
) -> Iterator[SyncLease]:
    """Take a connection up for this run, and let it go at the end.

    Raises ConnectionNotFoundError, SyncSupersededError for a connection that rests, and
    SyncBusyError when another run has it and does not end within `patience` seconds.
    """
    with (
        open_connection(database_url, application_name=_SESSION) as holder,
        open_connection(database_url, application_name=_SESSION) as connection,
    ):
        notice_lost_machines(holder)
        seq = _lock(holder, connection_id, patience)
        taken = _take_up(holder, connection_id)
        epoch = taken["epoch"]
        heartbeat = Heartbeat(
            holder,
            "UPDATE hubspot_deals.connections SET heartbeat_at = now()"
            " WHERE connection_id = %s AND epoch = %s",
            (connection_id, epoch),
            lost=lambda: SyncSupersededError(connection_id, epoch),
            broken=lambda reason: SyncInterruptedError(connection_id, reason),
        )
        name_sessions(f"{_prefix(seq)}{epoch}", holder, connection)
        lease = SyncLease(
            database_url,
            connection,
            connection_id,
            taken["organization_id"],
            seq,
            epoch,
            taken["run_no"],
            taken["portal_id"],
            SyncSettings.from_json(taken["settings"]),
            SyncState(**{name: taken[name] for name in STATE_COLUMNS}),
            heartbeat,
        )
        with heartbeat.beating():
            _end_earlier(connection, connection_id, seq, epoch)
            yield lease


def _prefix(seq: int) -> str:
    return f"{_SESSION}_{seq}_epoch_"


def _end_earlier(connection: Connection[Any], connection_id: str, seq: int, epoch: int) -> None:
    end_earlier_sessions(
        connection, _prefix(seq), before_epoch=epoch, busy=lambda: SyncBusyError(connection_id)
    )


def _lock(holder: Connection[Any], connection_id: str, patience: float) -> int:
    """Take the connection's lock, from a worker that is fenced out or frozen if need be."""
    deadline = time.monotonic() + patience
    while True:
        found = _find(holder, connection_id)
        seq: int = found["seq"]
        locked = holder.cursor(row_factory=scalar_row).execute(
            "SELECT pg_try_advisory_lock(%s, %s)", (SYNC_LOCK_CLASS, seq)
        )
        if locked.fetchone():
            return seq
        if time.monotonic() > deadline:
            raise SyncBusyError(connection_id)
        if not found["is_beating"]:
            _end_earlier(holder, connection_id, seq, found["epoch"] + 1)
            end_silent_holder(holder, SYNC_LOCK_CLASS, seq)
        elif found["is_passed"]:
            _end_earlier(holder, connection_id, seq, found["epoch"])
        time.sleep(EVICTION_POLL_SECONDS)


def _find(holder: Connection[Any], connection_id: str) -> dict[str, Any]:
    found = holder.cursor(row_factory=dict_row).execute(
        f"SELECT seq, epoch, is_enabled, {IS_BEATING} AS is_beating,"
        " worker_epoch IS DISTINCT FROM epoch AS is_passed"
        " FROM hubspot_deals.connections c WHERE connection_id = %s AND removed_at IS NULL",
        (connection_id,),
    )
    if (row := found.fetchone()) is None:
        raise ConnectionNotFoundError(connection_id)
    if not row["is_enabled"]:
        raise SyncSupersededError(connection_id, row["epoch"])
    return row


def _take_up(holder: Connection[Any], connection_id: str) -> dict[str, Any]:
    taken = holder.cursor(row_factory=dict_row).execute(
        "UPDATE hubspot_deals.connections SET epoch = epoch + 1, worker_epoch = epoch + 1,"
        " run_no = coalesce(run_no, 0) + 1, heartbeat_at = now()"
        " WHERE connection_id = %s AND removed_at IS NULL AND is_enabled"
        " RETURNING organization_id, epoch, run_no, portal_id, settings,"
        f" {', '.join(STATE_COLUMNS)}",
        (connection_id,),
    )
    if (row := taken.fetchone()) is None:
        raise SyncSupersededError(connection_id, _find(holder, connection_id)["epoch"])
    return row
