"""Wraps every request: its id, its log line, the last net under errors, HEAD for every GET."""

import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import unexpected_error
from api.logs import request_id

logger = logging.getLogger("api.requests")

_USABLE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


class RequestEnvelope:
    """Gives each request an id (the caller's `X-Request-ID` when usable) and one log line."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        current = given if _USABLE_ID.fullmatch(given) else uuid.uuid4().hex
        token = request_id.set(current)
        answer = _Answer(send, current, is_head=scope["method"] == "HEAD")
        began = time.perf_counter()
        try:
            await self._serve(scope, receive, answer)
        finally:
            logger.info(
                "request",
                extra={
                    "method": scope["method"],
                    "path": scope["path"][:300],
                    "status": answer.status,
                    "milliseconds": round((time.perf_counter() - began) * 1000, 1),
                },
            )
            request_id.reset(token)

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        # A HEAD is served as the GET it asks about, without the body.
        inner = {**scope, "method": "GET", "is_head": True} if scope["method"] == "HEAD" else scope
        try:
            await self._app(inner, receive, answer)
        except Exception as error:
            response = unexpected_error(error)
            if answer.status is not None:
                raise
            await response(scope, receive, answer)


class _Answer:
    """The sending side of one request: adds the headers that every answer has."""

    def __init__(self, send: Send, current: str, *, is_head: bool) -> None:
        self._send = send
        self._request_id = current
        self._is_head = is_head
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            headers["X-Content-Type-Options"] = "nosniff"
        elif message["type"] == "http.response.body" and self._is_head:
            message = {**message, "body": b""}
        await self._send(message)
