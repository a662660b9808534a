"""What every lease is made of: a session that holds a lock, its heartbeat, and the end of others.

A lease is a PostgreSQL session lock, a heartbeat and an epoch. The lock ends with the worker, so
its death shows at once; the heartbeat shows that a worker which holds the lock also lives; the
epoch, raised by whoever takes the work up or sets it aside, fences out everybody else.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import Connection

from hubspot_deals.errors import TransientError
from hubspot_deals.warehouse.states import HEARTBEAT_SECONDS, LEASE_SECONDS

EVICTION_SECONDS: Final = 15
EVICTION_POLL_SECONDS: Final = 0.1
_SERVER_KEEPALIVE: Final = {
    "tcp_keepalives_idle": 15,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


@dataclass(slots=True)
class Heartbeat:
    """Tells whether the lease is still ours, and says so once it is not.

    It has the connection that holds the lock to itself: a statement of the worker may take long.
    `beat` is a statement of `parameters` that changes a row as long as the lease is ours.
    """

    connection: Connection[Any]
    beat: str
    parameters: tuple[Any, ...]
    lost: Callable[[], TransientError]
    broken: Callable[[str], TransientError]
    """What is raised without PostgreSQL, given the reason."""
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
                beat = self.connection.execute(self.beat, self.parameters)
            except psycopg.Error as error:
                return self._tell(self.broken(str(error)))
            if beat.rowcount == 0:
                return self._tell(self.lost())
        return None

    def _tell(self, loss: TransientError) -> None:
        with self._lock:
            self._loss = loss
            listeners = list(self._listeners)
        for listener in listeners:
            listener(loss)


def notice_lost_machines(holder: Connection[Any]) -> None:
    """Let the server, too, notice within half a minute that the worker's machine is gone."""
    for name, value in _SERVER_KEEPALIVE.items():
        holder.execute(f"SET {name} = {value}")


def name_sessions(name: str, *sessions: Connection[Any]) -> None:
    """Let a worker's sessions be known by its epoch, and not hold others up while it is frozen."""
    for session in sessions:
        session.execute(f"SET idle_in_transaction_session_timeout = '{LEASE_SECONDS}s'")
        session.execute("SELECT set_config('application_name', %s, false)", (name,))


def end_earlier_sessions(
    connection: Connection[Any], prefix: str, *, before_epoch: int, busy: Callable[[], Exception]
) -> None:
    """End what workers of earlier epochs still have open, and wait until it is gone.

    Their sessions are named by a prefix, without letters of regular expressions, and the epoch. A
    statement that was under way is undone with its session; a later one meets the fence. Raises
    what `busy` makes when PostgreSQL does not end them in time.
    """
    deadline = time.monotonic() + EVICTION_SECONDS
    while True:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database()"
            " AND substring(application_name FROM %s)::integer < %s",
            (f"^{prefix}([0-9]+)$", before_epoch),
        )
        if ended.rowcount == 0:
            return
        if time.monotonic() > deadline:
            raise busy()
        time.sleep(EVICTION_POLL_SECONDS)


def end_silent_holder(holder: Connection[Any], lock_class: int, key: int) -> None:
    """End a session that took the lock and froze before it could give itself a name."""
    holder.execute(
        "SELECT pg_terminate_backend(a.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = %s"
        " AND l.objid = %s::oid AND a.datname = current_database()"
        " AND a.state_change < now() - make_interval(secs => %s)",
        (lock_class, key, LEASE_SECONDS),
    )
