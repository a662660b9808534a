"""Whether HubSpot's address answers, asked rarely, without a credential and outside its budgets."""

import asyncio
import time
from http import HTTPStatus
from typing import Final

import httpx

from api.tasks import end_tasks

_SECONDS: Final = 5.0
_SLOW_SECONDS: Final = 1.0
_KEEP_SECONDS: Final = 30.0


class HubSpotReach:
    """Asks HubSpot for anything at all, at most every half minute however many want to know."""

    def __init__(self, url: str) -> None:
        # The environment's proxy is the workers' way to HubSpot too.
        self._client = httpx.AsyncClient(base_url=url, timeout=_SECONDS)
        self._asked_at = -_KEEP_SECONDS
        self._task: asyncio.Task[str] | None = None

    def ask(self) -> asyncio.Task[str]:
        """Return the question under way, or the last one if it is not old.

        Its result is `healthy`, `degraded: …` or `unhealthy: …`.
        """
        now = time.monotonic()
        if self._task is None or (self._task.done() and now - self._asked_at > _KEEP_SECONDS):
            self._asked_at = now
            self._task = asyncio.create_task(self._ask())
        return self._task

    async def close(self) -> None:
        """Drop a question that hangs, and end the connection."""
        if self._task is not None:
            await end_tasks([self._task])
        await self._client.aclose()

    async def _ask(self) -> str:
        began = time.monotonic()
        try:
            answer = await self._client.get("/")
        except httpx.TimeoutException:
            return "unhealthy: connection timeout"
        except httpx.HTTPError:
            return "unhealthy: connection failed"
        # It refuses a request without a credential, which is a sign of life.
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return f"unhealthy: HTTP {answer.status_code}"
        is_slow = time.monotonic() - began > _SLOW_SECONDS
        return "degraded: high latency" if is_slow else "healthy"
