"""What a run needs from outside. Secrets are resolved at use; Dagster stores only their names."""

import dagster as dg
from pydantic import HttpUrl, SecretStr

from hubspot_deals.settings import PipelineSettings


class PipelineSettingsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The pipeline's settings: database, key ring, HubSpot and the size of a chunk."""

    database_url: str
    encryption_keys: str
    hubspot_url: str
    hubspot_api_version: str
    chunk_rows: int
    chunk_seconds: float
    searches_per_second: float
    request_timeout_seconds: float
    retry_seconds: float

    def resolve(self) -> PipelineSettings:
        """Return the settings with their secrets, for use inside a run or a sensor tick."""
        return PipelineSettings(
            database_url=SecretStr(self.database_url),
            encryption_keys=SecretStr(self.encryption_keys),
            hubspot_url=HttpUrl(self.hubspot_url),
            hubspot_api_version=self.hubspot_api_version,
            chunk_rows=self.chunk_rows,
            chunk_seconds=self.chunk_seconds,
            searches_per_second=self.searches_per_second,
            request_timeout_seconds=self.request_timeout_seconds,
            retry_seconds=self.retry_seconds,
        )
