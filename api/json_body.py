"""Reads JSON request bodies: bounded in size, time and depth, and strict about what JSON is."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from fastapi import Request, Response

from api.access.route import GuardedRoute
from api.errors import BodyError

_DRAIN_FACTOR: Final = 16
"""How many times the limit is read and thrown away, so that the caller gets to see the answer."""

_MOST_NAMES: Final = 10_000
"""In all objects of a body together: each that is unknown becomes a fault of some kilobytes."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class JsonRequest(Request):
    """A request whose body is read at most up to the limit in the settings."""

    async def body(self) -> bytes:
        """Return the body; raises BodyError when it is too large or too slow."""
        if not hasattr(self, "_body"):
            seconds = self.state.settings.body_seconds
            try:
                async with asyncio.timeout(seconds):
                    self._body = await self._read(self.state.settings.max_body_bytes)
            except TimeoutError:
                msg = f"Request body did not arrive within {seconds:g} s"
                raise BodyError(msg, 408) from None
        return self._body

    async def json(self) -> object:
        """Return the parsed body; raises BodyError.

        Also for NaN, a name that an object has twice, too many names, and hundreds of levels.
        """
        text = (await self.body()).removeprefix(_BYTE_ORDER_MARK)
        try:
            document = orjson.loads(text)
            json.loads(text, object_pairs_hook=_Names().check)
        except RecursionError:
            msg = "Request body is nested to too great a depth"
            raise BodyError(msg) from None
        except orjson.JSONDecodeError as error:
            # Not chained: the exception carries the whole document, and the document a token.
            place = f"line {error.lineno}, column {error.colno}"
            msg = f"Request body is not valid JSON: {error.msg} ({place})"
            raise BodyError(msg) from None
        return document

    async def _read(self, limit: int) -> bytes:
        # What waits for our word, or would not be read to its end, need not be sent at all.
        is_asked = self.headers.get("expect", "").lower() == "100-continue"
        most = limit if is_asked else limit * _DRAIN_FACTOR
        if int(self.headers.get("content-length", "0")) > most:
            raise _too_large(limit)
        received = bytearray()
        size = 0
        async for chunk in self.stream():
            size += len(chunk)
            if size <= limit:
                received += chunk
            elif size > limit * _DRAIN_FACTOR:
                break
        if size > limit:
            raise _too_large(limit)
        return bytes(received)


def _too_large(limit: int) -> BodyError:
    return BodyError(f"Request body is larger than {limit} bytes", 413)


class _Names:
    """Counts the names in a body, and refuses one that an object has twice.

    Of such a name, programs between the caller and us may read the other value.
    """

    def __init__(self) -> None:
        self._count = 0

    def check(self, pairs: list[tuple[str, object]]) -> None:
        """Look at one object; raises BodyError."""
        self._count += len(pairs)
        if self._count > _MOST_NAMES:
            msg = f"Request body has more than {_MOST_NAMES} names"
            raise BodyError(msg)
        if len({name for name, _ in pairs}) < len(pairs):
            msg = "Request body is not valid JSON: an object has a name twice"
            raise BodyError(msg)


class JsonRoute(GuardedRoute):
    """A route that reads its body through JsonRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, given our request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return handle
