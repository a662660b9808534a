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
    """What the service depends on: `healthy`, or `unhealthy: …` or `degraded: …` with the cause.

    `unknown: …` is what cannot be told, because what would tell it does not answer.

    Only the database makes the service unhealthy.
    """

    database: str = Field(examples=["healthy"])
    cache: Literal["not_configured"] = "not_configured"
    external_api: str = Field(
        examples=["healthy"],
        description="Whether HubSpot's address answers, up to half a minute old.",
    )
    dagster: str = Field(
        examples=["healthy"], description="Without it scans are accepted, and launched later."
    )
    daemon: str = Field(
        examples=["healthy"], description="The daemons of Dagster, by their heartbeats."
    )
    code_location: str = Field(
        examples=["healthy"],
        description="Whether Dagster has loaded the pipeline's code; degraded when "
        "only that of the connections' syncs is missing.",
    )
    sensors: str = Field(
        examples=["healthy"], description="What launches and resumes scans that nobody else does."
    )
    run_host: str = Field(
        examples=["healthy"], description="What forks runs; without it they start slower."
    )
    downloads: str = Field(examples=["healthy"], description="The folder for files.")


class Liveness(BaseModel):
    """The process answers; it says nothing of what it depends on."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether requests can be served, for which only the database is needed."""

    status: Literal["ready", "unready"]
    database: str = Field(examples=["healthy"])


class HealthFacts(BaseModel):
    """The same in short."""

    status: Literal["healthy", "unhealthy"]
    version: str
    uptime: int = Field(description="Seconds.")
    timestamp: Timestamp


class Health(BaseModel):
    """Whether the service can do its work."""

    success: bool
    status: Literal["healthy", "unhealthy"]
    timestamp: Timestamp
    service: str
    version: str
    pipeline: PipelineHealth
    checks: Checks
    data: HealthFacts
    message: str | None = None
    error: str | None = Field(default=None, description="Only while unhealthy.")


class ScanCounts(BaseModel):
    """Counts over all scans, or over one organization's."""

    total_jobs: int
    status_breakdown: dict[str, int] = Field(examples=[{"completed": 120, "running": 5}])
    recent_jobs_7_days: int
    total_records_extracted: int
    organization_filter: str | None
    generated_at: Timestamp


class ConnectionCounts(BaseModel):
    """How current the connections are, over all of them or over one organization's."""

    total: int
    status_breakdown: dict[str, int] = Field(examples=[{"current": 3, "paused": 1}])
    most_seconds_old: float | None = Field(
        description="Age of the stalest of them that are enabled and have been loaded; null when "
        "there are none."
    )
    stalest_connection: str | None = Field(description="Which one that is.", examples=["acme"])


class Statistics(BaseModel):
    """What the answering process has done since it started; `data` counts all scans there are."""

    success: Literal[True] = True
    data: ScanCounts
    connections: ConnectionCounts
    total_requests: int
    active_connections: int = Field(description="Open connections of callers.")
    success_rate: float = Field(description="Percent of answers below 500.")
    average_response_time: float = Field(
        description="Milliseconds until an answer began.", examples=[4.2]
    )
    errors_last_hour: int = Field(description="Answers of 500 and above.")
    uptime: str = Field(examples=["7 days, 3:24:15"])
    memory_usage: str = Field(examples=["128MB"])
    cpu_usage: str = Field(description="Of one core, since this was last asked.", examples=["15%"])
    last_restart: Timestamp
