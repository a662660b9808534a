"""What passes between the HTTP server and the application: one request in, one reply out."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from urllib.parse import unquote_plus

JSON = b"application/json;charset=utf-8"
HTML = b"text/html; charset=UTF-8"


class Mangle(Enum):
    """How the server is told to spoil a reply on the wire."""

    NONE = "none"
    RESET = "reset"
    CUT_BODY = "cut_body"
    WRONG_LENGTH = "wrong_length"


@dataclass(slots=True)
class Request:
    """One HTTP request, complete."""

    method: str
    target: bytes
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    keep_alive: bool = True

    @property
    def line_length(self) -> int:
        """Length of the request line without its line break."""
        return len(self.method) + len(self.target) + len("  HTTP/1.1")

    def split_target(self) -> tuple[str, bytes]:
        """The decoded path and the raw query string."""
        path, _, query = self.target.partition(b"?")
        return unquote_plus(path.decode("latin-1")), query


@dataclass(slots=True)
class Reply:
    """One HTTP reply; `delay` is in seconds, an iterator body is streamed in chunks."""

    status: int
    body: bytes | Iterator[bytes] = b""
    content_type: bytes = JSON
    headers: bytes = b""
    delay: float = 0.0
    close: bool = False
    mangle: Mangle = Mangle.NONE


@lru_cache(maxsize=512)
def _decode(value: bytes) -> str:
    return unquote_plus(value.decode("latin-1"))


@lru_cache(maxsize=256)
def split_names(values: tuple[bytes, ...]) -> tuple[str, ...]:
    """Property names out of `a,b` or repeated keys, in either encoding; cached as scans repeat."""
    names = (name.strip() for value in values for name in _decode(value).split(","))
    return tuple(dict.fromkeys(name for name in names if name))


class Query:
    """A parsed query string, lazy about decoding because property lists are long."""

    __slots__ = ("_raw",)

    def __init__(self, query: bytes) -> None:
        self._raw: dict[bytes, list[bytes]] = {}
        for pair in query.split(b"&"):
            key, _, value = pair.partition(b"=")
            if key:
                self._raw.setdefault(key, []).append(value)

    def text(self, key: bytes) -> str | None:
        """The last value of a key, decoded; None when absent or empty."""
        values = self._raw.get(key)
        return _decode(values[-1]) or None if values else None

    def flag(self, key: bytes) -> bool:
        """A boolean in any case; absent is false."""
        return (self.text(key) or "").lower() == "true"

    def names(self, key: bytes) -> tuple[str, ...]:
        """All comma-separated or repeated values of a key."""
        values = self._raw.get(key)
        return split_names(tuple(values)) if values else ()
