"""What a run needs from outside. Secrets are resolved at use; Dagster stores only their names."""

from typing import Any, Final

import dagster as dg

from hubspot_deals.settings import PREFIX, PipelineSettings, load_settings

_SECRETS: Final = ("database_url", "encryption_keys")


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
    audit_days: int

    def resolve(self) -> PipelineSettings:
        """Return the settings with their secrets, for use inside a run or a sensor tick."""
        values = {name: getattr(self, name) for name in PipelineSettings.model_fields}
        return PipelineSettings.model_validate(values)


def build_pipeline_resource() -> PipelineSettingsResource:
    """Read the environment; raises ConfigurationError that names what is missing.

    Secrets stay references to the environment, because Dagster shows a resource's values.
    """
    settings = load_settings(PipelineSettings)
    secrets: dict[str, Any] = {name: dg.EnvVar(f"{PREFIX}{name.upper()}") for name in _SECRETS}
    others = settings.model_dump(mode="json", exclude=set(_SECRETS))
    return PipelineSettingsResource(**secrets, **others)
