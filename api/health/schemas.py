"""Bodies of the health check and the statistics."""

from typing import Literal

from pydantic import BaseModel, Field

from api.schemas import Timestamp


class PipelineHealth(BaseModel):
    """The part of the service that extracts deals."""

    pipeline_name: str
    database_health: bool
    supports_checkpoints: bool


class Checks(BaseModel):
    """What the service depends on."""

    database: Literal["ok", "failed"]
    dagster: Literal["ok", "failed"] = Field(
        description="Does not make the service unhealthy: scans are accepted, and launched later."
    )


class Health(BaseModel):
    """Whether the service can do its work."""

    success: bool
    status: Literal["healthy", "unhealthy"]
    timestamp: Timestamp
    service: str
    pipeline: PipelineHealth
    checks: Checks
    message: str | None = None
    error: str | None = Field(default=None, description="Only while unhealthy.")


class Statistics(BaseModel):
    """Counts over all scans, or over one organization's."""

    total_jobs: int
    status_breakdown: dict[str, int] = Field(examples=[{"completed": 120, "running": 5}])
    recent_jobs_7_days: int
    total_records_extracted: int
    organization_filter: str | None
    generated_at: Timestamp
