"""Where the next page of a list begins, as a text that callers pass back unchanged."""

import base64
import binascii
import hashlib
import struct
import zlib
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote_from_bytes

from fastapi import Request

from api.schemas import MAX_OFFSET

_VERSION: Final = 1
_FORM: Final = struct.Struct(">Biq7s")
_CHECK: Final = struct.Struct(">I")
_CHARACTERS: Final = (_FORM.size + _CHECK.size) * 4 // 3
"""The bytes are such that base64 needs no padding."""
_PLACES: Final = frozenset({b"offset", b"page", b"cursor"})
"""Parameters that say where a page begins."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a list; nothing secret, and nothing that a caller may not ask for otherwise."""

    snapshot: int
    position: int
    mark: bytes
    """Stands for the list: what `mark_of` returns."""

    def to_text(self) -> str:
        """Return the cursor as letters, digits, `-` and `_`."""
        packed = _FORM.pack(_VERSION, self.snapshot, self.position, self.mark)
        return base64.urlsafe_b64encode(packed + _CHECK.pack(zlib.crc32(packed))).decode()

    @classmethod
    def from_text(cls, text: str) -> "Cursor | None":
        """Read a cursor; None unless every character is as it was written."""
        if not text.isascii() or len(text) != _CHARACTERS:
            return None
        try:
            sent = base64.b64decode(text, b"-_", validate=True)
        except binascii.Error:
            return None
        if len(sent) != _FORM.size + _CHECK.size:
            return None
        packed, check = sent[: _FORM.size], sent[_FORM.size :]
        version, snapshot, position, mark = _FORM.unpack(packed)
        known = version == _VERSION and snapshot > 0 and 0 <= position <= MAX_OFFSET
        return (
            cls(snapshot, position, mark)
            if known and check == _CHECK.pack(zlib.crc32(packed))
            else None
        )


@lru_cache(maxsize=1024)
def mark_of(*parts: Hashable) -> bytes:
    """Return what only a list of the same parts has; they are told apart by `repr`."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=7).digest()


def link_to_next(request: Request, cursor: str) -> str:
    """Return the `Link` header (RFC 8288) of the page after this one.

    The address has no host, so that it is right behind every proxy: clients resolve it.
    """
    sent = request.scope["query_string"].split(b"&")
    kept = [pair for pair in sent if pair and pair.partition(b"=")[0] not in _PLACES]
    query = quote_from_bytes(b"&".join([*kept, b"cursor=%b" % cursor.encode()]), safe="=&%+,")
    return f'<{request.scope["path"]}?{query}>; rel="next"'
