"""The end of tasks that this process has in its background."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

_AGAIN_SECONDS: Final = 0.2


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended, whatever they raise.

    Once is not enough. Before Python 3.12 `asyncio.wait_for`, by which psycopg's pool waits, loses
    a cancellation that comes together with what is waited for
    (https://github.com/python/cpython/issues/86296).
    """
    ended = left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_SECONDS)
    await asyncio.gather(*ended, return_exceptions=True)
