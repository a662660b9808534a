"""Turns what is asked for into an export, and an export into an answer."""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio
import psycopg
from psycopg import AsyncConnection

from api.database import ConnectionPool, read
from api.downloads.export import Export
from api.downloads.schemas import DownloadManifest
from api.downloads.spool import Spool
from api.errors import SnapshotHiddenError, SnapshotReplacedError, UnknownColumnError
from api.results.service import get_snapshot, table_of, with_labels
from api.tasks import end_tasks
from hubspot_deals.exports.order import ExportFormat, ExportOrder
from hubspot_deals.warehouse.results import Snapshot, is_served
from hubspot_deals.warehouse.scans import get_scan

logger = logging.getLogger(__name__)

_PIECE_BYTES: Final = 262_144
_CHECK_SECONDS: Final = 1.0
_GRACE_SECONDS: Final = 0.1
"""How long the end of a file is waited for, so that small ones have a length and a digest."""
_SWEEP_SECONDS: Final = 30.0

MEDIA_TYPES: Final[Mapping[ExportFormat, tuple[str, str]]] = {
    ExportFormat.JSON: ("json", "application/json"),
    ExportFormat.NDJSON: ("ndjson", "application/x-ndjson"),
    ExportFormat.CSV: ("csv", "text/csv; charset=utf-8"),
    ExportFormat.EXCEL: (
        "xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    ExportFormat.PARQUET: ("parquet", "application/vnd.apache.parquet"),
}
"""Ending of the file's name, and content type."""

NOT_KEPT: Final = {"Cache-Control": "private, no-cache, no-transform"}
"""A proxy that packs or keeps the bytes would break their tag and outlive their removal."""


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """Which file is asked for; None takes the default table, all columns, the served snapshot."""

    scan_id: str
    format: ExportFormat
    table_name: str | None = None
    columns: tuple[str, ...] | None = None
    raw: bool = False
    snapshot: int | None = None
    labels: bool = False


class Downloads:
    """Opens, describes and sends export files."""

    def __init__(self, pool: ConnectionPool, spool: Spool, *, keep_seconds: float) -> None:
        self._pool = pool
        self._spool = spool
        self._keep_seconds = keep_seconds
        self._sweeper = asyncio.create_task(self._sweep())

    async def open(self, request: DownloadRequest) -> Export:
        """Return the file, which may only just be begun; raises what a page of it would raise."""
        return self._spool.open(await read(self._pool, partial(_get_order, request=request)))

    async def wait_for_start(self, export: Export) -> None:
        """Wait until there is something to send; for the whole file if that takes no time."""
        await self._wait(export, whole=False)
        await self.wait_a_little(export)

    async def wait_a_little(self, export: Export) -> None:
        """Wait for the whole file if that takes no time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._wait(export, whole=True)

    async def wait_for_end(self, export: Export) -> None:
        """Wait until all of it is there."""
        await self._wait(export, whole=True)

    async def pieces(self, export: Export, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Yield the bytes from start to end (excluded; None: to the end of the file).

        Raises SnapshotHiddenError as soon as the scan does not serve the snapshot any more, and in
        any case before the last piece.
        """
        export.readers += 1
        try:
            async for piece in self._checked(export, start, end):
                yield piece
        finally:
            export.readers -= 1
            export.used_at = time.monotonic()

    def kept(self) -> tuple[int, int]:
        """Return how many files there are, and their bytes."""
        exports = self._spool.exports()
        return len(exports), sum(export.progress.size for export in exports)

    async def close(self) -> None:
        """End what goes on in the background."""
        await end_tasks([self._sweeper])
        await self._spool.close()

    async def _checked(self, export: Export, start: int, end: int | None) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        position, looked_at = start, clock()
        async with await anyio.open_file(export.path, "rb") as file:
            await file.seek(start)
            while True:
                await export.wait_for_bytes(position)
                known = export.progress.size if end is None else min(end, export.progress.size)
                piece = await file.read(min(_PIECE_BYTES, known - position))
                position += len(piece)
                is_last = export.is_whole and position >= known
                if is_last or clock() - looked_at > _CHECK_SECONDS:
                    await self._check_served(export)
                    looked_at = clock()
                if piece:
                    yield piece
                if is_last or position == end:
                    return

    async def _wait(self, export: Export, *, whole: bool) -> None:
        try:
            await (export.wait_until_whole() if whole else export.wait_for_bytes(0))
        except SnapshotHiddenError:
            raise await self._why_hidden(export) from None

    async def _why_hidden(self, export: Export) -> Exception:
        order = export.order
        snapshot = await read(self._pool, partial(get_snapshot, scan_id=order.scan_id))
        return SnapshotReplacedError(order.scan_id, order.generation, snapshot.generation)

    async def _check_served(self, export: Export) -> None:
        order = export.order
        snapshot = Snapshot(order.scan_id, order.seq, order.generation, [])
        if not await read(self._pool, partial(is_served, snapshot=snapshot)):
            await self._spool.hide(export)
            raise SnapshotHiddenError

    async def _sweep(self) -> None:
        """Throw away what is old, and what was removed: files must not outlive their rows."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self._spool.discard_idle(self._keep_seconds)
            for export in self._spool.exports():
                try:
                    await self._check_served(export)
                except SnapshotHiddenError:
                    continue
                except psycopg.Error:
                    logger.warning("Could not look whether a download is still served")
                    break


def describe(export: Export) -> DownloadManifest:
    """Return what is known of a file."""
    order, progress = export.order, export.progress
    return DownloadManifest(
        scan_id=order.scan_id,
        table_name=order.table_name,
        format=order.format,
        columns=list(order.columns),
        snapshot=order.generation,
        file_name=file_name(order),
        etag=export.tag,
        ready=export.is_whole,
        row_count=order.row_count,
        rows_written=progress.rows,
        bytes=progress.size if export.is_whole else None,
        sha256=progress.sha256,
        shortened_cells=progress.shortened_cells if export.is_whole else None,
    )


def file_name(order: ExportOrder) -> str:
    """Return what the file is to be called."""
    return f"{order.scan_id}-{order.table_name}.{MEDIA_TYPES[order.format][0]}"


def headers_of(export: Export) -> dict[str, str]:
    """Return the headers of every answer that carries the file."""
    headers = {
        "ETag": export.tag,
        "Accept-Ranges": "bytes",
        "Content-Type": MEDIA_TYPES[export.order.format][1],
        "Content-Disposition": f'attachment; filename="{file_name(export.order)}"',
        **NOT_KEPT,
        "X-Row-Count": str(export.order.row_count),
        "X-Snapshot": str(export.order.generation),
    }
    if export.progress.sha256 is not None:
        digest = base64.b64encode(bytes.fromhex(export.progress.sha256)).decode()
        headers["Repr-Digest"] = f"sha-256=:{digest}:"
    return headers


async def _get_order(connection: AsyncConnection[Any], *, request: DownloadRequest) -> ExportOrder:
    snapshot = await get_snapshot(connection, scan_id=request.scan_id)
    table = table_of(snapshot, request.snapshot, request.table_name)
    scan = await get_scan(connection, request.scan_id)
    if request.labels:
        table = with_labels(table)
    columns = _choose_columns(table.columns, request.columns)
    return ExportOrder(
        format=request.format,
        scan_id=snapshot.scan_id,
        seq=snapshot.seq,
        generation=snapshot.generation,
        accepted_at=scan.created_at.isoformat(),
        table_name=table.table_name,
        columns=columns,
        row_count=table.row_count,
        raw=request.raw and request.format is ExportFormat.CSV,
        labels=tuple(name for name in columns if name in table.labels),
    )


def _choose_columns(known: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(known if wanted is None else wanted))
    for name in chosen:
        if name not in known:
            raise UnknownColumnError(name, known)
    return chosen
