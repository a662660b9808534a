"""Dagster's word on the runs that scans wait for, asked at most every few seconds.

However many callers follow however many scans, a run costs Dagster one question in that time.
"""

import asyncio
import time
from typing import Final

from api.dagster.gateway import DagsterGateway
from api.errors import DagsterRefusedError, DagsterUnavailableError

_ASK_SECONDS: Final = 2
"""How long a caller waits for Dagster, whose word only refines a status."""

_KEEP_SECONDS: Final = 3.0
_MOST_RUNS: Final = 1_000


class RunStatuses:
    """Asks Dagster about a run, or remembers what it said, also when it said nothing."""

    def __init__(self, gateway: DagsterGateway) -> None:
        self._gateway = gateway
        self._asked: dict[str, tuple[float, asyncio.Task[str | None]]] = {}

    async def find(self, run_id: str) -> str | None:
        """Return Dagster's status of a run, some seconds old at most; None if it cannot tell."""
        now = time.monotonic()
        asked_at, task = self._asked.get(run_id, (0.0, None))
        if task is None or now - asked_at > _KEEP_SECONDS:
            task = asyncio.create_task(self._ask(run_id))
            # Oldest first, so that the first entry is the one to forget.
            self._asked.pop(run_id, None)
            self._asked[run_id] = (now, task)
            if len(self._asked) > _MOST_RUNS:
                del self._asked[next(iter(self._asked))]
        return await asyncio.shield(task)

    async def _ask(self, run_id: str) -> str | None:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                return await self._gateway.find_run_status(run_id)
        except (TimeoutError, DagsterUnavailableError, DagsterRefusedError):
            return None
