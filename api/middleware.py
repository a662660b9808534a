"""Wraps every request: its id, its log line, its count, the last net under errors, HEAD for GET.

And it takes parameters in both spellings.
"""

import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dialect.grammar import is_verb_first
from api.edge.security import add_security_headers
from api.error_bodies import Manner, manner
from api.errors import unexpected_error
from api.health.meter import NO_ROUTE, RequestMeter
from api.logs import request_id
from hubspot_deals import tracing
from hubspot_deals.redaction import redact

logger = logging.getLogger("api.requests")

_CUT_OFF: Final = 500
"""What counts for a request that ended without an answer."""
_OTHER_SPELLINGS: Final = {
    b"table_name": b"tableName",
    b"organization_id": b"organizationId",
    b"pageSize": b"page_size",
}
"""Parameters as the other dialect would spell them: both are taken, by every path."""
_OTHER_SPELLING: Final = re.compile(rb"(?<![^&])(%b)(?==)" % b"|".join(_OTHER_SPELLINGS))
_USABLE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


class RequestEnvelope:
    """Gives each request an id (the caller's `X-Request-ID` when usable) and one log line."""

    def __init__(self, app: ASGIApp, meter: RequestMeter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        # It is written down in many places, none of which is for a secret.
        is_usable = _USABLE_ID.fullmatch(given) and redact(given) == given
        current = given if is_usable else uuid.uuid4().hex
        token = request_id.set(current)
        told = manner.set(
            Manner(
                generic_codes=is_verb_first(scope["method"], scope["path"]),
                as_problem="application/problem+json" in headers.get("accept", "").lower(),
            )
        )
        answer = _Answer(send, current, scope["scheme"], is_head=scope["method"] == "HEAD")
        began = time.perf_counter()
        try:
            await self._serve(scope, receive, answer)
        finally:
            ended = time.perf_counter()
            self._meter.count(
                answer.status or _CUT_OFF,
                (answer.began or ended) - began,
                route=answer.route,
                method=scope["method"],
            )
            logger.info(
                "request",
                extra={
                    "method": scope["method"],
                    "path": scope["path"][:300],
                    "status": answer.status,
                    "milliseconds": round((ended - began) * 1000, 1),
                },
            )
            request_id.reset(token)
            manner.reset(told)

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        # A HEAD is served as the GET it asks about, without the body.
        inner = {**scope, "method": "GET", "is_head": True} if scope["method"] == "HEAD" else scope
        if _OTHER_SPELLING.search(scope["query_string"]):
            inner = {**inner, "query_string": spell_parameters(scope["query_string"])}
        parent = Headers(scope=scope).get("traceparent")
        with tracing.span(f"{scope['method']} request", parent=parent) as span:
            try:
                await self._app(inner, receive, answer)
            except Exception as error:
                response = unexpected_error(error)
                if answer.status is not None:
                    raise
                await response(scope, receive, answer)
            finally:
                answer.route = getattr(inner.get("route"), "path", NO_ROUTE)
                if span is not None:
                    span.update_name(f"{scope['method']} {answer.route}")
                    span.set_attribute("http.response.status_code", answer.status or _CUT_OFF)
                    span.set_attribute("request_id", request_id.get())


def spell_parameters(query: bytes) -> bytes:
    """Return a query string with the names of its parameters as the endpoints know them."""
    return _OTHER_SPELLING.sub(lambda match: _OTHER_SPELLINGS[match[1]], query)


class _Answer:
    """The sending side of one request: adds the headers that every answer has."""

    def __init__(self, send: Send, current: str, scheme: str, *, is_head: bool) -> None:
        self._send = send
        self._request_id = current
        self._scheme = scheme
        self._is_head = is_head
        self.status: int | None = None
        self.route = NO_ROUTE
        self.began: float | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.began = time.perf_counter()
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            add_security_headers(headers.raw, self._scheme)
        elif message["type"] == "http.response.body" and self._is_head:
            message = {**message, "body": b""}
        await self._send(message)
