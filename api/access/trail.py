"""Writes the audit log: changes before they are done, reads in batches behind their answers."""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import Final

import psycopg

from api.database import ConnectionPool
from api.tasks import end_tasks
from hubspot_deals.warehouse.audit_log import (
    AuditEntry,
    begin_entry,
    close_entry,
    write_entries,
)

logger = logging.getLogger(__name__)

_MOST_WAITING: Final = 20_000
_BATCH: Final = 1_000
_PAUSE_SECONDS: Final = 0.5
"""How long entries gather, and how much of them a process that is killed takes along."""
_CLOSE_SECONDS: Final = 5.0


class AuditTrail:
    """Entries on their way to PostgreSQL. What cannot get there goes to the process's log."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._waiting: deque[AuditEntry] = deque()
        self._is_wanted = asyncio.Event()
        self._is_closing = asyncio.Event()
        self._writer = asyncio.create_task(self._run())

    def note(self, entry: AuditEntry) -> None:
        """Have an entry written soon."""
        if len(self._waiting) >= _MOST_WAITING:
            _log(entry)
            return
        self._waiting.append(entry)
        self._is_wanted.set()

    async def begin(self, entry: AuditEntry) -> int:
        """Write an entry now; raises what the database raises, and then nothing may be done."""
        async with self._pool.connection() as connection:
            return await begin_entry(connection, entry)

    async def end(self, number: int, entry: AuditEntry) -> None:
        """Write how a change ended, which the log says where the database cannot take it."""
        try:
            async with self._pool.connection() as connection:
                await close_entry(connection, number, entry)
        except psycopg.Error:
            _log(entry)

    async def close(self) -> None:
        """Write what is waiting, for some seconds at most."""
        self._is_closing.set()
        self._is_wanted.set()
        await asyncio.wait([self._writer], timeout=_CLOSE_SECONDS)
        await end_tasks([self._writer])
        for entry in self._waiting:
            _log(entry)
        self._waiting.clear()

    async def _run(self) -> None:
        while True:
            await self._is_wanted.wait()
            # Entries come together, unless no more will come.
            with suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE_SECONDS):
                    await self._is_closing.wait()
            while self._waiting and await self._write():
                continue
            if self._is_closing.is_set():
                return
            if not self._waiting:
                self._is_wanted.clear()

    async def _write(self) -> bool:
        """Write a batch; False where it has to be tried again later."""
        batch = list(islice(self._waiting, _BATCH))
        try:
            async with self._pool.connection() as connection:
                await write_entries(connection, batch)
        except psycopg.OperationalError as error:
            logger.warning("The audit log cannot be written now: %s", type(error).__name__)
            return False
        except psycopg.Error:
            # It never will be.
            for entry in batch:
                _log(entry)
        for _ in batch:
            self._waiting.popleft()
        return True


def _log(entry: AuditEntry) -> None:
    logger.error("Not in the audit log: %s", entry)
