"""Gathers what Prometheus reads: what this process counted, and what the database knows."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

import psycopg
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.database import ConnectionPool
from api.downloads.service import Downloads
from api.health.meter import RequestMeter
from api.health.probe import HealthProbe
from api.metrics.families import part_families, stored_families
from api.tasks import end_tasks
from hubspot_deals.warehouse.figures import StoredFigures, read_figures

logger = logging.getLogger(__name__)

_KEPT_SECONDS: Final = 5.0
"""Several scrapers, or one in a hurry, cost the database no more than one."""
_TOO_OLD_SECONDS: Final = 60.0
_WAIT_SECONDS: Final = 0.6
_POOL_SECONDS: Final = 0.5


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class Metrics:
    """Answers scrapes within a second, whatever hangs: what is not known is left out."""

    def __init__(self, pool: ConnectionPool, probe: HealthProbe, downloads: Downloads) -> None:
        self._pool = pool
        self._probe = probe
        self._downloads = downloads
        self._reading: asyncio.Task[None] | None = None
        self._stored: StoredFigures | None = None
        self._read_at = 0.0

    async def render(self, meter: RequestMeter) -> bytes:
        """Return everything in Prometheus' text format."""
        findings, _ = await asyncio.gather(self._probe.check(), self._read())
        age = time.monotonic() - self._read_at
        stored = self._stored if age < _TOO_OLD_SECONDS else None
        families = chain(
            meter.registry.collect(),
            self._pool_families(),
            self._download_families(),
            part_families(findings),
            stored_families(stored) if stored else (),
        )
        return generate_latest(_Families(families))

    async def close(self) -> None:
        """Drop a reading that hangs."""
        if self._reading is not None:
            await end_tasks([self._reading])

    async def _read(self) -> None:
        """Read what the database knows, unless that was just done; one reading at a time."""
        if self._reading is None or self._reading.done():
            if time.monotonic() - self._read_at < _KEPT_SECONDS and self._stored:
                return
            self._reading = asyncio.create_task(self._read_stored())
        await asyncio.wait({self._reading}, timeout=_WAIT_SECONDS)

    async def _read_stored(self) -> None:
        try:
            async with self._pool.connection(timeout=_POOL_SECONDS) as connection:
                self._stored = await read_figures(connection)
        except psycopg.Error as error:
            logger.warning("The database's figures are missing: %s", error)
        else:
            self._read_at = time.monotonic()

    def _download_families(self) -> Iterator[Metric]:
        files, size = self._downloads.kept()
        yield GaugeMetricFamily(
            "hubspot_deals_api_download_files",
            "Files for downloads that this process keeps or writes.",
            value=files,
        )
        yield GaugeMetricFamily(
            "hubspot_deals_api_download_bytes",
            "Their bytes.",
            value=size,
        )

    def _pool_families(self) -> Iterator[Metric]:
        found: dict[str, Any] = self._pool.get_stats()
        sizes = GaugeMetricFamily(
            "hubspot_deals_api_pool_connections",
            "Connections of this process to the database.",
            labels=["state"],
        )
        idle = found.get("pool_available", 0)
        sizes.add_metric(["idle"], idle)
        sizes.add_metric(["lent"], found.get("pool_size", 0) - idle)
        yield sizes
        yield GaugeMetricFamily(
            "hubspot_deals_api_pool_limit",
            "Most connections of this process.",
            value=found.get("pool_max", 0),
        )
        yield GaugeMetricFamily(
            "hubspot_deals_api_pool_waiting",
            "Requests that wait for a connection.",
            value=found.get("requests_waiting", 0),
        )
