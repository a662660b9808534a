"""Reads downloaded files back, row by row, in one common form, and the table beside them.

A row is a list of texts: NULL is empty, numbers of typed columns are floats' or decimals' shortest.
"""

import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import orjson
import psycopg
import pyarrow.parquet
from psycopg import sql

from benchmarks.serving_data import BIG_SCAN, COLUMNS
from hubspot_deals.tables import CORE_PROPERTIES, ColumnType

Row = list[str]

_CELL: Final = re.compile(
    r'<c r="([A-Z]+)\d+"(?: t="(\w+)")?>(?:<is><t[^>]*>(.*?)</t></is>|<v>(.*?)</v>)</c>', re.DOTALL
)
_ROW: Final = re.compile(r"<row [^>]*>(.*?)</row>", re.DOTALL)
_NUMBERS: Final = {
    place for place, name in enumerate(COLUMNS) if CORE_PROPERTIES.get(name) is ColumnType.DECIMAL
}
_PIECE: Final = 8_000_000


def digest(rows: Iterable[Row]) -> tuple[int, str]:
    """Return how many rows there are and a digest of all their values."""
    found, count = hashlib.sha256(), 0
    for row in rows:
        found.update(orjson.dumps(row))
        count += 1
    return count, found.hexdigest()


def rows_of(form: str, path: Path) -> Iterator[Row]:
    """Yield the rows of a file."""
    readers = {
        "json": _json,
        "ndjson": _ndjson,
        "csv": _csv,
        "parquet": _parquet,
        "excel": _excel,
    }
    return readers[form](path)


def stored_rows(url: str, form: str) -> Iterator[Row]:
    """Yield the rows of the table as a file of this format is to have them."""
    if form == "parquet":
        cells = [_typed_cell(name) for name in COLUMNS]
    else:
        cells = [_raw_cell(name) for name in COLUMNS]
    query = sql.SQL(
        "COPY (SELECT {} FROM hubspot_deals_extraction.deals WHERE scan_id = {} ORDER BY row_no)"
        " TO STDOUT (FORMAT csv)"
    ).format(sql.SQL(", ").join(cells), sql.Literal(BIG_SCAN))
    with psycopg.connect(url) as connection, connection.cursor().copy(query) as copy:
        lines = (bytes(line).decode() for line in copy)
        for row in csv.reader(lines):
            yield (
                [_float(t) if n in _NUMBERS else t for n, t in enumerate(row)]
                if (form == "excel")
                else row
            )


def _raw_cell(name: str) -> sql.Composable:
    own = {"id": "id", "archived": "archived::text", "archivedAt": "archived_at::text"}
    if name in own:
        return sql.SQL(own[name])
    return sql.SQL("properties ->> {}").format(sql.Literal(name))


def _typed_cell(name: str) -> sql.Composable:
    forms = {
        ColumnType.DECIMAL: "trim_scale({})::text",
        ColumnType.TIMESTAMP: "(extract(epoch FROM {}) * 1000000)::bigint::text",
        ColumnType.BOOL: "{}::text",
    }
    kind = CORE_PROPERTIES.get(name)
    return sql.SQL(forms[kind]).format(sql.Identifier(name)) if kind in forms else _raw_cell(name)


def _float(text: str) -> str:
    return str(float(text)) if text else ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _json(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        assert file.readline() == "[\n"
        record: list[str] = []
        for line in file:
            record.append(line)
            if line.startswith("  }"):
                yield _record("".join(record).rstrip(",\n"))
                record.clear()
        assert record == ["]\n"]


def _ndjson(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield _record(line)


def _record(text: str) -> Row:
    return [_text(value) for value in orjson.loads(text).values()]


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        assert next(rows) == COLUMNS
        yield from rows


def _parquet(path: Path) -> Iterator[Row]:
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(10_000):
            columns = [_plain(batch.column(place)) for place in range(batch.num_columns)]
            for row in zip(*columns, strict=True):
                yield list(row)


def _plain(column: Any) -> Sequence[str]:
    if pyarrow.types.is_timestamp(column.type):
        column = column.cast(pyarrow.int64())
    values = column.to_pylist()
    if pyarrow.types.is_decimal(column.type):
        return ["" if value is None else _decimal(value) for value in values]
    return [_text(value) for value in values]


def _decimal(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _excel(path: Path) -> Iterator[Row]:
    with zipfile.ZipFile(path) as book:
        sheets = [name for name in book.namelist() if name.startswith("xl/worksheets/sheet")]
        for number in range(1, len(sheets) + 1):
            with book.open(f"xl/worksheets/sheet{number}.xml") as sheet:
                text = io.TextIOWrapper(sheet, encoding="utf-8", newline="")
                rows = _sheet_rows(text)
                assert next(rows) == COLUMNS
                yield from rows


def _sheet_rows(sheet: io.TextIOWrapper) -> Iterator[Row]:
    rest = ""
    while piece := sheet.read(_PIECE):
        rest += piece
        end = 0
        for found in _ROW.finditer(rest):
            row = [""] * len(COLUMNS)
            for letters, kind, text, number in _CELL.findall(found[1]):
                value = text or ({"1": "true", "0": "false"}[number] if kind == "b" else number)
                place = _place(letters)
                row[place] = _float(value) if place in _NUMBERS and not text else _unescape(value)
            yield row
            end = found.end()
        rest = rest[end:]


def _place(letters: str) -> int:
    place = 0
    for letter in letters:
        place = place * 26 + ord(letter) - ord("A") + 1
    return place - 1


def _unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
