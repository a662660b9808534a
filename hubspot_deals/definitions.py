"""The only place where the parts meet: `dagster … -m hubspot_deals.definitions`."""

import dagster as dg

from hubspot_deals.defs.assets import hubspot_account, scan_assets
from hubspot_deals.defs.jobs import scan_deals
from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.defs.sensors import (
    cancel_scans_that_never_started,
    fail_scans_that_never_started,
    launch_accepted_scans,
)
from hubspot_deals.settings import PREFIX, PipelineSettings, load_settings


def build_definitions(pipeline: PipelineSettingsResource) -> dg.Definitions:
    """Return the definitions around one set of settings; tests pass their own."""
    return dg.Definitions(
        assets=[hubspot_account, scan_assets],
        jobs=[scan_deals],
        sensors=[
            launch_accepted_scans,
            fail_scans_that_never_started,
            cancel_scans_that_never_started,
        ],
        resources={"pipeline": pipeline},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Read the environment; a missing setting stops the code server with the setting's name.

    Secrets stay references to the environment, because Dagster shows a resource's values.
    """
    settings = load_settings(PipelineSettings)
    return build_definitions(
        PipelineSettingsResource(
            database_url=dg.EnvVar(f"{PREFIX}DATABASE_URL"),
            encryption_keys=dg.EnvVar(f"{PREFIX}ENCRYPTION_KEYS"),
            hubspot_url=str(settings.hubspot_url),
            hubspot_api_version=settings.hubspot_api_version,
            chunk_rows=settings.chunk_rows,
            chunk_seconds=settings.chunk_seconds,
            searches_per_second=settings.searches_per_second,
            request_timeout_seconds=settings.request_timeout_seconds,
            retry_seconds=settings.retry_seconds,
        )
    )
