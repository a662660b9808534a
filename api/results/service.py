"""Reads the tables of completed scans."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson
from psycopg import AsyncConnection, IsolationLevel

from api.dependencies import ConnectionPool
from api.errors import ScanNotCompletedError, SnapshotReplacedError, UnknownTableError
from api.results.schemas import ResultPage, ResultTable, ResultTables
from api.schemas import Pagination, format_timestamp
from hubspot_deals.contract import DATASET_NAME, DEFAULT_TABLE, ScanStatus
from hubspot_deals.errors import ResultsRemovedError
from hubspot_deals.warehouse import results
from hubspot_deals.warehouse.scans import ScanRecord, get_scan


async def get_tables(pool: ConnectionPool, scan_id: str) -> ResultTables:
    """List the tables of a completed scan with their row counts."""
    async with _snapshot(pool) as connection:
        scan = await _get_completed(connection, scan_id)
        tables = await results.get_tables(connection, scan)
    return ResultTables(
        scan_id=scan_id,
        dataset_name=DATASET_NAME,
        tables=[
            ResultTable(
                name=table.table_name,
                row_count=table.row_count,
                extracted_count=table.extracted_count,
            )
            for table in tables
        ],
        total_tables=len(tables),
    )


async def page_of_records(  # noqa: PLR0913 - one parameter per parameter of the request
    pool: ConnectionPool,
    scan_id: str,
    table_name: str | None,
    *,
    limit: int,
    offset: int,
    snapshot: int | None,
) -> ResultPage:
    """Return one page of one table of a completed scan, of this snapshot if one is named."""
    async with _snapshot(pool) as connection:
        scan = await _get_completed(connection, scan_id)
        if snapshot is not None and snapshot != scan.generation:
            raise SnapshotReplacedError(scan_id, snapshot, scan.generation)
        tables = await results.get_tables(connection, scan)
        table = choose_table(tables, table_name)
        rows = await results.page_of_rows(connection, scan, table, limit=limit, offset=offset)
    # The records come from our own tables and can be many: no second look at each value.
    return ResultPage.model_construct(
        scan_id=scan_id,
        table_name=table.table_name,
        defaulted_table=table_name is None,
        records=rows,
        pagination=Pagination.of(
            total=table.row_count, limit=limit, offset=offset, returned=len(rows)
        ),
        available_tables=[known.table_name for known in tables],
        columns=table.columns,
        snapshot=scan.generation,
    )


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


def to_json(page: ResultPage) -> bytes:
    """Serialize a page: exact numbers as text, moments in UTC."""
    body = {
        "success": True,
        "data": {
            "scanId": page.scan_id,
            "tableName": page.table_name,
            "defaultedTable": page.defaulted_table,
            "records": page.records,
            "pagination": page.pagination.model_dump(by_alias=True),
            "availableTables": page.available_tables,
            "columns": page.columns,
            "snapshot": page.snapshot,
        },
    }
    return orjson.dumps(body, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return format_timestamp(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        # The column's scale pads with zeros that HubSpot never sent.
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    msg = f"{type(value).__name__} has no form in JSON"
    raise TypeError(msg)


async def _get_completed(connection: AsyncConnection[Any], scan_id: str) -> ScanRecord:
    scan = await get_scan(connection, scan_id)
    if scan.results_removed_at is not None:
        raise ResultsRemovedError(scan_id, scan.results_removed_at)
    if scan.status is not ScanStatus.COMPLETED:
        raise ScanNotCompletedError(scan_id, scan.status)
    return scan


@asynccontextmanager
async def _snapshot(pool: ConnectionPool) -> AsyncIterator[AsyncConnection[Any]]:
    """Yield a connection that sees one moment: a rerun may be replacing the result right now."""
    async with pool.connection() as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        try:
            async with connection.transaction():
                yield connection
        finally:
            if not connection.closed:
                await connection.set_isolation_level(None)
