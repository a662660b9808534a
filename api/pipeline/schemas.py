"""Body of the pipeline description."""

from pydantic import BaseModel, Field


class PipelineInfo(BaseModel):
    """What extracts the deals, and where they go."""

    pipeline_name: str
    destination_type: str
    working_dir: str
    dataset_name: str
    is_active: bool = Field(description="Whether a scan that is started now would run now.")
    source_type: str
    uses_api_service: bool
    configuration_method: str
    database_health: bool
    supports_checkpoints: bool
    error: str | None
