"""Reads the tables of completed scans."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import orjson
from psycopg import AsyncConnection

from api.cursors import Cursor, mark_of
from api.database import ConnectionPool, read
from api.errors import (
    ScanNotCompletedError,
    SnapshotReplacedError,
    UnknownTableError,
    query_faults,
)
from api.results.schemas import ResultTable, ResultTables
from api.results.selected_rows import SelectedRows
from hubspot_deals.contract import DATASET_NAME, DEFAULT_TABLE, ScanStatus
from hubspot_deals.errors import ResultsRemovedError
from hubspot_deals.warehouse import results
from hubspot_deals.warehouse.labels import labels_beside
from hubspot_deals.warehouse.results import Page, Snapshot
from hubspot_deals.warehouse.scans import get_scan
from hubspot_deals.warehouse.selections import EVERYTHING, Selection

_MOST_SNAPSHOTS: Final = 256


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is asked for; `snapshot` None takes the one that is served."""

    scan_id: str
    table_name: str | None
    limit: int
    offset: int
    snapshot: int | None
    mark: bytes | None = None
    """The cursor's, whose place is `offset`: the list has to be the same one."""
    selection: Selection = EVERYTHING
    labels: bool = False


@dataclass(frozen=True, slots=True)
class FoundPage:
    """A page and where it lies; `total` counts what is selected."""

    request: PageRequest
    snapshot: Snapshot
    table: results.ResultTable
    page: Page
    total: int

    @property
    def next_cursor(self) -> str | None:
        """Where the next page begins; None at the end."""
        position = self.request.offset + self.page.returned
        if not self.page.returned or position >= self.total:
            return None
        mark = _mark(self.snapshot, self.table.table_name, self.request)
        return Cursor(self.snapshot.generation, position, mark).to_text()

    def to_json(self, next_cursor: str | None) -> bytes:
        """Put the records, which PostgreSQL has written, into the answer's envelope."""
        request = self.request
        body = {
            "success": True,
            "data": {
                "scanId": self.snapshot.scan_id,
                "tableName": self.table.table_name,
                "defaultedTable": request.table_name is None,
                "records": orjson.Fragment(b"[%b]" % self.page.records),
                # As `Pagination` is written: a model would take longer than the rest.
                "pagination": {
                    "total": self.total,
                    "limit": request.limit,
                    "offset": request.offset,
                    "hasMore": next_cursor is not None,
                    "returned": self.page.returned,
                    "nextCursor": next_cursor,
                },
                "availableTables": [known.table_name for known in self.snapshot.tables],
                "columns": self.table.columns,
                "snapshot": self.snapshot.generation,
            },
        }
        return orjson.dumps(body)


class ResultReader:
    """Reads pages, each with one statement once the snapshot's tables are known."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._selected = SelectedRows(pool)
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

    async def get_page(self, request: PageRequest) -> FoundPage:
        """Return one page of one table of a completed scan.

        Raises what keeps it from being served, and RequestValidationError for a cursor of another
        list, and for a filter or sorting that this table cannot have.
        """
        if request.selection:
            return await self._select_page(request)
        return await read(self._pool, partial(self._read_page, request=request))

    async def _read_page(self, connection: AsyncConnection[Any], request: PageRequest) -> FoundPage:
        snapshot = self._known.get(request.scan_id)
        if snapshot is None or not _may_have(snapshot, request):
            snapshot = await self._look(connection, request.scan_id)
        while True:
            table = _page_table(snapshot, request)
            page = await results.find_page(
                connection, snapshot, table, limit=request.limit, offset=request.offset
            )
            if page is not None:
                return FoundPage(request, snapshot, table, page, table.row_count)
            snapshot = await self._look(connection, request.scan_id)

    async def _select_page(self, request: PageRequest) -> FoundPage:
        """Read a page of selected rows; no connection is held while it waits for them."""
        while True:
            snapshot = await read(self._pool, partial(self._look, scan_id=request.scan_id))
            table = _page_table(snapshot, request)
            rows = await self._selected.get(snapshot, table, request.selection)
            if rows is not None:
                wanted = rows[request.offset : request.offset + request.limit]
                find = partial(results.find_picked, snapshot=snapshot, table=table, rows=wanted)
                if (page := await read(self._pool, find)) is not None:
                    return FoundPage(request, snapshot, table, page, len(rows))

    async def _look(self, connection: AsyncConnection[Any], scan_id: str) -> Snapshot:
        snapshot = await get_snapshot(connection, scan_id=scan_id)
        self._known.pop(scan_id, None)
        self._known[scan_id] = snapshot
        if len(self._known) > _MOST_SNAPSHOTS:
            del self._known[next(iter(self._known))]
        return snapshot


def table_of(snapshot: Snapshot, wanted: int | None, table_name: str | None) -> results.ResultTable:
    """Return a table of the `wanted` snapshot, None for the served one.

    Raises SnapshotReplacedError where it is another one, and UnknownTableError.
    """
    if wanted not in {None, snapshot.generation}:
        raise SnapshotReplacedError(snapshot.scan_id, wanted, snapshot.generation)
    return choose_table(snapshot.tables, table_name)


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


def with_labels(table: results.ResultTable) -> results.ResultTable:
    """Return deals with their labels as further columns, any other table as it is."""
    if table.table_name != results.RAW_TABLE:
        return table
    labels = labels_beside(table.columns)
    return replace(table, columns=[*table.columns, *labels], labels=frozenset(labels))


def _may_have(snapshot: Snapshot, request: PageRequest) -> bool:
    names = {None, *(table.table_name for table in snapshot.tables)}
    return (
        request.table_name in names
        and request.snapshot in {None, snapshot.generation}
        and _is_of_list(snapshot, choose_table(snapshot.tables, request.table_name), request)
    )


def _page_table(snapshot: Snapshot, request: PageRequest) -> results.ResultTable:
    """Return the table of a page; raises what is wrong with table, snapshot or cursor."""
    table = table_of(snapshot, request.snapshot, request.table_name)
    if not _is_of_list(snapshot, table, request):
        text = "This cursor is of another scan, table, filter or sorting; repeat those of its page"
        raise query_faults((("cursor",), text))
    return with_labels(table) if request.labels else table


def _is_of_list(snapshot: Snapshot, table: results.ResultTable, request: PageRequest) -> bool:
    return request.mark is None or request.mark == _mark(snapshot, table.table_name, request)


def _mark(snapshot: Snapshot, table_name: str, request: PageRequest) -> bytes:
    # As text: equal numbers of different digits would share a mark in this process alone.
    selection = repr(request.selection) if request.selection else ""
    return mark_of(snapshot.scan_id, snapshot.seq, table_name, selection)


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
