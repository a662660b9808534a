"""Reads JSON request bodies: bounded in size, time and depth, and strict about what JSON is."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.errors import BodyError

_DRAIN_FACTOR: Final = 16
"""How many times the limit is read and thrown away, so that the caller gets to see the answer."""

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

        Also for NaN, for a name that an object has twice, and for hundreds of nested levels.
        """
        text = (await self.body()).removeprefix(_BYTE_ORDER_MARK)
        try:
            document = orjson.loads(text)
            # Of a name that comes twice, programs between us and the caller may read another one.
            json.loads(text, object_pairs_hook=_check_names)
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
            raise BodyError(msg, 413)
        return bytes(received)


def _check_names(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        msg = "Request body is not valid JSON: an object has a name twice"
        raise BodyError(msg)


class JsonRoute(APIRoute):
    """A route that reads its body through JsonRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, given our request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return handle
