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
    columns: dict[str, pa.Array] = {
        "id": pa.array([str(deal["id"]) for deal in deals], pa.string()),
        "archived": pa.array([bool(deal.get("archived")) for deal in deals], pa.bool_()),
        "properties": pa.array([_to_json(values) for values in properties], pa.string()),
    }
    for column, key in (
        ("created_at", "createdAt"),
        ("updated_at", "updatedAt"),
        ("archived_at", "archivedAt"),
    ):
        texts = [_to_text(deal.get(key)) for deal in deals]
        columns[column] = _typed_column(column, texts, ColumnType.TIMESTAMP, unfit)
    for name, kind in CORE_PROPERTIES.items():
        if name in typed:
            texts = [_to_text(values.get(name)) for values in properties]
            columns[name] = _typed_column(name, texts, kind, unfit)
        else:
            columns[name] = pa.nulls(len(deals), ARROW_TYPES[kind])
    return pa.table([columns[name] for name in DEALS.columns], schema=DEALS.arrow_schema())


def rows_to_arrow(table: Table, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build rows of one of the small tables, each cell converted like a deal's."""
    unfit: Counter[str] = Counter()
    columns = [
        _any_column(name, [row.get(name) for row in rows], kind, unfit)
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


def _any_column(
    name: str, values: Sequence[Any], kind: ColumnType, unfit: Counter[str]
) -> pa.Array:
    if kind is ColumnType.JSON:
        return pa.array([_to_json(value) for value in values], pa.string())
    return _typed_column(name, [_to_text(value) for value in values], kind, unfit)


def _typed_column(
    name: str, texts: Sequence[str | None], kind: ColumnType, unfit: Counter[str]
) -> pa.Array:
    """Convert texts: the plain ones in one cast, the rest one by one. "" means cleared: NULL."""
    if kind is ColumnType.TEXT:
        return pa.array([_without_nul(text) for text in texts], pa.string())
    strings = pa.array([text or None for text in texts], pa.string())
    is_plain = pc.match_substring_regex(strings, _PLAIN_FORMS[kind])
    try:
        column = pc.if_else(is_plain, strings, None).cast(ARROW_TYPES[kind])
    except pa.ArrowInvalid:  # such as 2024-02-31T00:00:00Z
        is_plain = pa.array([False] * len(strings))
        column = pa.nulls(len(strings), ARROW_TYPES[kind])
    rest = pc.and_not(pc.is_valid(strings), pc.fill_null(is_plain, fill_value=False))
    if not pc.any(rest).as_py():
        return column
    values = column.to_pylist()
    for position in pc.indices_nonzero(rest).to_pylist():
        values[position] = _PARSERS[kind](strings[position].as_py())
        unfit[name] += values[position] is None
    return pa.array(values, ARROW_TYPES[kind])


def _to_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    # HubSpot's values are texts; a number, a flag or a list from elsewhere becomes its JSON.
    return orjson.dumps(value).decode()


def _to_json(value: Any) -> str | None:
    if value is None:
        return None
    text = orjson.dumps(value).decode()
    return orjson.dumps(_without_nul(value)).decode() if "\\u0000" in text else text


def _without_nul(value: Any) -> Any:
    """PostgreSQL holds no NUL character in texts or JSONB, so U+FFFD stands for it."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return value
