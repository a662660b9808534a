"""Projects the state of the dependencies and counts scans."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from api.database import ConnectionPool, read
from api.health.meter import Readings
from api.health.probe import Findings
from api.health.schemas import (
    Checks,
    ConnectionCounts,
    Health,
    HealthFacts,
    PipelineHealth,
    Readiness,
    ScanCounts,
    Statistics,
)
from hubspot_deals.contract import DATASET_NAME, SERVICE_NAME
from hubspot_deals.warehouse.scans import get_statistics
from hubspot_deals.warehouse.syncs.overview import list_all_connections

_MEGABYTE: Final = 1_000_000


def describe_health(
    findings: Findings, *, version: str, uptime: timedelta, now: datetime
) -> Health:
    """Return the verdict: without the database nothing works, without Dagster only launching."""
    is_healthy = findings.database_error is None
    status: Literal["healthy", "unhealthy"] = "healthy" if is_healthy else "unhealthy"
    return Health(
        success=is_healthy,
        status=status,
        timestamp=now,
        service=SERVICE_NAME,
        version=version,
        pipeline=PipelineHealth(
            pipeline_name=DATASET_NAME, database_health=is_healthy, supports_checkpoints=True
        ),
        checks=Checks(
            database=_check(findings.database_error),
            external_api=findings.hubspot,
            dagster=_check(findings.dagster_error),
            **findings.parts,
        ),
        data=HealthFacts(
            status=status, version=version, uptime=int(uptime.total_seconds()), timestamp=now
        ),
        message=findings.database_error,
        error=findings.database_error,
    )


def describe_readiness(database_error: str | None) -> Readiness:
    """Return whether requests can be served."""
    return Readiness(
        status="ready" if database_error is None else "unready", database=_check(database_error)
    )


def _check(error: str | None) -> str:
    return "healthy" if error is None else f"unhealthy: {error}"


def describe_process(
    readings: Readings, scans: ScanCounts, connections: ConnectionCounts
) -> Statistics:
    """Put readings into words beside the counts of scans and connections."""
    return Statistics(
        data=scans,
        connections=connections,
        total_requests=readings.requests,
        active_connections=readings.connections,
        success_rate=readings.success_rate,
        average_response_time=readings.average_milliseconds,
        errors_last_hour=readings.errors_last_hour,
        uptime=str(readings.uptime),
        memory_usage=f"{readings.memory_bytes / _MEGABYTE:.0f}MB",
        cpu_usage=f"{readings.cpu_percent:.0f}%",
        last_restart=readings.started_at,
    )


async def count_scans(
    pool: ConnectionPool, organizations: list[str] | None, wanted: str | None
) -> ScanCounts:
    """Count scans of these organizations (None: all), of which one may have been asked for."""
    counts = await read(pool, lambda connection: get_statistics(connection, organizations))
    return ScanCounts(
        total_jobs=counts.total,
        status_breakdown=counts.by_status,
        recent_jobs_7_days=counts.created_in_7_days,
        total_records_extracted=counts.records_extracted,
        organization_filter=wanted,
        generated_at=datetime.now(UTC),
    )


async def count_connections(
    pool: ConnectionPool, organizations: list[str] | None
) -> ConnectionCounts:
    """Count connections of these organizations (None: all), and tell which is the stalest."""
    every = await read(pool, lambda connection: list_all_connections(connection, organizations))
    ages = {
        record.connection_id: record.seconds_old
        for record in every
        if record.is_enabled and record.seconds_old is not None
    }
    stalest = max(ages, key=lambda connection_id: ages[connection_id], default=None)
    return ConnectionCounts(
        total=len(every),
        status_breakdown=dict(Counter(record.status.value for record in every)),
        most_seconds_old=None if stalest is None else ages[stalest],
        stalest_connection=stalest,
    )
