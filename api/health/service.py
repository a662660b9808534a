"""Projects the state of the dependencies and counts scans."""

from datetime import UTC, datetime

from api.database import ConnectionPool, read
from api.health.probe import Findings
from api.health.schemas import Checks, Health, PipelineHealth, Statistics
from hubspot_deals.contract import DATASET_NAME, SERVICE_NAME
from hubspot_deals.warehouse.scans import get_statistics


def describe_health(findings: Findings, now: datetime) -> Health:
    """Return the verdict: without the database nothing works, without Dagster only launching."""
    is_healthy = findings.database_error is None
    return Health(
        success=is_healthy,
        status="healthy" if is_healthy else "unhealthy",
        timestamp=now,
        service=SERVICE_NAME,
        pipeline=PipelineHealth(
            pipeline_name=DATASET_NAME, database_health=is_healthy, supports_checkpoints=True
        ),
        checks=Checks(
            database="ok" if is_healthy else "failed",
            dagster="ok" if findings.dagster_error is None else "failed",
        ),
        message=findings.database_error,
        error=findings.database_error,
    )


async def count_scans(pool: ConnectionPool, organization_id: str | None) -> Statistics:
    """Count scans and what they extracted."""
    counts = await read(pool, lambda connection: get_statistics(connection, organization_id))
    return Statistics(
        total_jobs=counts.total,
        status_breakdown=counts.by_status,
        recent_jobs_7_days=counts.created_in_7_days,
        total_records_extracted=counts.records_extracted,
        organization_filter=organization_id,
        generated_at=datetime.now(UTC),
    )
