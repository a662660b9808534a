"""Receivers of webhooks, of every kind, on loopback; and a count of where sockets connect to."""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

_connects: list[tuple] | None = None


def _watch(event, arguments):
    if event == "socket.connect" and _connects is not None and isinstance(arguments[1], tuple):
        _connects.append(arguments[1][:2])


_is_watching = threading.Event()


@contextmanager
def recorded_connects():
    """Yield the list of (address, port) that any socket of this process connects to meanwhile."""
    global _connects  # noqa: PLW0603 - a hook cannot be taken away again
    if not _is_watching.is_set():
        sys.addaudithook(_watch)
        _is_watching.set()
    _connects = recorded = []
    try:
        yield recorded
    finally:
        _connects = None


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader = field(repr=False)


Behaviour = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    """An HTTP server that answers as it is told to, and remembers every connection and request."""

    behaviour: Behaviour
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    most_at_once: int = 0
    port: int = 0

    def url(self, path="/", host="127.0.0.1", scheme="http"):
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, reader, writer):
        self.connections += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                request = await read_request(reader)
                self.requests.append(request)
                await self.behaviour(request, writer)
            finally:
                self.at_once -= 1
                writer.close()


async def read_request(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *fields = head.strip().split("\r\n")
    pairs = (field.split(": ", 1) for field in fields)
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(line, headers, body, reader)


@asynccontextmanager
async def receiving(behaviour, host="127.0.0.1", tls=None):
    """Serve a behaviour on a free port of an address."""
    receiver = Receiver(behaviour)
    server = await asyncio.start_server(receiver.serve, host, 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


def answering(status=200, body=b"ok", **headers):
    """A receiver that answers at once."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"

    async def behave(_, writer):
        writer.write(head + body)
        await writer.drain()

    return behave


async def hanging(request, _):
    """Take the request and say nothing until the other side goes."""
    await request.reader.read()


async def cutting_off(_, writer):
    writer.transport.abort()


async def talking_nonsense(_, writer):
    writer.write(b"\x00\xff SSH-2.0-OpenSSH_9.0\r\n" * 50)
    await writer.drain()


async def never_ending_head(_, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        writer.write(b"X-Header-%d: %s\r\n" % (number, b"x" * 1_000))
        await writer.drain()


async def never_ending_body(_, writer):
    """Say yes, and then more than anybody wants to hear."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(100_000):
        writer.write(b"y" * 100_000)
        await writer.drain()


async def dripping_body(_, writer):
    writer.write(b"HTTP/1.1 204 OK\r\nContent-Length: 100000\r\n\r\n".replace(b"204", b"200"))
    for _ in range(100_000):
        writer.write(b"y")
        await writer.drain()
        await asyncio.sleep(0.2)
