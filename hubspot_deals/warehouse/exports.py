"""Reads a whole table of a snapshot, batch by batch, as texts that PostgreSQL writes.

Each batch is one statement that brings nothing once the snapshot is not served any more, so no
transaction stays open and a removal under way never looks like the end of the table.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.numeric import Int8

from hubspot_deals.contract import DATASET_NAME
from hubspot_deals.errors import HubSpotDealsError
from hubspot_deals.warehouse.labels import label_of
from hubspot_deals.warehouse.results import (
    OWN,
    RAW_TABLE,
    JsonMarks,
    Page,
    ResultTable,
    Snapshot,
    compose_page,
    join_texts,
    json_record,
    select,
    values_of,
)

_FIRST_ROWS: Final = 200
"""So few, so that the first byte comes soon."""

_LEAST_ROWS: Final = 20
_MOST_ROWS: Final = 5_000
_WANTED_BYTES: Final = 4_000_000

# Characters with which a text that a spreadsheet takes for a formula cannot begin.
_HARMLESS: Final = sorted({*range(48, 127)} - {ord("="), ord("@")})
_FORMULA: Final = (
    r"^[\s\u0001-\u0020\u007f-\u00a0\u200b-\u200f\u2060\ufeff]*[-=+@\uff1d\uff0b\uff0d\uff20\u2212]"
)
_NUMBER: Final = r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$"


class Kind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    MOMENT = "moment"
    JSON = "json"


_KINDS: Final = {
    "int8": Kind.INTEGER,
    "numeric": Kind.NUMBER,
    "bool": Kind.BOOLEAN,
    "timestamptz": Kind.MOMENT,
    "jsonb": Kind.JSON,
}
_NO_PROPERTIES: Final = {
    "created_at",
    "updated_at",
    "archived",
    "archived_at",
    "properties",
    "scan_id",
    "row_no",
    "_dlt_id",
    "_dlt_load_id",
}
"""Columns of `deals` that do not hold the property of that name."""

_PRETTY: Final = JsonMarks("  {\n    ", ",\n    ", ": ", "\n  }")
_LINES: Final = JsonMarks(last="}\n")
_TEXTS: Final = {
    Kind.TEXT: "{}",
    Kind.INTEGER: "{}::text",
    Kind.NUMBER: "trim_scale({})::text",
    Kind.BOOLEAN: "{}::text",
    Kind.MOMENT: "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')",
    Kind.JSON: "nullif({}, 'null')::text",
}
_TYPED: Final = _TEXTS | {Kind.MOMENT: "(extract(epoch FROM {}) * 1000000)::bigint::text"}
_QUOTED: Final = (Kind.TEXT, Kind.JSON)


_MARK: Final = sql.SQL(
    "CASE WHEN ascii({text}) = ANY ({harmless}) OR {text} !~ {formula} OR {text} ~ {number}"
    " THEN '' ELSE {mark} END"
)


class ResultsHiddenError(HubSpotDealsError):
    """The snapshot is not served any more: its scan was removed, or a rerun replaced it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file; `kind` is that of the typed column, where there is one."""

    name: str
    kind: Kind
    is_raw: bool
    """Whether its texts are HubSpot's own, which may not fit the kind."""
    is_label: bool = False


def neutralised(name: str) -> str:
    """Return a column's name as `as_csv` writes a text that may be taken for a formula."""
    is_formula = re.match(_FORMULA, name) and not re.match(_NUMBER, name)
    return f"'{name}" if is_formula else name


