"""Runs a search over the index: matching rows in order, at most the ten thousand one can read."""

import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hubspot_sandbox.account import Ints
from hubspot_sandbox.catalog import PropertySpec
from hubspot_sandbox.columns import PoolColumn
from hubspot_sandbox.failures import bad_search
from hubspot_sandbox.filters import (
    Filter,
    Test,
    compare,
    number_bounds,
    to_number,
    token_test,
    value_test,
)
from hubspot_sandbox.index import SearchIndex

Mask = npt.NDArray[np.bool_]
WINDOW: Final = 10_000
_KEPT_RESULTS: Final = 128
_KEPT_POOLS: Final = 256
_QUERIED: Final = ("dealname", "pipeline", "dealstage", "description", "dealtype")
_LAST: Final = 2**62
_WHOLE: Final = re.compile(r"-?[0-9]{1,30}")


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What decides the result of a search; pages of one query share it."""

    groups: tuple[tuple[Filter, ...], ...] = ()
    query: str = ""
    sort: str = "createdate"
    is_descending: bool = False


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The readable head of a result, and how many deals match in all."""

    rows: Ints
    total: int


class Searcher:
    """Finds rows; keeps the results of the last queries, because pages repeat them."""

    def __init__(self, index: SearchIndex) -> None:
        self._index = index
        self._results: OrderedDict[tuple[SearchQuery, int], SearchResult] = OrderedDict()
        self._pools: OrderedDict[Filter, Mask] = OrderedDict()

    def find(self, query: SearchQuery) -> SearchResult:
        """The result as of what the index knows now."""
        self._index.catch_up()
        key = (query, self._index.version)
        result = self._results.get(key)
        if result is None:
            result = self._results[key] = self._run(query)
            if len(self._results) > _KEPT_RESULTS:
                self._results.popitem(last=False)
        return result

    def _run(self, query: SearchQuery) -> SearchResult:
        groups = query.groups or ((),)
        spans = [self._span(group) for group in groups]
        start, stop = min(low for low, _ in spans), max(high for _, high in spans)
        rows = slice(start, max(start, stop))
        mask = np.zeros(rows.stop - rows.start, dtype=np.bool_)
        for group, (low, high) in zip(groups, spans, strict=True):
            if high > low:
                mask[low - start : high - start] |= self._match(group, slice(low, high))
        if query.query:
            mask &= self._match_text(query.query, rows)
        total = int(np.count_nonzero(mask))
        return SearchResult(self._order(mask, start, total, query), total)

    def _span(self, group: Sequence[Filter]) -> tuple[int, int]:
        """The rows that the conditions on the id leave: ids are sorted, so it is a range."""
        ids = self._index.store.account.ids[: self._index.size]
        low, high = 0, self._index.size
        for found in group:
            if found.name != "hs_object_id" or not _narrows(found):
                continue
            value, upper = _exact_id(found.value), _exact_id(found.high or found.value)
            first = "right" if found.operator == "GT" else "left"
            last = "left" if found.operator == "LT" else "right"
            if found.operator in {"GT", "GTE", "EQ", "BETWEEN"}:
                low = max(low, int(np.searchsorted(ids, value, side=first)))  # type: ignore[call-overload]
            if found.operator in {"LT", "LTE", "EQ", "BETWEEN"}:
                high = min(high, int(np.searchsorted(ids, upper, side=last)))  # type: ignore[call-overload]
        return low, high

    def _match(self, group: Sequence[Filter], rows: slice) -> Mask:
        mask = self._index.listed[rows].copy()
        for found in group:
            if found.name == "hs_object_id" and _narrows(found):
                continue
            mask &= self._mask(found, rows)
        return mask

    def _mask(self, found: Filter, rows: slice) -> Mask:
        numbers = self._numbers(found.name, rows)
        if numbers is not None:
            return _number_mask(found, numbers)
        pool = self._pools.get(found)
        column = self._index.store.column(found.name)
        test = value_test(found)
        if pool is None:
            pool = self._pools[found] = _pool_mask(column, test)
            if len(self._pools) > _KEPT_POOLS:
                self._pools.popitem(last=False)
        return self._patched(found.name, column, pool, test, rows)

    def _match_text(self, text: str, rows: slice) -> Mask:
        test = token_test(text)
        mask = np.zeros(rows.stop - rows.start, dtype=np.bool_)
        for name in _QUERIED:
            column = self._index.store.column(name)
            mask |= self._patched(name, column, _pool_mask(column, test), test, rows)
        return mask

    def _patched(self, name: str, column: Any, pool: Mask, test: Test, rows: slice) -> Mask:
        """A pool's answer per row, corrected for the rows whose value has changed."""
        mask: Mask = pool.take(column.codes(rows))
        changes = self._index.changes.get(name)
        if changes:
            # Bulk changes repeat a few values over many rows: test each value once.
            answers = {value: test(value) for value in set(changes.values())}
            changed = np.fromiter(changes, dtype=np.int64, count=len(changes))
            flags = np.fromiter(map(answers.get, changes.values()), dtype=np.bool_)
            inside = (changed >= rows.start) & (changed < rows.stop)
            mask[changed[inside] - rows.start] = flags[inside]
        return mask

    def _numbers(self, name: str, rows: slice) -> Ints | None:
        index, account = self._index, self._index.store.account
        columns: dict[str, Ints] = {
            "hs_object_id": account.ids,
            "hs_createdate": account.born_ms,
            "createdate": index.created_ms,
            "hs_lastmodifieddate": index.modified_ms,
        }
        return columns[name][rows] if name in columns else None

    # -- order

    def _order(self, mask: Mask, start: int, total: int, query: SearchQuery) -> Ints:
        if query.sort == "hs_object_id":
            # Doubtful: numeric order of ids; all evidence but one hypothesis speaks for it.
            return _ends(mask, start, is_descending=query.is_descending)
        rows = np.flatnonzero(mask) + start
        keys = self._keys(query.sort, rows)
        if query.is_descending:
            # Doubtful: deals without a value come last in both directions.
            keys = np.where(keys == _LAST, keys, -keys)
        if total > WINDOW:
            # Cut to the readable head first; ties at the cut go to the lower ids.
            limit = np.partition(keys, WINDOW - 1)[WINDOW - 1]
            below = keys < limit
            ties = np.flatnonzero(keys == limit)[: WINDOW - int(np.count_nonzero(below))]
            below[ties] = True
            rows, keys = rows[below], keys[below]
        return rows[np.argsort(keys, kind="stable")]

    def _keys(self, name: str, rows: Ints) -> Ints:
        everything = slice(0, self._index.size)
        numbers = self._numbers(name, everything)
        if numbers is not None:
            return numbers[rows]
        spec = self._index.store.catalog.find(name)
        column = self._index.store.column(name)
        if spec is None or not isinstance(column, PoolColumn):
            raise bad_search()
        return self._ranked(spec, column, rows)

    def _ranked(self, spec: PropertySpec, column: PoolColumn, rows: Ints) -> Ints:
        order = sorted({_sort_key(spec, text) for text in column.pool if text})

        def rank(text: str | None) -> int:
            # Even numbers for known values leave room for a changed value between two of them.
            if not text:
                return _LAST
            key = _sort_key(spec, text)
            place = bisect_left(order, key)
            return 2 * place if place < len(order) and order[place] == key else 2 * place - 1

        ranks = np.array([rank(text) for text in column.pool], dtype=np.int64)
        keys: Ints = ranks.take(column.codes(rows))
        changes = self._index.changes.get(spec.name, {})
        for place in np.flatnonzero(np.isin(rows, list(changes))) if changes else ():
            keys[place] = rank(changes[int(rows[place])])
        return keys


