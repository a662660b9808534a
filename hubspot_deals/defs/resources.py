"""What a run needs from outside. Secrets are read at use; Dagster is told nothing of them."""

from typing import Final

import dagster as dg

from hubspot_deals import redaction
from hubspot_deals.settings import PipelineSettings, load_settings

_SECRETS: Final = ("database_url", "encryption_keys")


class PipelineSettingsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The pipeline's settings: database, key ring, HubSpot, the size of a chunk, retention."""

    database_url: str | None = None
    encryption_keys: str | None = None
    hubspot_url: str
    hubspot_api_version: str
    chunk_rows: int
    chunk_seconds: float
    searches_per_second: float
    hubspot_share: float
    request_timeout_seconds: float
    retry_seconds: float
    retention_days: int
    audit_days: int
    credential_hours: int
    log_format: str
    traces_endpoint: str

    def resolve(self) -> PipelineSettings:
        """Return the settings with their secrets, for use inside a run or a sensor tick.

        Secrets that it was not made with are those of the environment or its files.
        """
        values = {name: getattr(self, name) for name in PipelineSettings.model_fields}
        given = {name: value for name, value in values.items() if value is not None}
        return PipelineSettings.model_validate(given)


def build_pipeline_resource() -> PipelineSettingsResource:
    """Read the environment; raises ConfigurationError that names what is missing.

    Secrets stay where they are until they are used, because Dagster shows a resource's values.
    """
    settings = load_settings(PipelineSettings)
    redaction.hide_settings(settings.database_url, settings.encryption_keys)
    redaction.install()
    others = settings.model_dump(mode="json", exclude=set(_SECRETS))
    return PipelineSettingsResource(**others)
