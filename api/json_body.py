"""Reads JSON request bodies: bounded in size, time and depth, and strict about what JSON is."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from fastapi import Request, Response

from api.access.route import GuardedRoute
from api.errors import BodyError

_READ_SECONDS: Final = 30
_DRAIN_FACTOR: Final = 16
"""How many times the limit is read and thrown away, so that the caller gets to see the answer."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class JsonRequest(Request):
    """A request whose body is read at most up to the limit in the settings."""

    async def body(self) -> bytes:
        """Return the body; raises BodyError when it is too large or too slow."""
        if not hasattr(self, "_body"):
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    self._body = await self._read(self.state.settings.max_body_bytes)
            except TimeoutError:
                msg = f"Request body did not arrive within {_READ_SECONDS} s"
                raise BodyError(msg) from None
        return self._body

    async def json(self) -> object:
        """Return the parsed body; raises BodyError, also for NaN and 1024 nested levels."""
        try:
            return orjson.loads((await self.body()).removeprefix(_BYTE_ORDER_MARK))
        except orjson.JSONDecodeError as error:
            # Not chained: the exception carries the whole document, and the document a token.
            place = f"line {error.lineno}, column {error.colno}"
            msg = f"Request body is not valid JSON: {error.msg} ({place})"
            raise BodyError(msg) from None

    async def _read(self, limit: int) -> bytes:
        received = bytearray()
        size = 0
        async for chunk in self.stream():
            size += len(chunk)
            if size <= limit:
                received += chunk
            elif size > limit * _DRAIN_FACTOR:
                break
        if size > limit:
            msg = f"Request body is larger than {limit} bytes"
            raise BodyError(msg)
        return bytes(received)


class JsonRoute(GuardedRoute):
    """A route that reads its body through JsonRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, given our request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return handle
