"""Bodies of the diff endpoint."""

from typing import Any, Final, Literal, NamedTuple

import orjson
from pydantic import Field

from api.cursors import from_text, to_text
from api.schemas import Camel, Timestamp, fault

_LONGEST_ID: Final = 255


class Position(NamedTuple):
    """Where a page of a diff ends, and of which snapshots: (number of the scan, generation)."""

    old: tuple[int, int]
    new: tuple[int, int]
    last_id: str

    def to_cursor(self) -> str:
        """Write it as callers carry it."""
        return to_text(orjson.dumps(tuple(self)))

    @classmethod
    def from_cursor(cls, text: str) -> "Position":
        """Read what `to_cursor` wrote; raises the fault of a parameter for anything else."""
        try:
            unpacked = orjson.loads(from_text(text) or b"")
        except ValueError:
            unpacked = None
        match unpacked:
            case [[int(a), int(b)], [int(c), int(d)], str(last_id)] if _is_id(last_id):
                return cls((a, b), (c, d), last_id)
            case _:
                msg = "Cursor is not one that this service has given"
                raise fault(msg)


def check_cursor(text: str) -> str:
    """Refuse what is no cursor."""
    Position.from_cursor(text)
    return text


def _is_id(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_ID and text.isprintable()


class DiffSide(Camel):
    """One of the two scans."""

    scan_id: str
    snapshot: int
    ended_at: Timestamp | None
    deals: int = Field(description="Deals in the snapshot.")
    filters: dict[str, Any] = Field(description="What the scan was asked for.")


class DiffProperties(Camel):
    """What could be compared."""

    compared: list[str] = Field(description="Properties that both scans have read.")
    only_in_old: list[str]
    only_in_new: list[str]


class Change(Camel):
    """What became of one deal."""

    kind: Literal["added", "removed", "changed"]
    id: str
    record: dict[str, Any] | None = Field(
        default=None, description="Of an added or removed deal: all of it, as on a result page."
    )
    changes: dict[str, dict[str, Any]] | None = Field(
        default=None,
        description="Of a changed deal: `old` and `new` value of each property that differs.",
    )


class DiffPagination(Camel):
    """Where a page of changes lies."""

    limit: int
    returned: int
    has_more: bool = Field(description="Whether deals are left to compare; perhaps none differs.")
    next_cursor: str | None


class DiffPage(Camel):
    """One page of changes, by ascending deal id."""

    old: DiffSide
    new: DiffSide
    properties: DiffProperties
    changes: list[Change]
    pagination: DiffPagination


class DiffCounts(Camel):
    """How many deals differ."""

    added: int
    removed: int
    changed: int
    unchanged: int
    by_property: dict[str, int] = Field(
        description="Changed deals by property, most frequent first."
    )


class DiffSummary(Camel):
    """A diff as numbers."""

    old: DiffSide
    new: DiffSide
    properties: DiffProperties
    summary: DiffCounts
