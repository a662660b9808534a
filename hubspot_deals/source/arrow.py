"""Turns HubSpot's texts into typed Arrow columns.

A value that does not fit its column's type becomes NULL there and is counted; the text stays in
`properties`, so nothing is lost and one odd value never fails a scan.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from hubspot_deals.tables import (
    ARROW_TYPES,
    CORE_PROPERTIES,
    DEALS,
    DECIMAL_PRECISION,
    DECIMAL_SCALE,
    ColumnType,
    Table,
)

_NUL: Final = b"\x00"
_ESCAPED_NUL: Final = rb"\u0000"
_WHOLE_DIGITS: Final = DECIMAL_PRECISION - DECIMAL_SCALE
_LARGEST_INTEGER: Final = 2**63 - 1
# What Arrow's own casts read exactly; anything else takes the slow way below, cell by cell.
_PLAIN_FORMS: Final[Mapping[ColumnType, str]] = {
    ColumnType.BIGINT: r"^-?\d{1,18}$",
    ColumnType.DECIMAL: rf"^-?\d{{1,{_WHOLE_DIGITS}}}(\.\d{{1,{DECIMAL_SCALE}}})?$",
    ColumnType.BOOL: r"^(true|false)$",
    ColumnType.TIMESTAMP: r"^(19|20)\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_MS: Final = re.compile(r"-?[0-9]{11,15}")
"""Fewer digits are seconds, a year or a count; more are no moment that a calendar has."""
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


def deals_to_arrow(
    deals: Sequence[Mapping[str, Any]], typed: frozenset[str], unfit: Counter[str]
) -> pa.Table:
    """Build rows of the `deals` table. `unfit` counts values that did not fit, by column."""
    properties = [deal["properties"] for deal in deals]
    moments = _strings_of(deals, ("createdAt", "updatedAt", "archivedAt"))
    texts = _strings_of(properties, [name for name in CORE_PROPERTIES if name in typed])
    columns: dict[str, pa.Array] = {
        "id": _strings([deal["id"] for deal in deals]),
        "archived": pa.array([bool(deal.get("archived")) for deal in deals], pa.bool_()),
        "properties": _json_column(properties),
    }
    for column, key in (
        ("created_at", "createdAt"),
        ("updated_at", "updatedAt"),
        ("archived_at", "archivedAt"),
    ):
        columns[column] = _typed_column(column, moments[key], ColumnType.TIMESTAMP, unfit)
    for name, kind in CORE_PROPERTIES.items():
        columns[name] = (
            _typed_column(name, texts[name], kind, unfit)
            if name in typed
            else pa.nulls(len(deals), ARROW_TYPES[kind])
        )
    return pa.table([columns[name] for name in DEALS.columns], schema=DEALS.arrow_schema())


def rows_to_arrow(table: Table, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build rows of one of the small tables, each cell converted like a deal's."""
    unfit: Counter[str] = Counter()
    columns = [
        _column(name, [row.get(name) for row in rows], kind, unfit)
        for name, kind in table.columns.items()
    ]
    return pa.table(columns, schema=table.arrow_schema())


def parse_timestamp(text: str) -> datetime | None:
    """Read what HubSpot sends as a moment: ISO 8601, a date (midnight UTC) or epoch milliseconds.

    Returns None for anything else.
    """
    try:
        if _EPOCH_MS.fullmatch(text):
            return _EPOCH + timedelta(milliseconds=int(text))
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parse_decimal(text: str) -> Decimal | None:
    """Read a number exactly, scientific notation included; None where it is none or too long."""
    if not _NUMBER.fullmatch(text := text.strip()):
        return None
    sign, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - the pattern knows neither NaN nor infinity
    # Not by `normalize`, which rounds to the context's 28 digits.
    significant = "".join(map(str, digits)).rstrip("0")
    if not significant:
        return Decimal(0)
    exponent += len(digits) - len(significant)
    fits = -exponent <= DECIMAL_SCALE and len(significant) + exponent <= _WHOLE_DIGITS
    return Decimal(f"{'-' * sign}{significant}e{exponent}") if fits else None


