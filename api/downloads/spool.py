"""The folder of export files: what is written, kept for the next caller, and thrown away."""

import asyncio
import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from api.downloads.export import Export
from api.errors import DownloadFailedError, DownloadSpaceError, SnapshotHiddenError
from api.tasks import end_tasks
from hubspot_deals.errors import HubSpotDealsError
from hubspot_deals.exports.order import ExportOrder

_PREFIX: Final = "hubspot-deals-downloads-"
_LOCK: Final = "lock"
_MADE_SECONDS: Final = 60
"""After so long a living process has certainly locked the folder that it made."""


class Spool:
    """Export files of one API process, in a folder of its own that ends with it."""

    def __init__(
        self, connection: dict[str, Any], *, parent: Path, most_bytes: int, processes: int
    ) -> None:
        self._connection = connection
        self._most_bytes = most_bytes
        self._slots = asyncio.Semaphore(processes)
        self._exports: dict[str, Export] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = 0
        _remove_left_over(parent)
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = _take_lock(self._folder)

    def open(self, order: ExportOrder) -> Export:
        """Return the file of an order; it is begun when there is none."""
        key = order.key()
        export = self._exports.get(key)
        if export is None or export.error is not None:
            self._numbers += 1
            export = Export(order, self._folder / f"{self._numbers}-{key}")
            self._exports[key] = export
            task = asyncio.create_task(self._write(export))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        export.used_at = time.monotonic()
        return export

    def exports(self) -> list[Export]:
        """Return the files that are there or on their way."""
        return list(self._exports.values())

    def discard_idle(self, seconds: float) -> None:
        """Throw away files that nobody has asked for so long."""
        for export in self._idle():
            if time.monotonic() - export.used_at > seconds:
                self._discard(export)

    async def hide(self, export: Export) -> None:
        """Throw away a file that must not be served any more; a reader of it fails."""
        await export.fail(SnapshotHiddenError())
        self._discard(export)

    async def close(self) -> None:
        """End the processes and remove the folder."""
        await end_tasks(self._tasks)
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    async def _write(self, export: Export) -> None:
        try:
            async with self._slots:
                idle = sum(one.progress.size for one in self._idle())
                room = self._most_bytes - self._used() + idle
                if room <= 0:
                    raise DownloadSpaceError
                await export.write(self._connection, room, self._make_room)
        except (HubSpotDealsError, OSError) as error:
            await export.fail(error)
        finally:
            if not export.is_whole:
                await export.fail(DownloadFailedError())
                self._discard(export)

    def _make_room(self) -> None:
        for export in self._idle():
            if self._used() <= self._most_bytes:
                return
            self._discard(export)
        if self._used() > self._most_bytes:
            raise DownloadSpaceError

    def _used(self) -> int:
        return sum(export.progress.size for export in self._exports.values())

    def _idle(self) -> list[Export]:
        idle = [one for one in self._exports.values() if one.is_settled and not one.readers]
        return sorted(idle, key=lambda export: export.used_at)

    def _discard(self, export: Export) -> None:
        export.path.unlink(missing_ok=True)
        key = export.order.key()
        if self._exports.get(key) is export:
            del self._exports[key]


def _take_lock(folder: Path) -> int:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _remove_left_over(parent: Path) -> None:
    """Remove the folders of processes that died; a living one holds its lock."""
    for folder in parent.glob(f"{_PREFIX}*"):
        # Somebody else's, or just being made or removed.
        with suppress(OSError):
            found = folder.lstat()
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > _MADE_SECONDS:
                os.close(_take_lock(folder))
                shutil.rmtree(folder, ignore_errors=True)
