"""The HTTP protocol of the API's server, with bounds that uvicorn leaves to a proxy.

`uvicorn --http api.edge.protocol:BoundedProtocol`. Everything else is uvicorn's own.
"""

import asyncio
import uuid
from http import HTTPStatus
from typing import Any, ClassVar, Final

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from api.edge.security import add_security_headers
from api.error_bodies import error_response
from api.logs import request_id

MOST_HEADERS: Final = 100
MOST_HEADER_BYTES: Final = 65_536
"""Of the address and all headers together, and of what follows a body of unknown length."""

_VERSIONS: Final = ("1.0", "1.1")


class _TooLargeError(Exception):
    """The head of a request is larger than anybody needs."""


class _AmbiguousError(Exception):
    """A proxy could take a request for one to another host, or for several."""


class BoundedProtocol(HttpToolsProtocol):
    """Bounds how large the head of a request is, how long it takes, and how slowly a client reads.

    The time of a body is bounded where bodies are read.
    """

    head_seconds: ClassVar[float] = 10.0
    """Longest time from the first byte, or from connecting, to the end of the headers."""
    stall_seconds: ClassVar[float] = 60.0
    """Longest time in which a client takes nothing of what waits for it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Another protocol, without our bounds and headers, would answer what asks for one.
        self.ws_protocol_class = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._held_bytes = 0
        """Received since the parser last passed something on: it keeps them, or pays for them."""
        self._passed_on = 0
        self._served: RequestResponseCycle | None = None
        self._is_in_head = False
        self._is_too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the head of a request."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._cancel_timers()
        if self._served is not None:
            # uvicorn tells only the last request of a connection, which may still be queued.
            self._served.disconnected = True
            self._served.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what has arrived; a head or a trailer that goes on and on is refused."""
        passed_on = self._passed_on
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._held_bytes = self._held_bytes + len(data) if self._passed_on == passed_on else 0
        if self._held_bytes > MOST_HEADER_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        if self._is_idle():
            # A head, or the rest of a body that nobody has read: neither may go on for ever.
            self._expect_head()

    def on_message_begin(self) -> None:
        """Read the head of a request."""
        self._is_in_head = True
        self._passed_on += 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what stands behind a body is none, and nobody asks for it."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body, which is bounded where it is read."""
        self._passed_on += 1
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Let the request be served, unless its head is too large."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if len(self.headers) > MOST_HEADERS or size > MOST_HEADER_BYTES:
            self._is_too_large = True
            raise _TooLargeError
        version = self.parser.get_http_version()
        hosts = sum(name == b"host" for name, _ in self.headers)
        if version not in _VERSIONS or hosts > 1 or (hosts == 0 and version == _VERSIONS[-1]):
            raise _AmbiguousError
        self._is_in_head = False
        self._passed_on += 1
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or too much of it."""
        if self._is_too_large:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def pause_writing(self) -> None:
        """Let the client take what waits for it before more is written."""
        super().pause_writing()
        self._expect_progress()

    def resume_writing(self) -> None:
        """Go on writing."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        super().resume_writing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing in the log: anybody may ask, as often as they like, and gets plain HTTP."""

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self._lose_patience)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]

    def _lose_patience(self) -> None:
        if self._is_in_head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _expect_progress(self) -> None:
        waits = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(self.stall_seconds, self._check_progress, waits)

    def _check_progress(self, waited: int) -> None:
        if self.transport.get_write_buffer_size() < waited:
            self._expect_progress()
        else:
            self.transport.abort()

    def _cancel_timers(self) -> None:
        for timer in (self._head_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()

    def _refuse(self, status: HTTPStatus, text: str = "") -> None:
        """Hang up, with an answer unless it would be taken for that to an earlier request."""
        is_of_body = not self._is_in_head and not self._is_idle() and self.cycle.more_body
        if is_of_body and not self.cycle.response_started and not self.pipeline:
            # Nobody else answers this request any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.transport.write(_answer(status, text))
        elif self._is_idle():
            self.transport.write(_answer(status, text))
        self.transport.close()


def _answer(status: HTTPStatus, text: str) -> bytes:
    code, meaning = {
        HTTPStatus.BAD_REQUEST: ("BAD_REQUEST", text),
        HTTPStatus.REQUEST_TIMEOUT: ("REQUEST_TIMEOUT", "The headers did not arrive in time"),
    }.get(status, ("HEADERS_TOO_LARGE", "The address and the headers are too large together"))
    current = uuid.uuid4().hex
    token = request_id.set(current)
    response = error_response(status, code, meaning, headers={"Connection": "close"})
    request_id.reset(token)
    headers = [*response.raw_headers, (b"x-request-id", current.encode())]
    add_security_headers(headers, "http")
    lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in headers), b"\r\n"]
    return b"".join([*lines, bytes(response.body)])