def parse_integer(text: str) -> int | None:
    """Read a whole number of 64 bits; None for anything else."""
    number = parse_decimal(text)
    fits = number is not None and number == int(number) and abs(number) <= _LARGEST_INTEGER
    return int(number) if number is not None and fits else None


def parse_bool(text: str) -> bool | None:
    """Read a checkbox in any case; None for anything else."""
    return {"true": True, "false": False}.get(text.strip().lower())


_PARSERS: Final[Mapping[ColumnType, Callable[[str], Any]]] = {
    ColumnType.BIGINT: parse_integer,
    ColumnType.DECIMAL: parse_decimal,
    ColumnType.BOOL: parse_bool,
    ColumnType.TIMESTAMP: parse_timestamp,
}


def _column(name: str, values: Sequence[Any], kind: ColumnType, unfit: Counter[str]) -> pa.Array:
    if kind is ColumnType.JSON:
        return _json_column(values)
    return _typed_column(name, _strings(values), kind, unfit)


def _typed_column(
    name: str, texts: pa.StringArray, kind: ColumnType, unfit: Counter[str]
) -> pa.Array:
    if kind is ColumnType.TEXT:
        return _without_nuls(texts)
    # A word is read once, however many rows have it.
    encoded = texts.dictionary_encode()
    words, positions = encoded.dictionary, encoded.indices
    column = _convert(words, kind)
    is_unfit = pc.and_(pc.is_null(column), pc.not_equal(words, ""))
    if pc.any(is_unfit).as_py():
        unfit[name] += pc.sum(is_unfit.take(positions)).as_py()
    return column.take(positions)


def _convert(words: pa.StringArray, kind: ColumnType) -> pa.Array:
    """Convert the plain words in one cast, the rest one by one. "" means cleared: NULL."""
    is_plain = pc.match_substring_regex(words, _PLAIN_FORMS[kind])
    try:
        column = pc.if_else(is_plain, words, None).cast(ARROW_TYPES[kind])
    except pa.ArrowInvalid:  # such as 2024-02-31T00:00:00Z
        is_plain = pa.array([False] * len(words))
        column = pa.nulls(len(words), ARROW_TYPES[kind])
    is_odd = pc.and_not(pc.not_equal(words, ""), is_plain)
    odd = words.filter(is_odd).to_pylist()
    if not odd:
        return column
    read = pa.array([_PARSERS[kind](word) for word in odd], ARROW_TYPES[kind])
    return pc.replace_with_mask(column, is_odd, read)


def _without_nuls(column: pa.StringArray) -> pa.StringArray:
    if _NUL in _characters(column):
        return pa.array([_without_nul(text) for text in column.to_pylist()], pa.string())
    return column


def _json_column(values: Sequence[Any]) -> pa.Array:
    texts = [None if value is None else orjson.dumps(value) for value in values]
    column = pa.array(texts, pa.string())
    if _ESCAPED_NUL in _characters(column):
        texts = [None if text is None else _dump_without_nul(text) for text in texts]
        return pa.array(texts, pa.string())
    return column


def _characters(column: pa.StringArray) -> bytes:
    """All texts of a column without borders."""
    data = column.buffers()[2]
    return b"" if data is None else bytes(data.to_pybytes())


def _strings_of(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, pa.StringArray]:
    """Take some values out of all rows at once, as texts."""
    kind = pa.struct([(name, pa.string()) for name in names])
    try:
        # Arrow looks into the mappings three times as fast as Python does.
        columns = pa.array(rows, kind)
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return {name: _strings([row.get(name) for row in rows]) for name in names}
    return {name: columns.field(name) for name in names}


def _strings(values: Sequence[Any]) -> pa.StringArray:
    """HubSpot's values are texts; a number, a flag or a list from elsewhere becomes its JSON."""
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.array([_to_text(value) for value in values], pa.string())


def _to_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _dump_without_nul(text: bytes) -> bytes:
    return orjson.dumps(_without_nul(orjson.loads(text))) if _ESCAPED_NUL in text else text


def _without_nul(value: Any) -> Any:
    """PostgreSQL holds no NUL character in texts or JSONB, so U+FFFD stands for it."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return value
