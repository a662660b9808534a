"""Asks every part whether it works, and never waits long for a no.

Answers come within a second whatever hangs, so that who asks can tell a slow part from a dead API.
"""

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg

from api.dagster.gateway import DagsterGateway, DagsterState
from api.database import ConnectionPool
from api.errors import DagsterRefusedError, DagsterUnavailableError
from api.health.reach import HubSpotReach
from api.tasks import end_tasks
from hubspot_deals.warehouse.health import find_signs, is_migrated
from hubspot_deals.warehouse.signs import RUN_HOST, SENSORS, Sign

_SECONDS: Final = 0.6
_POOL_SECONDS: Final = 0.5
_SILENT_SECONDS: Final = 60.0
"""A sensor ticks every five seconds."""
_LEAST_ROOM: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with each dependency; None when it works."""

    database_error: str | None
    dagster_error: str | None
    hubspot: str
    """`healthy`, or what is wrong."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Of the other parts: `healthy`, `unhealthy: …`, or `unknown: …` where it cannot be told."""


@dataclass(frozen=True, slots=True)
class _Database:
    error: str | None
    signs: Mapping[str, Sign] = field(default_factory=dict)


class HealthProbe:
    """Checks the dependencies, one check of each at a time.

    A check that hangs is shared by later callers and not awaited past its time: cancelling a
    query on a stopped server takes as long as the query.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        gateway: DagsterGateway,
        hubspot: HubSpotReach,
        download_dir: Path,
    ) -> None:
        self._pool = pool
        self._gateway = gateway
        self._hubspot = hubspot
        self._download_dir = download_dir
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    async def check(self) -> Findings:
        """Ask all, for at most 0.6 seconds."""
        database = self._ask("database", self._ask_database)
        dagster = self._ask("dagster", self._ask_dagster)
        downloads = self._ask("downloads", self._look_at_downloads)
        hubspot = self._hubspot.ask()
        await asyncio.wait({database, dagster, downloads, hubspot}, timeout=_SECONDS)
        stored = database.result() if database.done() else _Database("Database did not answer")
        state, dagster_error = (
            dagster.result() if dagster.done() else (None, "Dagster did not answer")
        )
        return Findings(
            database_error=stored.error,
            dagster_error=dagster_error,
            hubspot=hubspot.result() if hubspot.done() else "degraded: high latency",
            parts={
                "daemon": _told(state, state and state.daemon_error),
                "code_location": _describe_locations(state),
                SENSORS: _describe_sensors(stored.signs.get(SENSORS)),
                RUN_HOST: _describe_run_host(stored.signs.get(RUN_HOST)),
                "downloads": downloads.result()
                if downloads.done()
                else "unhealthy: the folder did not answer",
            },
        )

    async def check_database(self) -> str | None:
        """Tell what is wrong with the database, without which nothing can be served."""
        database = self._ask("database", self._ask_database)
        await asyncio.wait({database}, timeout=_SECONDS)
        stored: _Database | None = database.result() if database.done() else None
        return stored.error if stored else "Database did not answer"

    async def close(self) -> None:
        """Drop checks that still hang."""
        await end_tasks(self._tasks.values())
        await self._hubspot.close()

    def _ask(
        self, name: str, question: Callable[[], Coroutine[Any, Any, Any]]
    ) -> asyncio.Task[Any]:
        """Return the check under way, or begin it."""
        task = self._tasks.get(name)
        if task is None or task.done():
            task = self._tasks[name] = asyncio.create_task(question())
        return task

    async def _ask_database(self) -> _Database:
        try:
            async with self._pool.connection(timeout=_POOL_SECONDS) as connection:
                if not await is_migrated(connection):
                    return _Database("Database is not migrated")
                return _Database(None, await find_signs(connection))
        except psycopg.Error:
            return _Database("Database connection failed")

    async def _ask_dagster(self) -> tuple[DagsterState | None, str | None]:
        try:
            return await self._gateway.get_state(), None
        except (DagsterUnavailableError, DagsterRefusedError):
            return None, "Dagster connection failed"

    async def _look_at_downloads(self) -> str:
        try:
            free = (await asyncio.to_thread(shutil.disk_usage, self._download_dir)).free
        except OSError as error:
            return f"unhealthy: {error.strerror}"
        return "healthy" if free > _LEAST_ROOM else f"unhealthy: {free} bytes are left"


def _told(state: DagsterState | None, error: str | None) -> str:
    if state is None:
        return "unknown: Dagster does not answer"
    return "healthy" if error is None else f"unhealthy: {error}"


def _describe_locations(state: DagsterState | None) -> str:
    """Without the syncs' location scans are extracted as ever, and connections fall behind."""
    error = state.location_error if state else None
    if state is not None and error is None and state.sync_location_error is not None:
        return f"degraded: {state.sync_location_error}"
    return _told(state, error)


def _describe_sensors(sign: Sign | None) -> str:
    if sign is None:
        return "unknown: never seen"
    if sign.seconds_ago > _SILENT_SECONDS:
        return f"unhealthy: last seen {sign.seconds_ago:.0f} seconds ago"
    return "healthy"


def _describe_run_host(sign: Sign | None) -> str:
    """The sensor looks at it, so an old sign says nothing of the host."""
    if sign is None or sign.seconds_ago > _SILENT_SECONDS:
        return "unknown: not looked at lately"
    return "healthy" if sign.fault is None else f"unhealthy: {sign.fault}"