def _narrows(found: Filter) -> bool:
    return found.operator in {"GT", "GTE", "LT", "LTE", "EQ", "BETWEEN"}


def _exact_id(text: str | None) -> int:
    if text is None or not _WHOLE.fullmatch(text.strip()):
        raise bad_search()
    return max(-_LAST, min(int(text), _LAST))


def _pool_mask(column: Any, test: Test) -> Mask:
    return np.array([test(text) for text in column.pool], dtype=np.bool_)


def _number_mask(found: Filter, numbers: Ints) -> Mask:
    """A filter on a column of numbers in which every row has a value."""
    operator = found.operator
    if operator in {"HAS_PROPERTY", "NOT_HAS_PROPERTY"}:
        return np.full(len(numbers), operator == "HAS_PROPERTY", dtype=np.bool_)
    if operator in {"IN", "NOT_IN"}:
        wanted = [to_number(found.spec, value) for value in found.values]
        return np.isin(numbers, [value for value in wanted if value is not None]) ^ (
            operator == "NOT_IN"
        )
    if operator in {"CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"}:
        raise bad_search()
    low, high = number_bounds(found)
    mask: Mask = compare("EQ" if operator == "NEQ" else operator, numbers, low, high)
    return ~mask if operator == "NEQ" else mask


def _ends(mask: Mask, start: int, *, is_descending: bool) -> Ints:
    """The first or the last readable rows, without listing all that match."""
    view = mask[::-1] if is_descending else mask
    span = 4 * WINDOW
    while True:
        places = np.flatnonzero(view[:span])
        if len(places) >= WINDOW or span >= len(view):
            break
        span *= 8
    places = places[:WINDOW]
    return (len(mask) - 1 - places if is_descending else places) + start


def _sort_key(spec: PropertySpec, text: str) -> tuple[float, str]:
    number = to_number(spec, text) if spec.type in {"number", "date", "datetime"} else None
    return (float("inf") if number is None else number, text.lower())
