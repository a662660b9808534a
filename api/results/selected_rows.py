"""Keeps which rows of a snapshot a filter or sorting selects, so that each page is a slice."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from psycopg.errors import QueryCanceled

from api.database import ConnectionPool, read
from api.errors import query_faults
from hubspot_deals.warehouse.results import ResultTable, Snapshot
from hubspot_deals.warehouse.selections import (
    FIELDS,
    FILTERED_TABLE,
    Selection,
    find_rows,
)

_MOST_ROWS: Final = 5_000_000
"""Of a table that is filtered; larger ones are better downloaded."""
_MOST_KEPT_ROWS: Final = 15_000_000
"""Of four bytes each, so 60 MB."""
_MOST_KEPT: Final = 1_000
_SECONDS: Final = 25.0

_Key = tuple[str, int, int, Selection]


class SelectedRows:
    """Row numbers in order, four bytes each: those of a snapshot never change."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._kept: dict[_Key, Sequence[int]] = {}
        self._building = asyncio.Lock()
        """One pass over the index at a time, so that no caller takes the database from the rest."""

    async def get(
        self, snapshot: Snapshot, table: ResultTable, selection: Selection
    ) -> Sequence[int] | None:
        """Return the selected rows; None once the snapshot is not served any more.

        Raises RequestValidationError when they cannot be had from the index, or not soon.
        """
        _check(table, selection)
        key = (snapshot.scan_id, snapshot.seq, snapshot.generation, selection)
        if key not in self._kept:
            async with self._building:
                if key not in self._kept:
                    rows = await self._find(snapshot, selection)
                    if rows is None:
                        return None
                    self._keep(key, rows)
        self._kept[key] = rows = self._kept.pop(key)
        return rows

    async def _find(self, snapshot: Snapshot, selection: Selection) -> Sequence[int] | None:
        find = partial(find_rows, snapshot=snapshot, selection=selection, seconds=_SECONDS)
        try:
            return await read(self._pool, find)
        except QueryCanceled:
            raise query_faults((_place(selection), _too_large())) from None

    def _keep(self, key: _Key, rows: Sequence[int]) -> None:
        self._kept[key] = rows
        count = sum(map(len, self._kept.values()))
        while count > _MOST_KEPT_ROWS or len(self._kept) > _MOST_KEPT:
            count -= len(self._kept.pop(next(iter(self._kept))))


def _check(table: ResultTable, selection: Selection) -> None:
    """Refuse what is not in the index, or what this scan has not read."""
    place = _place(selection)
    if table.table_name != FILTERED_TABLE:
        text = f"Only {FILTERED_TABLE} can be filtered and sorted, not {table.table_name}"
        raise query_faults((place, text))
    possible = [field for field in FIELDS if field in table.columns]
    if missing := sorted(selection.fields - set(possible)):
        names = f"it has {', '.join(possible) or 'none'}"
        text = f"This scan has not read {', '.join(missing)}; of what can be filtered, {names}"
        raise query_faults((place, text))
    if table.row_count > _MOST_ROWS:
        raise query_faults((place, _too_large()))


def _place(selection: Selection) -> tuple[str, ...]:
    return ("filter",) if selection.conditions else ("sort",)


def _too_large() -> str:
    return (
        f"Too many {FILTERED_TABLE} to filter or sort them now; download the table instead, or read"
        " its pages as they are"
    )
