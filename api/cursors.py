"""Where the next page of a list begins, as a text that callers pass back unchanged."""

import base64
import hashlib
import struct
import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Final, TypeVar
from urllib.parse import quote_from_bytes

from fastapi import Request

from api.errors import query_faults
from api.schemas import MAX_OFFSET, Pagination
from hubspot_deals.redaction import redact

_Row = TypeVar("_Row")

_VERSION: Final = 1
_FORM: Final = struct.Struct(">Biq7s")
_CHECK: Final = struct.Struct(">I")
_PLACES: Final = frozenset({b"offset", b"page", b"cursor"})
"""Parameters that say where a page begins."""


def to_text(place: bytes) -> str:
    """Write a place as letters, digits, `-` and `_`, with a checksum."""
    checked = place + _CHECK.pack(zlib.crc32(place))
    return base64.urlsafe_b64encode(checked).decode().rstrip("=")


def from_text(text: str) -> bytes | None:
    """Read what `to_text` wrote; None unless every character is as it was written."""
    try:
        checked = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except ValueError:
        return None
    place = checked[: -_CHECK.size]
    return place if to_text(place) == text else None


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a list; nothing secret, and nothing that a caller may not ask for otherwise."""

    snapshot: int
    position: int
    mark: bytes
    """Stands for the list: what `mark_of` returns."""

    def to_text(self) -> str:
        """Return the cursor as callers carry it."""
        return to_text(_FORM.pack(_VERSION, self.snapshot, self.position, self.mark))

    @classmethod
    def from_text(cls, text: str) -> "Cursor | None":
        """Read what the method `to_text` wrote; None for anything else."""
        place = from_text(text)
        if place is None or len(place) != _FORM.size:
            return None
        version, snapshot, position, mark = _FORM.unpack(place)
        known = version == _VERSION and snapshot > 0 and 0 <= position <= MAX_OFFSET
        return cls(snapshot, position, mark) if known else None

    @classmethod
    def of_list(cls, text: str, mark: bytes) -> "Cursor | None":
        """Read a cursor of the list of this mark; None for anything else."""
        cursor = cls.from_text(text)
        return cursor if cursor and cursor.mark == mark else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of a list begins, and how long it is at most; entries have numbers.

    The snapshot of a cursor is the number of the entry before the page, so that newer ones do not
    move it. Without a cursor it begins at `offset`.
    """

    limit: int
    mark: bytes
    """Stands for the list."""
    after: Cursor | None
    offset: int = 0

    @property
    def before(self) -> int | None:
        """The number of the entry after which the page begins."""
        return self.after.snapshot if self.after else None

    def cut(
        self,
        found: Sequence[_Row],
        total: int,
        number: Callable[[_Row], int] = attrgetter("seq"),
    ) -> tuple[Sequence[_Row], Pagination]:
        """Cut what was read, one entry more than the limit if there is one, and describe it."""
        rows, offset = found[: self.limit], self.after.position if self.after else self.offset
        following = None
        if len(found) > self.limit:
            following = Cursor(number(rows[-1]), offset + len(rows), self.mark).to_text()
        return rows, Pagination(
            total=total,
            limit=self.limit,
            offset=offset,
            has_more=following is not None,
            returned=len(rows),
            next_cursor=following,
        )


def read_place(limit: int, mark: bytes, cursor: str | None, otherwise: str) -> Place:
    """Return where a page of the list of this mark begins.

    Raises RequestValidationError with the text `otherwise` for a cursor that is none of it.
    """
    after = None if cursor is None else Cursor.of_list(cursor, mark)
    if cursor is not None and after is None:
        raise query_faults((("cursor",), otherwise))
    return Place(limit, mark, after)


@lru_cache(maxsize=1024)
def mark_of(*parts: Hashable) -> bytes:
    """Return what only a list of the same parts has; they are told apart by `repr`."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=7).digest()


def mark_of_list(name: str, organizations: Sequence[str] | None) -> bytes:
    """Return what the list of these organizations' things (None: everybody's) has."""
    return mark_of(name, None if organizations is None else tuple(organizations))


def page_headers(
    request: Request, *, limit: int, offset: int, total: int, next_cursor: str | None
) -> dict[str, str]:
    """Return what headers say of a page: its place in pages of this size, and the next one."""
    headers = {
        "X-Pagination-Page": str(offset // limit + 1),
        "X-Pagination-Limit": str(limit),
        "X-Pagination-Total": str(total),
        "X-Pagination-Pages": str(-(-total // limit)),
    }
    if next_cursor is not None:
        headers["Link"] = link_to_next(request, next_cursor)
    return headers


def headers_of(request: Request, shown: Pagination) -> dict[str, str]:
    """Return what headers say of a page whose body has its place, too."""
    return page_headers(
        request,
        limit=shown.limit,
        offset=shown.offset,
        total=shown.total,
        next_cursor=shown.next_cursor,
    )


def link_to_next(request: Request, cursor: str) -> str:
    """Return the `Link` header (RFC 8288) of the page after this one.

    The address has no host, so that it is right behind every proxy: clients resolve it.
    """
    sent = request.scope["query_string"].split(b"&")
    kept = [
        pair
        for pair in sent
        if pair and pair.partition(b"=")[0] not in _PLACES and not _holds_secret(pair)
    ]
    query = quote_from_bytes(b"&".join([*kept, b"cursor=%b" % cursor.encode()]), safe="=&%+,")
    return f'<{request.scope["path"]}?{query}>; rel="next"'


def _holds_secret(pair: bytes) -> bool:
    """A token has no place in an address, so what was put there goes no further."""
    text = pair.decode("utf-8", "replace")
    return redact(text) != text
