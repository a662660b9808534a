"""Which deals of a snapshot are wanted, and in which order: answered from one index alone."""

import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from psycopg import AsyncConnection, AsyncRawCursor, sql
from psycopg.rows import scalar_row

from hubspot_deals.contract import DATASET_NAME
from hubspot_deals.warehouse.results import COUNTED, IS_SERVED, RAW_TABLE, Snapshot, values_of

FILTERED_TABLE: Final = RAW_TABLE
"""The table that can be filtered: the others are small."""

_MEMORY: Final = "64MB"
"""For sorting: a million rows would go through files otherwise."""


class FieldKind(StrEnum):
    """What the values of a field are."""

    TEXT = "text"
    NUMBER = "number"
    MOMENT = "moment"
    TRUTH = "truth"


FIELDS: Final[Mapping[str, FieldKind]] = {
    "dealstage": FieldKind.TEXT,
    "pipeline": FieldKind.TEXT,
    "hubspot_owner_id": FieldKind.TEXT,
    "archived": FieldKind.TRUTH,
    "amount": FieldKind.NUMBER,
    "closedate": FieldKind.MOMENT,
    "createdate": FieldKind.MOMENT,
    "hs_lastmodifieddate": FieldKind.MOMENT,
}
"""The columns of the index `deals_to_filter`, which is all that filters and sorting look at."""


class Operator(StrEnum):
    """How a field is compared; a field without value matches nothing."""

    IN = "in"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"


_COMPARED: Final = {
    Operator.IN: "r.{} = ANY ({})",
    Operator.GT: "r.{} > {}",
    Operator.GTE: "r.{} >= {}",
    Operator.LT: "r.{} < {}",
    Operator.LTE: "r.{} <= {}",
}
_TYPES: Final = {
    FieldKind.TEXT: "text",
    FieldKind.NUMBER: "numeric",
    FieldKind.MOMENT: "timestamptz",
    FieldKind.TRUTH: "boolean",
}

Value = str | Decimal | datetime | bool


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison; several values only with IN."""

    field: str
    operator: Operator
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class SortKey:
    """One field to sort by."""

    field: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """The deals that meet all conditions; equal ones, and all without keys, by row number.

    Deals without value come last, in either direction.
    """

    conditions: tuple[Condition, ...] = ()
    order: tuple[SortKey, ...] = ()

    @property
    def fields(self) -> set[str]:
        """The fields that it looks at."""
        return {one.field for one in self.conditions} | {key.field for key in self.order}

    def __bool__(self) -> bool:
        return bool(self.conditions or self.order)


EVERYTHING: Final = Selection()

# The condition of a partial index has to stand in the statement as it stands in the index.
_SHORT: Final = """
    coalesce(octet_length(r.dealstage), 0) + coalesce(octet_length(r.pipeline), 0)
    + coalesce(octet_length(r.hubspot_owner_id), 0) + octet_length(r._dlt_load_id) <= 1000
"""
_ROWS: Final = f"""
    SELECT w.rows FROM hubspot_deals.scans s CROSS JOIN LATERAL (
        SELECT coalesce(string_agg(int4send(r.row_no::integer), ''), '') AS rows FROM (
            SELECT r.row_no FROM (
                SELECT {{columns}} FROM {{table}} r WHERE r.scan_id = $1 AND {_SHORT}
                UNION ALL
                SELECT {{columns}} FROM {{table}} r WHERE r.scan_id = $1 AND NOT {_SHORT}
            ) r WHERE r._dlt_load_id IN ({COUNTED}) AND {{conditions}} ORDER BY {{order}}
        ) r
    ) w WHERE {IS_SERVED}
"""


async def find_rows(
    connection: AsyncConnection[Any], snapshot: Snapshot, selection: Selection, *, seconds: float
) -> "array[int] | None":
    """Return the numbers of the selected deals in order; None once they are not served.

    One pass over the index, in a transaction of its own. Raises QueryCanceled after so many
    seconds.
    """
    values = [
        list(condition.values) if condition.operator is Operator.IN else condition.values[0]
        for condition in selection.conditions
    ]
    async with connection.transaction():
        await connection.execute(
            f"SET LOCAL work_mem = '{_MEMORY}'; SET LOCAL statement_timeout = {seconds * 1000:.0f}"
        )
        cursor = AsyncRawCursor(connection, row_factory=scalar_row)
        await cursor.execute(
            _rows_query(selection), (*values_of(snapshot), *values), prepare=False, binary=True
        )
        found: bytes | None = await cursor.fetchone()
    return None if found is None else _to_numbers(found)


def _to_numbers(sent: bytes) -> "array[int]":
    numbers = array("i", sent)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _rows_query(selection: Selection) -> bytes:
    columns = ["row_no", "_dlt_load_id", *sorted(selection.fields)]
    conditions: list[sql.Composable] = [sql.SQL("true")]
    for number, condition in enumerate(selection.conditions, start=4):
        kind = _TYPES[FIELDS[condition.field]]
        array_of = "[]" if condition.operator is Operator.IN else ""
        conditions.append(
            sql.SQL(_COMPARED[condition.operator]).format(
                sql.Identifier(condition.field), sql.SQL(f"${number}::{kind}{array_of}")
            )
        )
    query = sql.SQL(_ROWS).format(
        columns=sql.SQL(", ").join(sql.Identifier("r", name) for name in columns),
        table=sql.Identifier(DATASET_NAME, FILTERED_TABLE),
        name=sql.Literal(FILTERED_TABLE),
        conditions=sql.SQL(" AND ").join(conditions),
        order=sql.SQL(", ").join([*map(_sorted_by, selection.order), sql.SQL("r.row_no")]),
    )
    return query.as_bytes()


def _sorted_by(key: SortKey) -> sql.Composable:
    # Texts by their bytes: the same in every database.
    collation = ' COLLATE "C"' if FIELDS[key.field] is FieldKind.TEXT else ""
    direction = "DESC" if key.descending else "ASC"
    return sql.SQL(f"r.{{}}{collation} {direction} NULLS LAST").format(sql.Identifier(key.field))
