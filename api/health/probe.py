"""Asks PostgreSQL, Dagster and HubSpot whether they answer, and never waits long for a no."""

import asyncio
from dataclasses import dataclass
from typing import Final

import psycopg

from api.dagster.gateway import DagsterGateway
from api.database import ConnectionPool
from api.errors import DagsterRefusedError, DagsterUnavailableError
from api.health.reach import HubSpotReach
from hubspot_deals.warehouse.health import is_migrated

_SECONDS: Final = 1.5
_POOL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with each dependency; None when it works."""

    database_error: str | None
    dagster_error: str | None
    hubspot: str
    """`healthy`, or what is wrong."""


class HealthProbe:
    """Checks the dependencies, one check of each at a time.

    A check that hangs is shared by later callers and not awaited past its time: cancelling a
    query on a stopped server takes as long as the query.
    """

    def __init__(
        self, pool: ConnectionPool, gateway: DagsterGateway, hubspot: HubSpotReach
    ) -> None:
        self._pool = pool
        self._gateway = gateway
        self._hubspot = hubspot
        self._database: asyncio.Task[str | None] | None = None
        self._dagster: asyncio.Task[str | None] | None = None

    async def check(self) -> Findings:
        """Ask all, for at most 1.5 seconds."""
        if self._database is None or self._database.done():
            self._database = asyncio.create_task(self._ask_database())
        if self._dagster is None or self._dagster.done():
            self._dagster = asyncio.create_task(self._ask_dagster())
        database, dagster, hubspot = self._database, self._dagster, self._hubspot.ask()
        await asyncio.wait({database, dagster, hubspot}, timeout=_SECONDS)
        return Findings(
            database_error=database.result() if database.done() else "Database did not answer",
            dagster_error=dagster.result() if dagster.done() else "Dagster did not answer",
            hubspot=hubspot.result() if hubspot.done() else "degraded: high latency",
        )

    async def close(self) -> None:
        """Drop checks that still hang."""
        tasks = [task for task in (self._database, self._dagster) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._hubspot.close()

    async def _ask_database(self) -> str | None:
        try:
            async with self._pool.connection(timeout=_POOL_SECONDS) as connection:
                is_ready = await is_migrated(connection)
        except psycopg.Error:
            return "Database connection failed"
        return None if is_ready else "Database is not migrated"

    async def _ask_dagster(self) -> str | None:
        try:
            await self._gateway.get_version()
        except (DagsterUnavailableError, DagsterRefusedError):
            return "Dagster connection failed"
        return None
