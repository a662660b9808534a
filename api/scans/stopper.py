"""Terminates the runs of scans that were cancelled or paused, after their answer was sent.

Nothing depends on it: the scan's epoch has passed, so its worker writes nothing more and ends by
itself within seconds, and a run that is still queued finds that it has nothing to do.
"""

import logging

from api.dagster.gateway import DagsterGateway
from api.errors import DagsterRefusedError, DagsterUnavailableError
from api.scans.background import Background

logger = logging.getLogger(__name__)


class RunStopper:
    """Asks Dagster to end runs whose scans need them no more."""

    def __init__(self, gateway: DagsterGateway, background: Background) -> None:
        self._gateway = gateway
        self._background = background

    def stop(self, scan_id: str, run_id: str | None) -> None:
        """Start terminating the scan's run if it has one; returns at once."""
        if run_id is not None:
            self._background.start(self._terminate(scan_id, run_id))

    async def _terminate(self, scan_id: str, run_id: str) -> None:
        facts = {"scan_id": scan_id, "run_id": run_id}
        try:
            await self._gateway.terminate_run(run_id)
        except (DagsterUnavailableError, DagsterRefusedError) as error:
            logger.warning("Run not terminated, left to its worker: %s", error, extra=facts)
        else:
            logger.info("terminated", extra=facts)
