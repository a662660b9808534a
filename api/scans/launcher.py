"""Launches accepted and resumed scans in the background, after their 202 was sent.

Nothing depends on it: a scan that it fails to launch is launched by the Dagster sensor, which
takes over every scan without a run whose launch claim was released or ran out.
"""

import asyncio
import logging
from typing import Final

import psycopg

from api.dagster.gateway import DagsterGateway
from api.database import ConnectionPool
from api.logs import request_id
from api.scans.background import Background
from hubspot_deals.contract import REQUEST_ID_TAG, TRACE_PARENT_TAG
from hubspot_deals.tracing import trace_parent
from hubspot_deals.warehouse.scans import find_account, record_launch, release_launch_claim
from hubspot_deals.warehouse.states import LAUNCH_CLAIM_SECONDS

logger = logging.getLogger(__name__)

_CONCURRENT: Final = 8
_LAUNCH_SECONDS: Final = LAUNCH_CLAIM_SECONDS - 10
"""Waiting included; past the claim the sensor may be launching the same scan."""


def run_origin() -> dict[str, str]:
    """Return the tags by which a run is found from the request that led to it, and back."""
    found = {REQUEST_ID_TAG: request_id.get(), TRACE_PARENT_TAG: trace_parent()}
    return {name: value for name, value in found.items() if value}


class ScanLauncher:
    """Asks Dagster for the runs of scans whose launch this process has claimed."""

    def __init__(
        self, pool: ConnectionPool, gateway: DagsterGateway, background: Background
    ) -> None:
        self._pool = pool
        self._gateway = gateway
        self._background = background
        self._slots = asyncio.Semaphore(_CONCURRENT)

    def launch(self, scan_id: str, organization_id: str, epoch: int) -> None:
        """Start launching the run of this epoch of the scan; returns at once."""
        self._background.start(self._launch(scan_id, organization_id, epoch))

    async def _launch(self, scan_id: str, organization_id: str, epoch: int) -> None:
        try:
            run_id = await self._ask(scan_id, organization_id, epoch)
            async with self._pool.connection() as connection:
                await record_launch(connection, scan_id, run_id, epoch)
        except Exception:
            logger.exception("Launch failed, left to the sensor", extra={"scan_id": scan_id})
            await self._release(scan_id, epoch)
        else:
            logger.info("launched", extra={"scan_id": scan_id, "run_id": run_id})

    async def _ask(self, scan_id: str, organization_id: str, epoch: int) -> str:
        async with asyncio.timeout(_LAUNCH_SECONDS), self._slots:
            await self._gateway.add_partition(scan_id)
            async with self._pool.connection() as connection:
                account = await find_account(connection, scan_id)
            return await self._gateway.launch_run(
                scan_id, organization_id, epoch=epoch, account=account, origin=run_origin()
            )

    async def _release(self, scan_id: str, epoch: int) -> None:
        try:
            async with self._pool.connection() as connection:
                await release_launch_claim(connection, scan_id, epoch)
        except psycopg.Error as error:
            logger.warning("Claim not released: %s", error, extra={"scan_id": scan_id})
