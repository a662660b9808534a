"""Counts hits in PostgreSQL, those that arrive while a statement is under way with the next one."""

import asyncio
import logging
import math
import time
from dataclasses import dataclass, field, replace
from typing import Final

import psycopg

from api.database import ConnectionPool
from hubspot_deals.warehouse.rate_limits import Window, count_hits, forget_past_windows

logger = logging.getLogger(__name__)

_CONNECT_SECONDS: Final = 1.0
_REST_SECONDS: Final = 1.0
"""After PostgreSQL did not answer, before it is asked again."""
_SILENT_SECONDS: Final = 60.0
"""Between two lines in the log that say the same."""
_FORGET_SECONDS: Final = 600.0
_MOST_FULL: Final = 10_000
"""Keys that are remembered as used up; others are asked about again."""

Hit = asyncio.Future[Window | None]


@dataclass(slots=True)
class _Waiting:
    seconds: int
    most: int
    hits: list[Hit] = field(default_factory=list)


class HitCounter:
    """Counts for one process; its pool has one connection, which nobody else waits for.

    Every hit gets a number of its own within its window, whichever process counts it.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._waiting: dict[str, _Waiting] = {}
        self._task: asyncio.Task[None] | None = None
        self._full: dict[str, tuple[Window, float]] = {}
        self._forgot_at = time.monotonic()
        self._rests_until = -math.inf
        self._complained_at = -math.inf

    def hit(self, key: str, *, most: int, seconds: int) -> Hit:
        """Count one; the result is its window, or None while PostgreSQL does not count.

        Hits that certainly come after `most` others are answered here and not counted.
        """
        hit: Hit = asyncio.get_running_loop().create_future()
        if (window := self._find_full(key)) is not None or time.monotonic() < self._rests_until:
            hit.set_result(window)
            return hit
        self._waiting.setdefault(key, _Waiting(seconds, most)).hits.append(hit)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._count())
        return hit

    async def close(self) -> None:
        """Wait a little for the statement that is under way."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_CONNECT_SECONDS)

    def _find_full(self, key: str) -> Window | None:
        window, ends = self._full.get(key, (None, 0.0))
        if window is None or (left := ends - time.monotonic()) > 0:
            return window and replace(window, seconds_left=left)
        del self._full[key]
        return None

    async def _count(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            windows = await self._ask({k: (len(w.hits), w.seconds) for k, w in asked.items()})
            for key, waiting in asked.items():
                self._tell(waiting.hits, windows.get(key))
                self._remember(key, windows.get(key), waiting.most)

    async def _ask(self, hits: dict[str, tuple[int, int]]) -> dict[str, Window]:
        try:
            async with self._pool.connection(_CONNECT_SECONDS) as connection:
                windows = await count_hits(connection, hits)
                if time.monotonic() - self._forgot_at > _FORGET_SECONDS:
                    self._forgot_at = time.monotonic()
                    await forget_past_windows(connection)
                return windows
        except psycopg.Error as error:
            now = time.monotonic()
            self._rests_until = now + _REST_SECONDS
            if now - self._complained_at > _SILENT_SECONDS:
                self._complained_at = now
                logger.warning("Rate limits are not applied: %s", type(error).__name__)
            return {}

    @staticmethod
    def _tell(hits: list[Hit], window: Window | None) -> None:
        for later, hit in enumerate(reversed(hits)):
            # Whoever has lost patience has cancelled it.
            if not hit.done():
                hit.set_result(window and replace(window, used=window.used - later))

    def _remember(self, key: str, window: Window | None, most: int) -> None:
        if window is None or window.used < most:
            return
        if len(self._full) >= _MOST_FULL:
            self._full.clear()
        ends = time.monotonic() + window.seconds_left
        self._full[key] = (replace(window, used=window.used + 1), ends)
