"""One file that an export process writes, from its order to its last byte."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from api.errors import DownloadFailedError, DownloadSpaceError, SnapshotHiddenError
from api.processes import run_module
from hubspot_deals.exports.order import HIDDEN, NO_ROOM, ExportOrder, Job, Progress

logger = logging.getLogger(__name__)


class Export:
    """A file that grows until it is whole or has failed."""

    def __init__(self, order: ExportOrder, path: Path) -> None:
        self.order = order
        self.path = path
        self.progress = Progress(0, 0)
        self.error: Exception | None = None
        self.readers = 0
        self.used_at = time.monotonic()
        self._changed = asyncio.Condition()

    @property
    def tag(self) -> str:
        """The file's entity tag."""
        return f'"{self.order.key()}"'

    @property
    def is_whole(self) -> bool:
        """Whether all of it is there."""
        return self.progress.sha256 is not None

    @property
    def is_settled(self) -> bool:
        """Whether nothing will change any more."""
        return self.is_whole or self.error is not None

    async def wait_for_bytes(self, position: int) -> None:
        """Wait for bytes behind a position, or the end; raises why the file failed."""
        await self._wait_until(lambda: self.is_whole or self.progress.size > position)

    async def wait_until_whole(self) -> None:
        """Wait for the end; raises why the file failed."""
        await self._wait_until(lambda: self.is_whole)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.error is not None or condition())
        if self.error is not None:
            raise self.error

    async def advance(self, progress: Progress) -> None:
        """Note what is in the file."""
        async with self._changed:
            self.progress = progress
            self._changed.notify_all()

    async def fail(self, error: Exception) -> None:
        """Note why the file must not be had; whoever reads it hears so."""
        async with self._changed:
            self.error = self.error or error
            self._changed.notify_all()

    async def write(
        self, connection: dict[str, Any], most_bytes: int, make_room: Callable[[], None]
    ) -> None:
        """Let a process write the file.

        `make_room` is called as the file grows and may raise DownloadSpaceError.
        """
        job = Job(self.order, str(self.path), most_bytes, connection)
        whole: Progress | None = None
        async with run_module("hubspot_deals.exports", job.to_json()) as child:
            async for line in child.output:
                progress = Progress.from_json(line)
                if progress.sha256 is not None:
                    whole = progress
                else:
                    await self.advance(progress)
                make_room()
            code = await child.wait()
        if code == 0 and whole is not None:
            # Only now: a process that dies after its last word has not closed the file.
            await self.advance(whole)
            return
        raise _reason(code)


def _reason(code: int) -> Exception:
    if code == HIDDEN:
        return SnapshotHiddenError()
    if code == NO_ROOM:
        return DownloadSpaceError()
    logger.error("An export process ended with code %s", code)
    return DownloadFailedError()
