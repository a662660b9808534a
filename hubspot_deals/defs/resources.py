"""What a run needs from outside. Secrets are resolved at use; Dagster stores only their names."""

import dagster as dg

from hubspot_deals.settings import PipelineSettings


class PipelineSettingsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The pipeline's settings: database, key ring, HubSpot, the size of a chunk, retention."""

    database_url: str
    encryption_keys: str
    hubspot_url: str
    hubspot_api_version: str
    chunk_rows: int
    chunk_seconds: float
    searches_per_second: float
    hubspot_share: float
    request_timeout_seconds: float
    retry_seconds: float
    retention_days: int
    credential_hours: int
    log_format: str
    traces_endpoint: str

    def resolve(self) -> PipelineSettings:
        """Return the settings with their secrets, for use inside a run or a sensor tick."""
        values = {name: getattr(self, name) for name in PipelineSettings.model_fields}
        return PipelineSettings.model_validate(values)
