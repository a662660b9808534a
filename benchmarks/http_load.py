"""A load generator that costs little beside the servers it measures: sockets, epoll, no parser."""

import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import quantiles
from typing import Final
from urllib.parse import urlsplit

_BUFFER_BYTES: Final = 4_000_000
_SILENCE_SECONDS: Final = 30


class HttpError(RuntimeError):
    """A server gave another answer than 200, which this is the beginning of."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(answer[:500])


class Connection:
    """One keep-alive connection with at most one request under way.

    A user in its address, as in `http://KEY@127.0.0.1:8000`, is sent along as API key.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), _SILENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = f"X-API-Key: {parts.username}\r\n" if parts.username else ""
        host = f"{parts.hostname}:{parts.port}"
        self._head = f" HTTP/1.1\r\nHost: {host}\r\n{key}\r\n".encode()
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._filled = 0
        self._body = self._end = 0
        self._asked = 0.0

    def ask(self, target: str) -> None:
        """Send one GET."""
        self._filled = self._end = 0
        self._asked = time.perf_counter()
        self.socket.sendall(b"GET " + target.encode() + self._head)

    def receive(self) -> float | None:
        """Take what has come; the seconds since the request once the answer is whole."""
        received = self.socket.recv_into(self._buffer[self._filled :])
        if received == 0:
            raise ConnectionResetError
        self._filled += received
        if self._end == 0:
            self._read_head()
        return time.perf_counter() - self._asked if self._filled == self._end else None

    def get(self, target: str) -> float:
        """One exchange; its seconds."""
        self.ask(target)
        while (seconds := self.receive()) is None:
            pass
        return seconds

    def body(self) -> bytes:
        """The last answer's body."""
        return bytes(self._buffer[self._body : self._end])

    def _read_head(self) -> None:
        head = bytes(self._buffer[: min(self._filled, 2_000)])
        end = head.find(b"\r\n\r\n")
        if end < 0:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise HttpError(head)
        start = head.lower().find(b"content-length: ") + 16
        self._body = end + 4
        self._end = self._body + int(head[start : head.find(b"\r\n", start)])


@dataclass(frozen=True, slots=True)
class Load:
    """What some seconds of requests came to."""

    per_second: float
    p50: float
    p95: float


def fetch(url: str, target: str) -> bytes:
    """The body of one answer."""
    connection = Connection(url)
    connection.get(target)
    body = connection.body()
    connection.socket.close()
    return body


def throughput(url: str, targets: Sequence[str], *, connections: int, seconds: float) -> Load:
    """Keep so many requests under way for so long."""
    turn = cycle(targets)
    with select.epoll() as poll:
        open_ones = {}
        for _ in range(connections):
            one = Connection(url)
            open_ones[one.socket.fileno()] = one
            poll.register(one.socket.fileno(), select.EPOLLIN)
            one.ask(next(turn))
        times: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            for number, _ in poll.poll(_SILENCE_SECONDS):
                if (took := open_ones[number].receive()) is not None:
                    times.append(took)
                    open_ones[number].ask(next(turn))
        elapsed = time.perf_counter() - began
    for one in open_ones.values():
        one.socket.close()
    return _load(times, elapsed)


def side_by_side(targets: Sequence[tuple[str, Iterator[str]]], *, rounds: int) -> list[Load]:
    """Ask each address in turn, one request at a time: whatever else happens slows all alike."""
    ways = [(Connection(url), turn) for url, turn in targets]
    times: list[list[float]] = [[] for _ in ways]
    for round_number in range(rounds):
        for place in range(len(ways)):
            # Each goes first as often as every other one.
            chosen = (place + round_number) % len(ways)
            connection, turn = ways[chosen]
            times[chosen].append(connection.get(next(turn)))
    for connection, _ in ways:
        connection.socket.close()
    return [_load(seconds, sum(seconds)) for seconds in times]


def _load(times: list[float], elapsed: float) -> Load:
    cuts = quantiles(times, n=20)
    return Load(per_second=len(times) / elapsed, p50=cuts[9], p95=cuts[18])
