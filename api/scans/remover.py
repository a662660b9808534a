"""Deletes the rows of scans that are marked for removal.

The mark has hidden them from every reader already. Nothing depends on this process: rows that it
fails to delete, or has no time for, are deleted by the Dagster sensor, which also deletes what
Dagster knows of a scan.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import anyio
from pydantic import SecretStr

from api.scans.background import Background
from hubspot_deals.warehouse.removal import MarkedScan, remove_marked_rows

logger = logging.getLogger(__name__)

_CONCURRENT: Final = 2
_AT_A_TIME_SECONDS: Final = 5
"""How long a thread deletes before it looks whether this process is ending."""


class ScanRemover:
    """Finishes removals that this process has marked."""

    def __init__(self, database_url: SecretStr, background: Background) -> None:
        self._database_url = database_url
        self._background = background
        self._slots = asyncio.Semaphore(_CONCURRENT)

    async def remove(self, marked: Sequence[MarkedScan], *, wait_seconds: float = 0) -> None:
        """Start deleting, one scan after the other; returns at the end, or after that time."""
        task = self._background.start(self._remove_all(marked))
        if wait_seconds:
            await asyncio.wait({task}, timeout=wait_seconds)

    async def _remove_all(self, marked: Sequence[MarkedScan]) -> None:
        for scan in marked:
            facts = {"scan_id": scan.scan_id}
            try:
                async with self._slots:
                    await self._remove(scan.seq)
            except Exception:
                logger.exception("Removal left to the sensor", extra=facts)
            else:
                logger.info("removed", extra=facts)

    async def _remove(self, seq: int) -> None:
        while not await anyio.to_thread.run_sync(self._delete_some, seq):
            pass

    def _delete_some(self, seq: int) -> bool:
        return remove_marked_rows(self._database_url, seq, seconds=_AT_A_TIME_SECONDS)
