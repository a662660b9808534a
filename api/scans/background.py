"""Work that goes on after its answer was sent.

Nothing depends on it: what fails here, or is cut off when the process ends, is done by the workers
and sensors of the pipeline.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from api.tasks import end_tasks

_CLOSE_SECONDS: Final = 5


class Background:
    """The tasks of this process that no request has to wait for."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start the work; returns at once."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Give work in flight a moment, then cut it off."""
        if not self._tasks:
            return
        _, unfinished = await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
        await end_tasks(unfinished)
