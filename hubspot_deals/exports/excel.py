"""Excel workbooks, written by XlsxWriter in constant memory."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import xlsxwriter
from xlsxwriter.exceptions import FileCreateError

from hubspot_deals.exports.sink import FileSink
from hubspot_deals.warehouse.exports import Column, Kind, TableReader

SHEET_ROWS: Final = 1_048_576
_CELL_UNITS: Final = 32_767
"""Longest text of a cell, in UTF-16 units."""

_SAFE_DIGITS: Final = 15
"""Digits that a cell's binary number certainly keeps."""

_VALUES: Final = {Kind.NUMBER, Kind.INTEGER, Kind.BOOLEAN}
_COPY_BYTES: Final = 1_048_576
_CREATED: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""Every workbook's, so that the same rows make the same file."""


def write_excel(
    reader: TableReader, sink: FileSink, name: str, folder: Path, sheet_rows: int = SHEET_ROWS
) -> None:
    """Write a table on as many sheets as it takes, each with a header.

    Texts stay texts, whatever they look like; numbers are numbers where a cell holds them exactly.
    """
    with TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "book.xlsx"
        options = {"constant_memory": True, "tmpdir": scratch}
        try:
            with xlsxwriter.Workbook(path, options) as book:
                book.use_zip64()
                book.set_properties({"created": _CREATED})
                _write_sheets(book, reader, sink, name, sheet_rows)
        except FileCreateError as error:
            # The library hides what the system said.
            raise error.args[0] from error
        with path.open("rb") as file:
            while piece := file.read(_COPY_BYTES):
                sink.write(piece)


def _write_sheets(
    book: Any, reader: TableReader, sink: FileSink, name: str, sheet_rows: int
) -> None:
    header = [column.name for column in reader.columns]
    sheet: Any = None
    row, sheets = sheet_rows, 0
    for page in reader.as_csv(neutralise=False):
        for record in _rows_of(page.records):
            if row == sheet_rows:
                sheets += 1
                sheet = book.add_worksheet(name if sheets == 1 else f"{name} {sheets}")
                _write_header(sheet, header)
                row = 1
            sink.shortened_cells += _write_row(sheet, row, record, reader.columns)
            row += 1
        sink.add_rows(page.returned)
    if sheet is None:
        _write_header(book.add_worksheet(name), header)


def _write_header(sheet: Any, header: list[str]) -> None:
    """Names are texts as well: an account may have defined any."""
    for place, name in enumerate(header):
        sheet.write_string(0, place, _shorten(name))


def _rows_of(lines: bytes) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(lines.decode(), newline=""))


def _write_row(sheet: Any, row: int, record: list[str], columns: list[Column]) -> int:
    """Write a row and return how many of its texts were shortened."""
    shortened = 0
    for place, (text, column) in enumerate(zip(record, columns, strict=True)):
        if not text:
            continue
        value = _value_of(text, column.kind) if column.kind in _VALUES else None
        if value is not None:
            write = sheet.write_boolean if isinstance(value, bool) else sheet.write_number
            write(row, place, value)
            continue
        fitting = text if len(text) <= _CELL_UNITS // 2 else _shorten(text)
        shortened += fitting is not text
        sheet.write_string(row, place, fitting)
    return shortened


def _value_of(text: str, kind: Kind) -> float | bool | None:
    """Return a number or a truth value; None where only the text says all of it."""
    if kind is Kind.BOOLEAN:
        return {"true": True, "false": False}.get(text)
    try:
        exact = Decimal(text)
        near = float(text)
    except ArithmeticError:
        return None
    if not exact.is_finite():
        return None
    # As much as the cell keeps, or HubSpot's own spelling of a binary number.
    is_kept = Decimal(f"{near:.{_SAFE_DIGITS}G}") == exact or Decimal(near) == exact
    return near if is_kept else None


def _shorten(text: str) -> str:
    units = text.encode("utf-16-le")
    return (
        text
        if len(units) <= 2 * _CELL_UNITS
        else units[: 2 * _CELL_UNITS].decode("utf-16-le", "ignore")
    )
