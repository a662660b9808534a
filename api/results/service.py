"""Reads the tables of completed scans."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson
from psycopg import AsyncConnection

from api.database import ConnectionPool, read
from api.errors import ScanNotCompletedError, SnapshotReplacedError, UnknownTableError
from api.results.schemas import ResultTable, ResultTables
from api.schemas import Pagination
from hubspot_deals.contract import DATASET_NAME, DEFAULT_TABLE, ScanStatus
from hubspot_deals.errors import ResultsRemovedError
from hubspot_deals.warehouse import results
from hubspot_deals.warehouse.results import Page, Snapshot
from hubspot_deals.warehouse.scans import get_scan

_MOST_SNAPSHOTS: Final = 256


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is asked for; `snapshot` None takes the one that is served."""

    scan_id: str
    table_name: str | None
    limit: int
    offset: int
    snapshot: int | None


class ResultReader:
    """Reads pages, each with one statement once the snapshot's tables are known."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._known: dict[str, Snapshot] = {}
        """What scans served when they were last looked at; each page finds out if they still do."""

    async def get_tables(self, scan_id: str) -> ResultTables:
        """List the tables of a completed scan with their row counts."""
        snapshot = await read(self._pool, partial(get_snapshot, scan_id=scan_id))
        return ResultTables(
            scan_id=scan_id,
            dataset_name=DATASET_NAME,
            tables=[
                ResultTable(
                    name=table.table_name,
                    row_count=table.row_count,
                    extracted_count=table.extracted_count,
                )
                for table in snapshot.tables
            ],
            total_tables=len(snapshot.tables),
        )

    async def get_page(self, request: PageRequest) -> bytes:
        """Return one page of one table of a completed scan, as JSON."""
        return await read(self._pool, partial(self._read_page, request=request))

    async def _read_page(self, connection: AsyncConnection[Any], request: PageRequest) -> bytes:
        snapshot = self._known.get(request.scan_id)
        if snapshot is None or not _may_have(snapshot, request):
            snapshot = await self._look(connection, request.scan_id)
        while True:
            table = _choose_table(snapshot, request)
            page = await results.find_page(
                connection, snapshot, table, limit=request.limit, offset=request.offset
            )
            if page is not None:
                return to_json(snapshot, table, page, request)
            snapshot = await self._look(connection, request.scan_id)

    async def _look(self, connection: AsyncConnection[Any], scan_id: str) -> Snapshot:
        snapshot = await get_snapshot(connection, scan_id=scan_id)
        self._known.pop(scan_id, None)
        self._known[scan_id] = snapshot
        if len(self._known) > _MOST_SNAPSHOTS:
            del self._known[next(iter(self._known))]
        return snapshot


def choose_table(
    tables: Sequence[results.ResultTable], table_name: str | None
) -> results.ResultTable:
    """Return the named table, or without a name the default one if it exists, else the first."""
    by_name = {table.table_name: table for table in tables}
    default = DEFAULT_TABLE if DEFAULT_TABLE in by_name else next(iter(by_name), DEFAULT_TABLE)
    wanted = default if table_name is None else table_name
    if wanted not in by_name:
        raise UnknownTableError(wanted, list(by_name))
    return by_name[wanted]


def to_json(
    snapshot: Snapshot, table: results.ResultTable, page: Page, request: PageRequest
) -> bytes:
    """Put the records, which PostgreSQL has written, into the answer's envelope."""
    pagination = Pagination.of(
        total=table.row_count, limit=request.limit, offset=request.offset, returned=page.returned
    )
    body = {
        "success": True,
        "data": {
            "scanId": snapshot.scan_id,
            "tableName": table.table_name,
            "defaultedTable": request.table_name is None,
            "records": orjson.Fragment(b"[%b]" % page.records),
            "pagination": pagination.model_dump(by_alias=True),
            "availableTables": [known.table_name for known in snapshot.tables],
            "columns": table.columns,
            "snapshot": snapshot.generation,
        },
    }
    return orjson.dumps(body)


def _may_have(snapshot: Snapshot, request: PageRequest) -> bool:
    names = {None, *(table.table_name for table in snapshot.tables)}
    return request.table_name in names and request.snapshot in {None, snapshot.generation}


def _choose_table(snapshot: Snapshot, request: PageRequest) -> results.ResultTable:
    if request.snapshot not in {None, snapshot.generation}:
        raise SnapshotReplacedError(request.scan_id, request.snapshot, snapshot.generation)
    return choose_table(snapshot.tables, request.table_name)


async def get_snapshot(connection: AsyncConnection[Any], *, scan_id: str) -> Snapshot:
    """Return what a scan serves; raises ScanNotCompletedError or ResultsRemovedError."""
    while (snapshot := await results.find_snapshot(connection, scan_id)) is None:
        scan = await get_scan(connection, scan_id)
        if scan.results_removed_at is not None:
            raise ResultsRemovedError(scan_id, scan.results_removed_at)
        if scan.status is not ScanStatus.COMPLETED:
            raise ScanNotCompletedError(scan_id, scan.status)
        # It has completed since.
    return snapshot
