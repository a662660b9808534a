"""Reads the served snapshot of a completed scan, as JSON that PostgreSQL writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from psycopg import AsyncConnection, AsyncRawCursor, sql
from psycopg.rows import class_row, dict_row
from psycopg.types.numeric import Int4, Int8

from hubspot_deals.contract import DATASET_NAME, TABLE_NAMES
from hubspot_deals.warehouse.labels import LABEL_KEYS, label_of
from hubspot_deals.warehouse.states import IS_VISIBLE

RAW_TABLE: Final = "deals"
"""The table whose records are HubSpot's own property texts rather than its columns."""

OWN: Final = {"id": "id", "archived": "archived", "archivedAt": "archived_at"}
"""What a deal has beside its properties, with the column that it is in."""

_ARGUMENTS: Final = 90
"""Most arguments of one call: PostgreSQL takes 100."""

_MOST_PREPARED: Final = 300
"""Columns of the widest page whose statement is prepared: PostgreSQL's plan of 2,000 takes 6 MB."""

_SERVED: Final = f"s.generation > 0 AND s.results_removed_at IS NULL AND {IS_VISIBLE}"
"""A result is served until another one takes its place, whatever the next attempt does."""

IS_SERVED: Final = f"s.scan_id = $1 AND s.generation = $2 AND s.seq = $3 AND {_SERVED}"
"""Whether a scan serves the snapshot whose `values_of` are the statement's first parameters."""

COUNTED: Final = """
    SELECT c.load_id FROM hubspot_deals.scan_chunks c
    WHERE c.scan_id = $1 AND c.generation = $2 AND c.table_name = {name}
"""
"""The packages of a table that count, of scan $1 and generation $2."""

_SNAPSHOT: Final = f"""
    SELECT s.scan_id, s.seq, s.generation, (
        SELECT coalesce(jsonb_agg(jsonb_build_object('table_name', t.table_name,
            'row_count', t.row_count, 'extracted_count', t.extracted_count,
            'columns', t.columns)), '[]')
        FROM hubspot_deals.scan_tables t
        WHERE t.scan_id = s.scan_id AND t.generation = s.generation
    ) AS tables FROM hubspot_deals.scans s WHERE s.scan_id = %s AND {_SERVED}
"""

# `properties || '{}'` unpacks a big value once instead of once per property, and OFFSET keeps the
# planner from undoing that.
_PAGE: Final = f"""
    SELECT p.records, p.returned FROM hubspot_deals.scans s CROSS JOIN LATERAL (
        SELECT convert_to(coalesce(string_agg({{record}}, {{separator}}), ''), 'UTF8') AS records,
            count(*) AS returned
        FROM ({{rows}} OFFSET 0) r
    ) p WHERE {IS_SERVED}
"""

# A row counts if its package is the one of the chunk at its place.
_RANGE: Final = """
    SELECT {columns} FROM {dataset}.{table} r
    WHERE r.scan_id = $1 AND r.row_no > $4 AND r.row_no <= $4 + $5
    AND r._dlt_load_id IN (
        SELECT c.load_id FROM hubspot_deals.scan_chunks c
        WHERE c.scan_id = $1 AND c.generation = $2 AND c.table_name = {name}
        AND c.first_row <= $4 + $5 AND c.first_row >= (
            SELECT coalesce(max(f.first_row), 0) FROM hubspot_deals.scan_chunks f
            WHERE f.scan_id = $1 AND f.generation = $2 AND f.table_name = {name}
            AND f.first_row <= $4 + 1
        )
    ) ORDER BY r.row_no
"""

_PICKED: Final = f"""
    SELECT {{columns}} FROM unnest($4::integer[]) WITH ORDINALITY AS w(row_no, place)
    JOIN {{dataset}}.{{table}} r ON r.scan_id = $1 AND r.row_no = w.row_no
    AND r._dlt_load_id IN ({COUNTED}) ORDER BY w.place
"""


