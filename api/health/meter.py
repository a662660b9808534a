"""What this process has answered since it started, and what it takes up."""

import math
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import psutil
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

_MINUTES: Final = 60
_COUNT_SECONDS: Final = 1.0
"""How long a number of connections is good: counting reads all sockets of the machine."""
_FAULT: Final = 500
"""The first of the statuses with which a service says that it is at fault itself."""


NO_ROUTE: Final = "none"
"""Of a request whose path nobody serves, or that was refused before its path was looked at."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Readings:
    """What was counted; times in milliseconds, memory in bytes."""

    requests: int
    success_rate: float
    average_milliseconds: float
    errors_last_hour: int
    uptime: timedelta
    started_at: datetime
    memory_bytes: int
    cpu_percent: float
    connections: int


class RequestMeter:
    """Counts answers; its memory does not depend on how many there are."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "hubspot_deals_api_requests",
            "Answers, by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._times = Histogram(
            "hubspot_deals_api_request_seconds",
            "Seconds until an answer began.",
            ["route", "method"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self._started_at = datetime.now(UTC)
        self._began = time.monotonic()
        self._requests = 0
        self._faults = 0
        self._seconds = 0.0
        self._faults_by_minute: deque[tuple[int, int]] = deque(maxlen=_MINUTES)
        self._connections = 0
        self._connections_counted = -math.inf
        self._process = psutil.Process()
        # The first question has no answer: it is the moment from which the second one measures.
        self._process.cpu_percent()

    @property
    def uptime(self) -> timedelta:
        """The whole seconds since the process began to serve."""
        return timedelta(seconds=int(time.monotonic() - self._began))

    def count(
        self, status: int, seconds: float, *, route: str = NO_ROUTE, method: str = "GET"
    ) -> None:
        """Count one answer, with the time until its first byte was sent.

        `route` is the template of the path, `/scan/{scan_id}/status`: ids would be endless.
        """
        known = method if method in _METHODS else "other"
        self._answers.labels(route, known, str(status)).inc()
        self._times.labels(route, known).observe(seconds)
        self._requests += 1
        self._seconds += seconds
        if status < _FAULT:
            return
        self._faults += 1
        minute = self._minute()
        if self._faults_by_minute and self._faults_by_minute[-1][0] == minute:
            minute, earlier = self._faults_by_minute.pop()
            self._faults_by_minute.append((minute, earlier + 1))
        else:
            self._faults_by_minute.append((minute, 1))

    def read(self, port: int | None) -> Readings:
        """Take the readings; `port` is the one that is listened on, of a socket file None."""
        answered = max(self._requests, 1)
        recent = self._minute() - _MINUTES
        return Readings(
            requests=self._requests,
            success_rate=round(100 * (1 - self._faults / answered), 2),
            average_milliseconds=round(1_000 * self._seconds / answered, 2),
            errors_last_hour=sum(n for minute, n in self._faults_by_minute if minute > recent),
            uptime=self.uptime,
            started_at=self._started_at,
            memory_bytes=self._process.memory_info().rss,
            cpu_percent=self._process.cpu_percent(),
            connections=self._count_connections(port),
        )

    def _count_connections(self, port: int | None) -> int:
        now = time.monotonic()
        if now - self._connections_counted < _COUNT_SECONDS:
            return self._connections
        self._connections_counted = now
        self._connections = sum(
            connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port
            for connection in self._process.net_connections("tcp")
        )
        return self._connections

    def _minute(self) -> int:
        return int(time.monotonic() - self._began) // 60
