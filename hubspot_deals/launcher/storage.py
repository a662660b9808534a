"""Dagster's PostgreSQL storage with one small pool for a whole process.

dagster-postgres opens a connection for nearly every query: 77 for one run, measured. Here runs,
events and schedules share a few, which close when they have been idle for a moment, so that a
worker that is busy with HubSpot holds none. Of the statements of a run, more than half asked
whether Dagster's tables and columns exist, or notified nobody; they are left out.
"""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Self, TypeVar

from dagster import EventLogEntry
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.events import AssetMaterializationPlannedData
from dagster._core.scheduler.instigation import InstigatorTick, TickData
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._serdes import ConfigurableClassData, deserialize_value, serialize_value
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import create_pg_engine, pg_url_from_config, set_pg_statement_timeout
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import InvalidatePoolError

from hubspot_deals import redaction
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.launcher.storage_settings import StorageSettings
from hubspot_deals.settings import load_settings

_KEPT_CONNECTIONS: Final = 2
_MORE_CONNECTIONS: Final = 6
"""Dagster asks from several threads, and now and then for a second connection while it has one."""
_IDLE_SECONDS: Final = 2.0
_WORKER_IDLE_SECONDS: Final = 0.3
"""A worker needs the connection for something else, and connects again in three milliseconds."""
_RETURNED: Final = "returned"
_MOST_PLANNED_APART: Final = 31

_Stored = TypeVar("_Stored", EventLogEntry, TickData)

_engines: dict[tuple[int, str], Engine] = {}
_lock = threading.Lock()
_checked: set[str] = set()
_assumed: list[bool] = []
_present: set[tuple[str, ...]] = set()


def assume_tables() -> None:
    """Do without looking for Dagster's tables: this process works on runs that are in them."""
    _assumed.append(True)


def shared_engine(url: str) -> Engine:
    """Return this process's engine; a forked process gets one of its own."""
    with _lock:
        key = (os.getpid(), url)
        if key not in _engines:
            _engines[key] = engine = create_pg_engine(
                url,
                isolation_level="AUTOCOMMIT",
                pool_size=_KEPT_CONNECTIONS,
                max_overflow=_MORE_CONNECTIONS,
                pool_use_lifo=True,
            )
            _replace_closed(engine)
            _close_when_idle(engine)
        return _engines[key]


def _replace_closed(engine: Engine) -> None:
    """Have connections that PostgreSQL has closed meanwhile noticed before they are used.

    Whatever arrives on an idle connection is a farewell, so no question has to be sent, as
    SQLAlchemy's own `pool_pre_ping` does each time.
    """

    def returned(_connection: object, record: Any) -> None:
        record.info[_RETURNED] = True

    def taken(connection: Any, record: Any, _proxy: object) -> None:
        if record.info.pop(_RETURNED, False):
            waiting = select.poll()
            waiting.register(connection.fileno(), select.POLLIN)
            if waiting.poll(0):
                # The others are as old, and the restart that closed this one closed them, too.
                raise InvalidatePoolError

    event.listen(engine, "checkin", returned)
    event.listen(engine, "checkout", taken)


def _close_when_idle(engine: Engine) -> None:
    """Begin with the first connection: a process that is forked before it has no thread to lose."""
    used = threading.Event()

    def watch(*_: object) -> None:
        arguments = (engine, used)
        threading.Thread(
            target=_close_again_and_again, args=arguments, name="idle-connections", daemon=True
        ).start()

    event.listen(engine, "connect", watch, once=True)
    event.listen(engine, "checkin", lambda *_: used.set())


def _close_again_and_again(engine: Engine, used: threading.Event) -> None:
    while True:
        used.wait()
        used.clear()
        time.sleep(_WORKER_IDLE_SECONDS if _assumed else _IDLE_SECONDS)
        if not used.is_set():
            engine.dispose()


def _is_there(look: Callable[[], bool], *what: str) -> bool:
    """Tell whether a table or column exists; one that did once is not looked for again."""
    if _assumed or what in _present:
        return True
    found = look()
    if found:
        _present.add(what)
    return found


def _planned_apart(event: EventLogEntry) -> Iterator[EventLogEntry]:
    """Plan each of a few partitions by itself: Dagster calls only these failed if the run fails.

    Checks are planned once: ours are not made for each partition.
    """
    happened = event.dagster_event
    planned = happened.event_specific_data if happened else None
    subset = getattr(planned, "partitions_subset", None)
    parts: list[AssetMaterializationPlannedData | AssetCheckEvaluationPlanned] = []
    if subset is not None and isinstance(planned, AssetCheckEvaluationPlanned):
        parts = [
            AssetCheckEvaluationPlanned(asset_key=planned.asset_key, check_name=planned.check_name)
        ]
    elif (
        subset is not None
        and isinstance(planned, AssetMaterializationPlannedData)
        and len(subset) <= _MOST_PLANNED_APART
    ):
        parts = [
            AssetMaterializationPlannedData(planned.asset_key, partition=key)
            for key in subset.get_partition_keys()
        ]
    if happened is None or not parts:
        yield event
        return
    for part in parts:
        yield event._replace(dagster_event=happened._replace(event_specific_data=part))


