"""The only place where the parts meet: `dagster … -m hubspot_deals.definitions`."""

from typing import Any, Final

import dagster as dg

from hubspot_deals import redaction
from hubspot_deals.defs.assets import hubspot_account, scan_assets
from hubspot_deals.defs.jobs import scan_deals
from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.defs.sensors import launch_waiting_scans, remove_scans
from hubspot_deals.settings import PREFIX, PipelineSettings, load_settings

_SECRETS: Final = ("database_url", "encryption_keys")


def build_definitions(pipeline: PipelineSettingsResource) -> dg.Definitions:
    """Return the definitions around one set of settings; tests pass their own."""
    return dg.Definitions(
        assets=[hubspot_account, scan_assets],
        jobs=[scan_deals],
        sensors=[launch_waiting_scans, remove_scans],
        resources={"pipeline": pipeline},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Read the environment; a missing setting stops the code server with the setting's name.

    Secrets stay references to the environment, because Dagster shows a resource's values.
    """
    settings = load_settings(PipelineSettings)
    redaction.hide_settings(settings.database_url, settings.encryption_keys)
    redaction.install()
    secrets: dict[str, Any] = {name: dg.EnvVar(f"{PREFIX}{name.upper()}") for name in _SECRETS}
    others = settings.model_dump(mode="json", exclude=set(_SECRETS))
    return build_definitions(PipelineSettingsResource(**secrets, **others))
