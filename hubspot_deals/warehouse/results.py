"""Reads the served snapshot of a completed scan."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from psycopg import AsyncConnection, sql
from psycopg.rows import class_row, dict_row

from hubspot_deals.contract import DATASET_NAME, TABLE_NAMES
from hubspot_deals.warehouse.scans import ScanRecord

_RAW_TABLE = "deals"
"""The table whose records are HubSpot's own property texts rather than its columns."""


@dataclass(frozen=True, slots=True)
class ResultTable:
    """One table of a snapshot."""

    table_name: str
    row_count: int
    extracted_count: int
    columns: list[str]


async def get_tables(connection: AsyncConnection[Any], scan: ScanRecord) -> list[ResultTable]:
    """Return the tables of the served snapshot, in the product's order; empty if none is served."""
    cursor = connection.cursor(row_factory=class_row(ResultTable))
    await cursor.execute(
        "SELECT table_name, row_count, extracted_count, columns FROM hubspot_deals.scan_tables"
        " WHERE scan_id = %s AND generation = %s",
        (scan.scan_id, scan.generation),
    )
    return sorted(await cursor.fetchall(), key=lambda table: TABLE_NAMES.index(table.table_name))


async def page_of_rows(
    connection: AsyncConnection[Any],
    scan: ScanRecord,
    table: ResultTable,
    *,
    limit: int,
    offset: int,
) -> list[dict[str, Any]]:
    """Return the rows at dense positions offset+1 … offset+limit.

    A range on the (scan_id, row_no) index: as fast at the end of a million rows as at the start.
    """
    names = ["id", "archived", "archived_at", "properties"] if _is_raw(table) else table.columns
    query = sql.SQL(
        "SELECT {columns} FROM {dataset}.{table} r JOIN hubspot_deals.scan_chunks c"
        " ON c.scan_id = r.scan_id AND c.load_id = r._dlt_load_id AND c.table_name = %(table)s"
        " WHERE r.scan_id = %(scan)s AND c.generation = %(generation)s"
        " AND r.row_no > %(offset)s AND r.row_no <= %(offset)s + %(limit)s ORDER BY r.row_no"
    ).format(
        columns=sql.SQL(", ").join(_as_text(name) for name in names),
        dataset=sql.Identifier(DATASET_NAME),
        table=sql.Identifier(table.table_name),
    )
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(
        query,
        {
            "scan": scan.scan_id,
            "generation": scan.generation,
            "table": table.table_name,
            "offset": offset,
            "limit": limit,
        },
    )
    rows = await cursor.fetchall()
    return [_raw_record(row, table.columns) for row in rows] if _is_raw(table) else rows


def _is_raw(table: ResultTable) -> bool:
    return table.table_name == _RAW_TABLE


def _as_text(name: str) -> sql.Composable:
    """HubSpot's ids are strings to its callers; JSON is handed on unparsed."""
    column = sql.Identifier("r", name)
    if name in {"id", "properties"}:
        return sql.SQL("{}::text AS {}").format(column, sql.Identifier(name))
    return column


def _raw_record(row: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    properties = orjson.loads(row["properties"])
    own = {"id": row["id"], "archived": row["archived"], "archivedAt": row["archived_at"]}
    return {name: own[name] if name in own else properties.get(name) for name in columns}
