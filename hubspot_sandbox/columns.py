"""How one property's values are found: in a pool through codes, in a time column, in the ids."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from hubspot_sandbox.account import Ints
from hubspot_sandbox.clock import iso_ms
from hubspot_sandbox.names import Pool

Rows = slice | Ints
_MINUTE_MS: Final = 60_000
_MINUTES_A_DAY: Final = 1_440


class PoolColumn:
    """A property whose values are a short list; each row holds a code into it."""

    def __init__(
        self, pool: Pool, codes: Callable[[Rows], npt.NDArray[np.unsignedinteger[Any]]]
    ) -> None:
        self.pool = pool
        self.codes = codes
        self._json: npt.NDArray[np.object_] | None = None

    def json(self, rows: Ints) -> list[bytes]:
        """The JSON values of the rows."""
        if self._json is None:
            self._json = objects([orjson.dumps(value) for value in self.pool])
        fragments: list[bytes] = self._json.take(self.codes(rows)).tolist()
        return fragments

    def text(self, row: int) -> str | None:
        """The value of one row."""
        return self.pool[int(self.codes(slice(row, row + 1))[0])]


class MomentColumn:
    """A datetime property kept as epoch milliseconds."""

    def __init__(self, moments: Callable[[], Ints]) -> None:
        self.moments = moments

    def json(self, rows: Ints) -> list[bytes]:
        """The JSON values of the rows."""
        return [b'"%b"' % text for text in render_moments(self.moments().take(rows))]

    def text(self, row: int) -> str:
        """The value of one row."""
        return iso_ms(int(self.moments()[row]))


class IdColumn:
    """The id of the record, shown as a property."""

    def __init__(self, ids: Callable[[], Ints]) -> None:
        self.ids = ids

    def json(self, rows: Ints) -> list[bytes]:
        """The JSON values of the rows."""
        return [b'"%d"' % number for number in self.ids().take(rows).tolist()]

    def text(self, row: int) -> str:
        """The value of one row."""
        return str(self.ids()[row])


Column = PoolColumn | MomentColumn | IdColumn


def objects(values: list[bytes]) -> npt.NDArray[np.object_]:
    """A one-dimensional array of byte strings, for fast picking by code."""
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


class _MomentFragments:
    """Ready pieces of ISO datetimes: picking three is four times faster than formatting one."""

    def __init__(self) -> None:
        self._first_day = 0
        self._days = objects([b""])
        self._minutes = objects(
            [b"T%02d:%02d:" % divmod(minute, 60) for minute in range(_MINUTES_A_DAY)]
        )
        self._rest = objects([b"%02d.%03dZ" % divmod(ms, 1000) for ms in range(_MINUTE_MS)])

    def render(self, moments: Ints) -> list[bytes]:
        minutes, rest = np.divmod(moments, _MINUTE_MS)
        days, minutes = np.divmod(minutes, _MINUTES_A_DAY)
        self._cover(int(days.min()), int(days.max()))
        text = (
            self._days.take(days - self._first_day)
            + self._minutes.take(minutes)
            + self._rest.take(rest)
        )
        rendered: list[bytes] = text.tolist()
        return rendered

    def _cover(self, first: int, last: int) -> None:
        known_last = self._first_day + len(self._days) - 1
        if len(self._days) > 1 and self._first_day <= first and last <= known_last:
            return
        if len(self._days) > 1:
            first, last = min(first, self._first_day), max(last, known_last)
        # A year to spare on both sides, so that this happens once or twice in a process.
        first, last = first - 366, last + 366
        days = np.datetime_as_string(np.arange(first, last + 1).astype("datetime64[D]"))
        self._first_day = first
        self._days = objects([str(day).encode() for day in days.tolist()])


_FRAGMENTS: Final = _MomentFragments()


def render_moments(moments: Ints) -> list[bytes]:
    """ISO text with milliseconds for each epoch millisecond."""
    return _FRAGMENTS.render(moments) if len(moments) else []
