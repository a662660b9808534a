"""Puts figures into the words of Prometheus; `docs/monitoring.md` explains each."""

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from api.health.probe import Findings
from hubspot_deals.contract import ScanStatus
from hubspot_deals.sync_contract import ConnectionStatus, SyncOutcome
from hubspot_deals.warehouse import figures
from hubspot_deals.warehouse.figures import StoredFigures

_PREFIX: Final = "hubspot_deals"
_RUNNING: Final = "running"
_DELIVERY_STATUSES: Final = ("pending", "delivered", "dead")


def part_families(findings: Findings) -> Iterator[Metric]:
    """Tell which parts work; one of which nothing is known is left out."""
    parts = {
        "database": "healthy" if findings.database_error is None else "unhealthy",
        "dagster": "healthy" if findings.dagster_error is None else "unhealthy",
        "hubspot": findings.hubspot,
        **findings.parts,
    }
    up = GaugeMetricFamily(f"{_PREFIX}_part_up", "Whether a part works: 1 or 0.", labels=["part"])
    for name, told in parts.items():
        if not told.startswith("unknown"):
            up.add_metric([name], float(not told.startswith("unhealthy")))
    yield up


def stored_families(stored: StoredFigures) -> Iterator[Metric]:
    """Show what the database knows, the same on every replica."""
    scans = GaugeMetricFamily(f"{_PREFIX}_scans", "Scans by status.", labels=["status"])
    for status in ScanStatus:
        scans.add_metric([status.value], stored.scans.get(status, 0))
    yield scans
    sealed = GaugeMetricFamily(
        f"{_PREFIX}_sealed_secrets",
        "Stored secrets by the key that sealed them.",
        labels=["table", "key_id"],
    )
    for (table, key_id), rows in stored.sealed.items():
        sealed.add_metric([table, key_id], rows)
    yield sealed
    gauges = {
        "oldest_waiting_scan_seconds": ("How long a scan waits for its worker.", "waiting_seconds"),
        "oldest_heartbeat_seconds": ("How long a working run was silent.", "silent_seconds"),
        "stalest_connection_seconds": ("How old the oldest copy of deals is.", "stalest_seconds"),
        "database_bytes": ("Size of the database.", "database_bytes"),
        "database_sessions": ("Sessions of the database server.", "connections"),
        "database_sessions_limit": ("Most sessions that it allows.", "most_connections"),
    }
    for name, (text, attribute) in gauges.items():
        yield GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=getattr(stored, attribute))
    yield from _run_families(stored)
    yield from _sync_families(stored)


def _run_families(stored: StoredFigures) -> Iterator[Metric]:
    runs = CounterMetricFamily(f"{_PREFIX}_runs", "Runs that ended.", labels=["outcome"])
    for (name, label), value in stored.runs.items():
        if name == figures.RUNS:
            runs.add_metric([label], value)
    yield runs
    sums = {
        "deals_read": ("Deals that runs committed.", figures.DEALS),
        "hubspot_requests": ("Requests of runs to HubSpot.", figures.REQUESTS),
        "hubspot_retries": ("Of these, repeated ones.", figures.RETRIES),
        "hubspot_throttled_seconds": ("Waiting for HubSpot's budgets.", figures.THROTTLED),
    }
    for name, (text, stored_as) in sums.items():
        value = stored.runs.get((stored_as, ""), 0.0)
        yield CounterMetricFamily(f"{_PREFIX}_{name}", text, value=value)
    ends = [*(str(end) for end in figures.RUN_SECONDS), figures.INFINITE]
    yield HistogramMetricFamily(
        f"{_PREFIX}_run_seconds",
        "How long runs took.",
        buckets=[(end, stored.runs.get((figures.BUCKETS, end), 0.0)) for end in ends],
        sum_value=stored.runs.get((figures.SECONDS, ""), 0.0),
    )


def _sync_families(stored: StoredFigures) -> Iterator[Metric]:
    connections = GaugeMetricFamily(
        f"{_PREFIX}_connections", "Connections by status.", labels=["status"]
    )
    for status in ConnectionStatus:
        connections.add_metric([status.value], stored.synced.get(status.value, 0))
    yield connections
    runs = GaugeMetricFamily(
        f"{_PREFIX}_sync_runs", "Runs of connections of the last day.", labels=["outcome"]
    )
    for outcome in (*(outcome.value for outcome in SyncOutcome), _RUNNING):
        runs.add_metric([outcome], stored.lately.get((figures.SYNC_RUNS, outcome), 0))
    yield runs
    deliveries = GaugeMetricFamily(
        f"{_PREFIX}_webhook_deliveries",
        "Deliveries to webhooks: all that wait, and those that ended in the last day.",
        labels=["status"],
    )
    for delivery in _DELIVERY_STATUSES:
        value = stored.lately.get((figures.DELIVERIES, delivery), 0)
        deliveries.add_metric([delivery], value)
    yield deliveries
