"""Launches accepted scans in the background, after their 202 was sent.

Nothing depends on it: a scan that it fails to launch is launched by the Dagster sensor, which
takes over every accepted scan whose launch claim was released or ran out.
"""

import asyncio
import logging
from typing import Final

import psycopg

from api.dagster.gateway import DagsterGateway
from api.dependencies import ConnectionPool
from hubspot_deals.warehouse.scans import (
    LAUNCH_CLAIM_SECONDS,
    record_launch,
    release_launch_claim,
)

logger = logging.getLogger(__name__)

_CONCURRENT: Final = 8
_LAUNCH_SECONDS: Final = LAUNCH_CLAIM_SECONDS - 10
"""Waiting included; past the claim the sensor may be launching the same scan."""
_CLOSE_SECONDS: Final = 5


class ScanLauncher:
    """Asks Dagster for the runs of scans that this process has accepted."""

    def __init__(self, pool: ConnectionPool, gateway: DagsterGateway) -> None:
        self._pool = pool
        self._gateway = gateway
        self._slots = asyncio.Semaphore(_CONCURRENT)
        self._tasks: set[asyncio.Task[None]] = set()

    def launch(self, scan_id: str, organization_id: str) -> None:
        """Start launching; returns at once."""
        task = asyncio.create_task(self._launch(scan_id, organization_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give launches in flight a moment; what is cut off here is left to the sensor."""
        if not self._tasks:
            return
        _, unfinished = await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    async def _launch(self, scan_id: str, organization_id: str) -> None:
        try:
            run_id = await self._ask(scan_id, organization_id)
            async with self._pool.connection() as connection:
                await record_launch(connection, scan_id, run_id)
        except Exception:
            logger.exception("Launch failed, left to the sensor", extra={"scan_id": scan_id})
            await self._release(scan_id)
        else:
            logger.info("launched", extra={"scan_id": scan_id, "run_id": run_id})

    async def _ask(self, scan_id: str, organization_id: str) -> str:
        async with asyncio.timeout(_LAUNCH_SECONDS), self._slots:
            await self._gateway.add_partition(scan_id)
            return await self._gateway.launch_run(scan_id, organization_id, epoch=0)

    async def _release(self, scan_id: str) -> None:
        try:
            async with self._pool.connection() as connection:
                await release_launch_claim(connection, scan_id)
        except psycopg.Error as error:
            logger.warning("Claim not released: %s", error, extra={"scan_id": scan_id})