class PooledRunStorage(PostgresRunStorage):
    """Runs, over the shared engine."""

    def __init__(self, url: str, autocreate: bool) -> None:  # noqa: FBT001 - Dagster's signature
        super().__init__(url, autocreate)
        self._engine = shared_engine(url)

    def has_run_stats_index_cols(self) -> bool:
        """Tell whether runs have moments, which Dagster asks with each run that it reads."""
        return _is_there(super().has_run_stats_index_cols, self.postgres_url, "runs", "start_time")

    def optimize_for_webserver(
        self, statement_timeout: int, pool_recycle: int, max_overflow: int
    ) -> None:
        """Limit statements, as Dagster does; the pool stays the shared one."""
        del pool_recycle, max_overflow
        event.listen(
            self._engine,
            "connect",
            lambda connection, _: set_pg_statement_timeout(connection, statement_timeout),
        )


def _without_secrets(stored: _Stored) -> _Stored:
    """Take secrets out of what is about to be stored, such as the error of a library."""
    document = serialize_value(stored)
    clean = redaction.redact_json(document)
    return stored if clean is document else deserialize_value(clean, type(stored))


class PooledEventLogStorage(PostgresEventLogStorage):
    """Events, over the shared engine."""

    def __init__(self, url: str, autocreate: bool) -> None:  # noqa: FBT001 - Dagster's signature
        super().__init__(url, autocreate)
        self._engine = shared_engine(url)
        self._keys: set[tuple[str, str]] = set()

    @property
    def supports_partition_subset_in_asset_materialization_planned_events(self) -> bool:
        """Have Dagster plan all partitions of a run in one event for each asset.

        Otherwise whoever launches a first load of two years stores 17,520 of them for each asset.
        """
        return True

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event without PostgreSQL's NOTIFY, to which Dagster has ceased to listen."""
        for each in _planned_apart(_without_secrets(event)):
            SqlEventLogStorage.store_event(self, each)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store several events of assets."""
        super().store_event_batch([_without_secrets(event) for event in events])

    def has_table(self, table_name: str) -> bool:
        """Tell whether Dagster has this table, which it asks with each event of an asset."""
        look = partial(super().has_table, table_name)
        return _is_there(look, self.postgres_url, table_name)

    def has_dynamic_partition(self, partitions_def_name: str, partition_key: str) -> bool:
        """Tell whether there is a key, which a run of it asks for each asset twice."""
        found = (partitions_def_name, partition_key)
        if _assumed and found in self._keys:
            return True
        if is_there := super().has_dynamic_partition(partitions_def_name, partition_key):
            self._keys.add(found)
        return is_there

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        look = partial(super()._has_asset_key_col_on_connection, conn, column_name)
        return _is_there(look, self.postgres_url, "asset_keys", column_name)

    def optimize_for_webserver(
        self, statement_timeout: int, pool_recycle: int, max_overflow: int
    ) -> None:
        """Nothing is left to do after the run storage."""


class PooledScheduleStorage(PostgresScheduleStorage):
    """Schedules and sensors, over the shared engine."""

    def __init__(self, url: str, autocreate: bool) -> None:  # noqa: FBT001 - Dagster's signature
        super().__init__(url, autocreate)
        self._engine = shared_engine(url)

    def optimize_for_webserver(
        self, statement_timeout: int, pool_recycle: int, max_overflow: int
    ) -> None:
        """Nothing is left to do after the run storage."""

    def update_tick(self, tick: InstigatorTick) -> InstigatorTick:
        """Store how a tick went; its error may be any library's."""
        return super().update_tick(tick._replace(tick_data=_without_secrets(tick.tick_data)))


class PooledPostgresStorage(DagsterPostgresStorage):
    """Configured as `DagsterPostgresStorage` is, access tokens of cloud providers excepted.

    Without a database in its configuration, it is that of the settings.
    """

    def __init__(
        self, url: str, *, autocreate: bool, inst_data: ConfigurableClassData | None
    ) -> None:
        self.postgres_url = url
        self.should_autocreate_tables = autocreate
        self._inst_data = inst_data
        must_look = autocreate and not _assumed and url not in _checked
        self._run_storage = PooledRunStorage(url, must_look)
        self._event_log_storage = PooledEventLogStorage(url, must_look)
        self._schedule_storage = PooledScheduleStorage(url, must_look)
        _checked.add(url)
        DagsterStorage.__init__(self)  # type: ignore[no-untyped-call,arg-type]

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Build it from `dagster.yaml`."""
        if config_value.get("auth_provider"):
            msg = (
                "auth_provider needs Dagster's own storage: dagster_postgres.DagsterPostgresStorage"
            )
            raise ConfigurationError(msg)
        is_told = config_value.keys() & {"postgres_url", "postgres_db"}
        url = pg_url_from_config(config_value) if is_told else load_settings(StorageSettings).url
        # Every process of Dagster's comes by here, its own daemon and webserver as well.
        redaction.hide_settings(SecretStr(url))
        redaction.install()
        return cls(
            url,
            autocreate=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )
