"""Figures for monitoring: sums that ended runs have left, and counts of what is stored now.

Workers live for seconds, so nobody could ask them. Each adds what it did to rows of PostgreSQL when
it ends; the API shows the sums, every replica the same.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.rows import dict_row

from hubspot_deals.errors import (
    DatabaseLostError,
    LeaseLostError,
    LoadFailedError,
    ScanPausedError,
)
from hubspot_deals.warehouse.leases import Lease
from hubspot_deals.warehouse.rotation import SEALED_TABLES
from hubspot_deals.warehouse.scans import get_statistics
from hubspot_deals.warehouse.signs import Sign, read_signs
from hubspot_deals.warehouse.states import IS_HELD, IS_UNFINISHED, IS_VISIBLE
from hubspot_deals.warehouse.syncs.overview import list_all_connections

logger = logging.getLogger(__name__)

RUN_SECONDS: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0)
"""Upper ends of the buckets into which runs fall by how long they took."""
INFINITE: Final = "+Inf"

RUNS: Final = "runs"
SECONDS: Final = "run_seconds"
BUCKETS: Final = "run_seconds_bucket"
DEALS: Final = "deals"
REQUESTS: Final = "hubspot_requests"
RETRIES: Final = "hubspot_retries"
THROTTLED: Final = "hubspot_throttled_seconds"

SYNC_RUNS: Final = "sync_runs"
DELIVERIES: Final = "webhook_deliveries"


@dataclass(slots=True)
class RunFigures:
    """What one run did; seconds are of the wall clock."""

    outcome: str = "failed"
    seconds: float = 0.0
    deals: int = 0
    requests: int = 0
    retries: int = 0
    throttled_seconds: float = 0.0


def add_run(connection: Connection[Any], run: RunFigures) -> None:
    """Add a run to the sums; a database that is gone loses the figures, not the run."""
    fitting = [str(end) for end in RUN_SECONDS if run.seconds <= end]
    values = {
        (RUNS, run.outcome): 1.0,
        (SECONDS, ""): run.seconds,
        (DEALS, ""): float(run.deals),
        (REQUESTS, ""): float(run.requests),
        (RETRIES, ""): float(run.retries),
        (THROTTLED, ""): run.throttled_seconds,
        **{(BUCKETS, end): 1.0 for end in (*fitting, INFINITE)},
    }
    with connection.transaction(), connection.cursor() as cursor:
        # In one order for all, so that two runs that end at once wait for each other only once.
        cursor.executemany(
            "INSERT INTO hubspot_deals.run_figures AS f (name, label, value) VALUES (%s, %s, %s)"
            " ON CONFLICT (name, label) DO UPDATE SET value = f.value + EXCLUDED.value",
            [(name, label, value) for (name, label), value in sorted(values.items())],
        )


@contextmanager
def counted(lease: Lease) -> Iterator[RunFigures]:
    """Add to the sums for monitoring what a run did, however it ended."""
    figures, began = RunFigures(), time.monotonic()
    try:
        yield figures
        figures.outcome = "completed"
    except BaseException as error:
        figures.outcome = _outcome_of(error)
        raise
    finally:
        figures.seconds = time.monotonic() - began
        facts = {name: getattr(figures, name) for name in ("outcome", "deals", "requests")}
        logger.info("run ended", extra={**facts, "seconds": round(figures.seconds, 3)})
        with suppress(psycopg.Error):
            add_run(lease.connection, figures)


def _outcome_of(error: BaseException) -> str:
    match error:
        case ScanPausedError():
            return "paused"
        case LeaseLostError():
            return "superseded"
        case LoadFailedError() | DatabaseLostError():
            return "interrupted"
        case Exception():
            return "failed"
        case _:
            return "terminated"


@dataclass(frozen=True, slots=True)
class StoredFigures:
    """What the database knows; seconds and bytes."""

    scans: Mapping[str, int]
    runs: Mapping[tuple[str, str], float]
    signs: Mapping[str, Sign]
    sealed: Mapping[tuple[str, str], int]
    """How many rows of a table each key has sealed."""
    synced: Mapping[str, int]
    """Connections by status."""
    stalest_seconds: float
    """Age of what is stored of the stalest connection that is enabled and has been loaded."""
    lately: Mapping[tuple[str, str], float]
    """Runs of connections by outcome, and deliveries to webhooks by status, of the last day."""
    waiting_seconds: float
    silent_seconds: float
    database_bytes: int
    connections: int
    most_connections: int


async def read_figures(connection: AsyncConnection[Any]) -> StoredFigures:
    """Read everything that is shown, in seven short statements."""
    counts = await get_statistics(connection)
    runs = await _pairs(connection, "SELECT name, label, value FROM hubspot_deals.run_figures")
    sealed = await _pairs(
        connection,
        " UNION ALL ".join(
            f"SELECT '{table.name}', key_id, count(*) FROM hubspot_deals.{table.name} GROUP BY 2"
            for table in SEALED_TABLES
        ),
    )
    connected = await list_all_connections(connection, None)
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(_MOMENTS)
    moments = await cursor.fetchone() or {}
    return StoredFigures(
        scans=counts.by_status,
        runs=runs,
        signs=await read_signs(connection),
        sealed={pair: int(rows) for pair, rows in sealed.items()},
        synced=Counter(one.status.value for one in connected),
        stalest_seconds=max(
            (one.seconds_old or 0 for one in connected if one.is_enabled), default=0
        ),
        lately=await _pairs(connection, _LATELY),
        **moments,
    )


async def _pairs(connection: AsyncConnection[Any], statement: str) -> dict[tuple[str, str], float]:
    found = await connection.execute(statement.encode())
    rows: Sequence[tuple[str, str, float]] = await found.fetchall()
    return {(name, label): float(value) for name, label, value in rows}


# Each part by an index: the logs behind them grow for as long as they are kept.
_LATELY: Final = f"""
    SELECT '{SYNC_RUNS}', coalesce(r.outcome, 'running'), count(*)
    FROM hubspot_deals.connections c CROSS JOIN LATERAL (
        SELECT outcome, started_at FROM hubspot_deals.sync_runs
        WHERE connection_id = c.connection_id ORDER BY run_no DESC LIMIT 100
    ) r WHERE c.removed_at IS NULL AND r.started_at > now() - interval '1 day' GROUP BY 2
    UNION ALL
    SELECT '{DELIVERIES}', status, count(*) FROM hubspot_deals.webhook_deliveries
    WHERE status = 'pending' GROUP BY 2
    UNION ALL
    SELECT '{DELIVERIES}', status, count(*) FROM hubspot_deals.webhook_deliveries
    WHERE status <> 'pending' AND ended_at > now() - interval '1 day' GROUP BY 2
"""
_MOMENTS: Final = f"""
    SELECT coalesce(max(extract(epoch FROM now() - coalesce(s.resuming_since, s.restarted_at,
            s.created_at))) FILTER (WHERE s.requested = 'run'
            AND s.worker_epoch IS DISTINCT FROM s.epoch), 0)::float AS waiting_seconds,
        coalesce(max(extract(epoch FROM now() - s.heartbeat_at)) FILTER (WHERE {IS_HELD}), 0)::float
            AS silent_seconds,
        pg_database_size(current_database()) AS database_bytes,
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
            AS connections,
        current_setting('max_connections')::int AS most_connections
    FROM hubspot_deals.scans s WHERE {IS_VISIBLE} AND {IS_UNFINISHED}
"""
