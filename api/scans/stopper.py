"""Terminates runs that were cancelled or paused, after the answer to that was sent.

Nothing depends on it: the epoch of the scan or connection has passed, so its worker writes nothing
more and ends by itself within seconds, and a run that is still queued finds that it has nothing to
do.
"""

import logging
from collections.abc import Mapping

from api.dagster.gateway import DagsterGateway
from api.errors import DagsterRefusedError, DagsterUnavailableError
from api.scans.background import Background

logger = logging.getLogger(__name__)


class RunStopper:
    """Asks Dagster to end runs that nobody needs any more."""

    def __init__(self, gateway: DagsterGateway, background: Background) -> None:
        self._gateway = gateway
        self._background = background

    def stop(self, run_id: str | None, **about: str) -> None:
        """Start terminating the run if there is one; returns at once. `about` is for the log."""
        if run_id is not None:
            self._background.start(self._terminate(run_id, about))

    async def _terminate(self, run_id: str, about: Mapping[str, str]) -> None:
        facts = {**about, "run_id": run_id}
        try:
            await self._gateway.terminate_run(run_id)
        except (DagsterUnavailableError, DagsterRefusedError) as error:
            logger.warning("Run not terminated, left to its worker: %s", error, extra=facts)
        else:
            logger.info("terminated", extra=facts)