class TableReader:
    """Reads one table of one snapshot; `columns` are those of `table`."""

    def __init__(
        self, connection: psycopg.Connection[Any], snapshot: Snapshot, table: ResultTable
    ) -> None:
        self._connection = connection
        self._snapshot = snapshot
        self._table = replace(table, columns=list(dict.fromkeys(table.columns)))
        self._selected = select(self._table)
        self.columns = self._find_columns()

    def as_json(self, *, pretty: bool) -> Iterator[Page]:
        """Yield objects: one a line, or indented with `,` between those of a batch."""
        record = json_record(self._table, _PRETTY if pretty else _LINES)
        return self._read(self._selected, record, ",\n" if pretty else "")

    def as_csv(self, *, neutralise: bool) -> Iterator[Page]:
        """Yield CSV lines of texts in quotes, NULL as nothing.

        A text that a spreadsheet would take for a formula gets an apostrophe before it, if asked.
        """
        cells = [_cell(column, neutralise=neutralise) for column in self.columns]
        if len(cells) == 1:
            # A line of nothing is not a row to most readers.
            cells = [sql.SQL("coalesce({}, '\"\"')").format(cells[0])]
        return self._read(self._selected, _line(cells), "")

    def as_typed_csv(self) -> Iterator[Page]:
        """Yield CSV lines of typed columns where there are some: moments in microseconds."""
        selected = self._selected
        cells = []
        for column in self.columns:
            if column.is_label:
                cells.append(_cell(column, neutralise=False))
            elif column.is_raw and column.kind is not Kind.TEXT:
                selected += sql.SQL(", {}").format(sql.Identifier("r", column.name))
                cells.append(_typed(column.name, column.kind))
            elif column.name in OWN and self._table.table_name == RAW_TABLE:
                cells.append(_typed(OWN[column.name], column.kind))
            elif column.is_raw:
                cells.append(_cell(column, neutralise=False))
            else:
                cells.append(_typed(column.name, column.kind))
        return self._read(selected, _line(cells), "")

    def _find_columns(self) -> list[Column]:
        cursor = self._connection.execute(
            "SELECT attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
            " WHERE attrelid = %s::regclass AND attnum > 0",
            (f"{DATASET_NAME}.{self._table.table_name}",),
        )
        kinds = {name: _KINDS.get(kind, Kind.TEXT) for name, kind in cursor}
        if self._table.table_name != RAW_TABLE:
            return [Column(name, kinds[name], is_raw=False) for name in self._table.columns]
        typed = {name: kind for name, kind in kinds.items() if name not in _NO_PROPERTIES}
        own = {name: kinds[column] for name, column in OWN.items()}
        labels = self._table.labels
        return [
            Column(name, Kind.TEXT, is_raw=False, is_label=True)
            if name in labels
            else Column(name, (typed | own).get(name, Kind.TEXT), is_raw=name not in own)
            for name in self._table.columns
        ]

    def _read(
        self, selected: sql.Composable, record: sql.Composable, separator: str
    ) -> Iterator[Page]:
        query = compose_page(self._table.table_name, selected, record, separator)
        offset, limit = 0, _FIRST_ROWS
        cursor = psycopg.RawCursor(self._connection, row_factory=class_row(Page))
        while offset < self._table.row_count:
            values = (*values_of(self._snapshot), Int8(offset), Int8(limit))
            page = cursor.execute(query, values, binary=True).fetchone()
            if page is None:
                raise ResultsHiddenError(self._snapshot.scan_id)
            wanted = min(limit, self._table.row_count - offset)
            if page.returned != wanted:
                msg = f"{page.returned} rows after row {offset} instead of {wanted}"
                raise RuntimeError(msg)
            yield page
            offset += page.returned
            fitting = limit * _WANTED_BYTES // max(len(page.records), 1)
            limit = min(max(fitting, _LEAST_ROWS), 4 * limit, _MOST_ROWS)


def _line(cells: Sequence[sql.Composable]) -> sql.Composable:
    parts: list[sql.Composable] = []
    for cell in cells:
        parts += [sql.Literal(","), cell] if parts else [cell]
    return join_texts([*parts, sql.SQL("E'\\r\\n'")])


def _typed(column: str, kind: Kind) -> sql.Composable:
    text = sql.SQL(_TYPED[kind]).format(sql.Identifier("r", column))
    return _quote(text) if kind in _QUOTED else text


def _cell(column: Column, *, neutralise: bool) -> sql.Composable:
    if column.is_label:
        text = label_of(column.name)
    elif column.is_raw:
        text = sql.SQL("(r.properties ->> {})").format(sql.Literal(column.name))
    else:
        name = OWN.get(column.name, column.name)
        text = sql.SQL(_TEXTS[column.kind]).format(sql.Identifier("r", name))
        if column.kind not in _QUOTED:
            return text
    return _quote(text, _mark(text) if neutralise else None)


def _quote(text: sql.Composable, mark: sql.Composable | None = None) -> sql.Composable:
    return sql.SQL("""('"' || {mark} || replace({text}, '"', '""') || '"')""").format(
        mark=mark or sql.Literal(""), text=text
    )


def _mark(text: sql.Composable) -> sql.Composable:
    return _MARK.format(
        text=text,
        harmless=sql.SQL("{}::integer[]").format(sql.Literal(_HARMLESS)),
        formula=sql.Literal(_FORMULA),
        number=sql.Literal(_NUMBER),
        mark=sql.Literal("'"),
    )
