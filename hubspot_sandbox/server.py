"""HTTP/1.1 over asyncio, small enough to spoil a reply on purpose (reset, cut, wrong length)."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, cast

import httptools

from hubspot_sandbox.messages import Mangle, Reply, Request

Application = Callable[[Request], Reply]
_LOGGER: Final = logging.getLogger(__name__)
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


class _DateHeader:
    """The Date header by the sandbox's clock, rendered once a second."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._second = 0
        self._text = b""

    def text(self) -> bytes:
        """The header's value."""
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._text = formatdate(second, usegmt=True).encode()
        return self._text


def render_head(reply: Reply, length: int | None, date: bytes) -> bytes:
    """Status line and headers; no length means a chunked body."""
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"".join(
        (
            b"HTTP/1.1 %d %b\r\n" % (reply.status, _REASONS.get(reply.status, b"Unknown")),
            b"Date: %b\r\nContent-Type: %b\r\n%b\r\n" % (date, reply.content_type, framing),
            b"Connection: close\r\n" if reply.close else b"Connection: keep-alive\r\n",
            b"Vary: Accept-Encoding\r\nServer: cloudflare\r\nCF-Cache-Status: DYNAMIC\r\n",
            reply.headers,
            b"\r\n",
        )
    )


class HttpConnection(asyncio.Protocol):
    """One client connection: answers its requests in order, one at a time."""

    def __init__(
        self, application: Application, connections: set["HttpConnection"], date: _DateHeader
    ) -> None:
        self._application = application
        self._date = date
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Request] = deque()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._streaming: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.on_message_begin()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Forget what was still to be said."""
        self._transport = None
        self._connections.discard(self)
        self._writable.set()
        if self._timer:
            self._timer.cancel()
        if self._streaming:
            self._streaming.cancel()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a client that does not speak HTTP is cut off."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.abort()
        except httptools.HttpParserError:
            self._write(Reply(HTTPStatus.BAD_REQUEST, close=True))

    def pause_writing(self) -> None:
        """Hold the stream."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let the stream go on."""
        self._writable.set()

    def abort(self) -> None:
        """End at once, without a goodbye."""
        if self._transport:
            self._transport.abort()

    # -- httptools callbacks

    def on_message_begin(self) -> None:
        """Start a fresh request."""
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        """Collect the target; long ones come in pieces."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        """Collect the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer now, or after the answers that are still owed."""
        request = Request(
            method=self._parser.get_method().decode("latin-1"),
            target=self._target,
            headers=self._headers,
            body=b"".join(self._body),
            keep_alive=self._parser.should_keep_alive(),
        )
        if self._busy:
            self._waiting.append(request)
        else:
            self._answer(request)

    # -- replies

    def _answer(self, request: Request) -> None:
        self._busy = True
        try:
            reply = self._application(request)
        except Exception:
            # The parser would swallow it: a bug here must be loud, and still answer the client.
            _LOGGER.exception("A request broke the sandbox.")
            reply = Reply(HTTPStatus.INTERNAL_SERVER_ERROR)
        reply.close = reply.close or not request.keep_alive
        if reply.delay > 0:
            self._timer = self._loop.call_later(reply.delay, self._write, reply)
        else:
            self._write(reply)

    def _write(self, reply: Reply) -> None:
        if self._transport is None:
            return
        if isinstance(reply.body, bytes):
            self._write_whole(self._transport, reply, reply.body)
        else:
            self._streaming = self._loop.create_task(
                self._stream(self._transport, reply, reply.body)
            )

    def _write_whole(self, transport: asyncio.Transport, reply: Reply, body: bytes) -> None:
        if reply.mangle is Mangle.RESET:
            transport.abort()
        elif reply.mangle is Mangle.CUT_BODY:
            # The declared length is never reached: the client must notice the missing half.
            transport.write(self._head(reply, len(body)) + body[: len(body) // 2])
            transport.close()
        elif reply.mangle is Mangle.WRONG_LENGTH:
            transport.write(self._head(reply, max(0, len(body) - 7)) + body)
            transport.close()
        else:
            transport.write(self._head(reply, len(body)) + body)
            self._next(transport, reply)

    async def _stream(
        self, transport: asyncio.Transport, reply: Reply, chunks: Iterator[bytes]
    ) -> None:
        transport.write(self._head(reply, None))
        for chunk in chunks:
            transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await self._writable.wait()
            # Other connections get their turn between chunks.
            await asyncio.sleep(0)
        transport.write(b"0\r\n\r\n")
        self._streaming = None
        self._next(transport, reply)

    def _head(self, reply: Reply, length: int | None) -> bytes:
        return render_head(reply, length, self._date.text())

    def _next(self, transport: asyncio.Transport, reply: Reply) -> None:
        self._busy = False
        if reply.close:
            transport.close()
        elif self._waiting:
            self._answer(self._waiting.popleft())


async def serve(  # noqa: PLR0913
    application: Application,
    *,
    host: str,
    port: int,
    stop: asyncio.Event,
    on_ready: Callable[[int], None],
    now: Callable[[], float] = time.time,
) -> None:
    """Listen until `stop` is set, then drop whatever is still connected."""
    connections: set[HttpConnection] = set()
    date = _DateHeader(now)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: HttpConnection(application, connections, date), host, port, backlog=512
    )
    try:
        on_ready(server.sockets[0].getsockname()[1])
        await stop.wait()
    finally:
        server.close()
        for connection in tuple(connections):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), timeout=1)