@dataclass(frozen=True, slots=True)
class ResultTable:
    """One table of a snapshot."""

    table_name: str
    row_count: int
    extracted_count: int
    columns: list[str]
    labels: frozenset[str] = frozenset()
    """Those of its columns that are labels, which no row has itself."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a completed scan serves; its tables never change.

    `seq` tells the scan from one that had the same id before it and was removed.
    """

    scan_id: str
    seq: int
    generation: int
    tables: list[ResultTable]


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, as JSON texts with commas between them."""

    records: bytes
    returned: int


async def find_snapshot(connection: AsyncConnection[Any], scan_id: str) -> Snapshot | None:
    """Return what a scan serves, its tables in the product's order; None if it serves nothing.

    One statement, so that a rerun which completes meanwhile does not leave half of the answer.
    """
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(_SNAPSHOT, (scan_id,))
    if (found := await cursor.fetchone()) is None:
        return None
    tables = [ResultTable(**table) for table in found.pop("tables")]
    tables.sort(key=lambda table: TABLE_NAMES.index(table.table_name))
    return Snapshot(tables=tables, **found)


async def find_page(
    connection: AsyncConnection[Any],
    snapshot: Snapshot,
    table: ResultTable,
    *,
    limit: int,
    offset: int,
) -> Page | None:
    """Return the rows at dense positions offset+1 … offset+limit; None once they are not served.

    One statement, so of one moment; and a range on the (scan_id, row_no) index: as fast at the end
    of a million rows as at the start.
    """
    cursor = AsyncRawCursor(connection, row_factory=class_row(Page))
    await cursor.execute(
        _page_query(table.table_name, tuple(table.columns), table.labels),
        (*values_of(snapshot), Int8(offset), Int8(limit)),
        prepare=None if len(table.columns) <= _MOST_PREPARED else False,
        binary=True,
    )
    return await cursor.fetchone()


async def find_picked(
    connection: AsyncConnection[Any], snapshot: Snapshot, table: ResultTable, rows: Sequence[int]
) -> Page | None:
    """Return the rows of these numbers in their order; None once they are not served."""
    cursor = AsyncRawCursor(connection, row_factory=class_row(Page))
    await cursor.execute(
        _page_query(table.table_name, tuple(table.columns), table.labels, picked=True),
        (*values_of(snapshot), [Int4(row) for row in rows]),
        prepare=None if len(table.columns) <= _MOST_PREPARED else False,
        binary=True,
    )
    return await cursor.fetchone()


def values_of(snapshot: Snapshot) -> tuple[str, Int4, Int4]:
    """Return the first parameters of every statement on a snapshot: scan, generation, seq."""
    return snapshot.scan_id, Int4(snapshot.generation), Int4(snapshot.seq)


async def is_served(connection: AsyncConnection[Any], snapshot: Snapshot) -> bool:
    """Tell whether a scan still serves this snapshot."""
    cursor = AsyncRawCursor(connection)
    await cursor.execute(
        f"SELECT EXISTS (SELECT FROM hubspot_deals.scans s WHERE {IS_SERVED})", values_of(snapshot)
    )
    return (await cursor.fetchone()) == (True,)


@lru_cache(maxsize=128)
def _page_query(
    table_name: str,
    columns: tuple[str, ...],
    labels: frozenset[str] = frozenset(),
    *,
    picked: bool = False,
) -> bytes:
    table = ResultTable(table_name, 0, 0, list(dict.fromkeys(columns)), labels)
    return compose_page(table_name, select(table), json_record(table), ",", picked=picked)


def compose_page(
    table_name: str,
    selected: sql.Composable,
    record: sql.Composable,
    separator: str,
    *,
    picked: bool = False,
) -> bytes:
    """Write the statement, whose parameters are scan, generation, seq, offset and limit.

    Instead of the last two, the numbers of the rows if they are picked.
    """
    places = {
        "columns": selected,
        "dataset": sql.Identifier(DATASET_NAME),
        "table": sql.Identifier(table_name),
        "name": sql.Literal(table_name),
    }
    query = sql.SQL(_PAGE).format(
        record=record,
        separator=sql.Literal(separator),
        rows=sql.SQL(_PICKED if picked else _RANGE).format(**places),
    )
    return query.as_bytes()


def select(table: ResultTable) -> sql.Composable:
    """Say what of a row the record of these columns is made of."""
    if table.table_name == RAW_TABLE:
        own = "r.id, r.archived, r.archived_at, r.properties || '{}' AS properties"
        return sql.SQL(own + (f", {LABEL_KEYS}" if table.labels else ""))
    return sql.SQL(", ").join(sql.Identifier("r", name) for name in table.columns)


@dataclass(frozen=True, slots=True)
class JsonMarks:
    """What stands around the keys and values of an object."""

    first: str = "{"
    between: str = ","
    colon: str = ":"
    last: str = "}"


COMPACT: Final = JsonMarks()


def json_record(table: ResultTable, marks: JsonMarks = COMPACT) -> sql.Composable:
    """Join keys and values of a table's columns to one JSON object."""
    parts: list[sql.Composable] = []
    for name in table.columns:
        separator = marks.between if parts else marks.first
        parts += [
            sql.Literal(f"{separator}{orjson.dumps(name).decode()}{marks.colon}"),
            _json_value(table, name),
        ]
    return join_texts([*parts, sql.Literal(marks.last)])


def join_texts(parts: Sequence[sql.Composable]) -> sql.Composable:
    """Join texts, NULL as an empty one, in calls of as many arguments as can be."""
    calls = [
        sql.SQL("concat({})").format(sql.SQL(", ").join(parts[first : first + _ARGUMENTS]))
        for first in range(0, len(parts), _ARGUMENTS)
    ]
    return sql.SQL(" || ").join(calls)


def _json_value(table: ResultTable, name: str) -> sql.Composable:
    if name in table.labels:
        return sql.SQL("hubspot_deals.to_answer({})").format(label_of(name))
    if table.table_name != RAW_TABLE:
        return _answer_of(name)
    if name in OWN:
        return _answer_of(OWN[name])
    return sql.SQL("coalesce(r.properties -> {}, 'null')").format(sql.Literal(name))


def _answer_of(column: str) -> sql.Composable:
    return sql.SQL("hubspot_deals.to_answer({})").format(sql.Identifier("r", column))
