"""Where the next page of a list begins, as a text that callers pass back unchanged."""

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from fastapi import Request

from api.schemas import MAX_OFFSET

_VERSION: Final = 1
_FORM: Final = struct.Struct(">Biq8s")
_CHECK_BYTES: Final = 4
_MOST_CHARACTERS: Final = 64
_PLACES: Final = frozenset({"offset", "page", "cursor"})
"""Parameters that say where a page begins."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a list; nothing secret, and nothing that a caller may not ask for otherwise."""

    snapshot: int
    position: int
    mark: bytes
    """Stands for the list: eight bytes of `mark_of`."""

    def to_text(self) -> str:
        """Return the cursor as letters, digits, `-` and `_`."""
        packed = _FORM.pack(_VERSION, self.snapshot, self.position, self.mark)
        return base64.urlsafe_b64encode(packed + _check(packed)).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> "Cursor | None":
        """Read a cursor; None unless every character is as it was written."""
        if not text.isascii() or len(text) > _MOST_CHARACTERS:
            return None
        try:
            sent = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        except binascii.Error:
            return None
        packed, check = sent[: _FORM.size], sent[_FORM.size :]
        if len(packed) < _FORM.size or check != _check(packed):
            return None
        version, snapshot, position, mark = _FORM.unpack(packed)
        cursor = cls(snapshot, position, mark)
        if version != _VERSION or not 0 <= position <= MAX_OFFSET or cursor.to_text() != text:
            return None
        return cursor


def mark_of(*parts: object) -> bytes:
    """Return what only a list of the same parts has; they are told apart by `repr`."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()


def link_to_next(request: Request, cursor: str) -> str:
    """Return the `Link` header (RFC 8288) of the page after this one.

    The address has no host, so that it is right behind every proxy: clients resolve it.
    """
    kept = [pair for pair in request.query_params.multi_items() if pair[0] not in _PLACES]
    return f'<{request.scope["path"]}?{urlencode([*kept, ("cursor", cursor)])}>; rel="next"'


def _check(packed: bytes) -> bytes:
    return hashlib.blake2b(packed, digest_size=_CHECK_BYTES).digest()
