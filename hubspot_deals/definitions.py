"""The only place where the parts meet: `dagster … -m hubspot_deals.definitions`."""

import dagster as dg

from hubspot_deals.defs.assets import hubspot_account, scan_assets
from hubspot_deals.defs.jobs import scan_deals
from hubspot_deals.defs.resources import PipelineSettingsResource, build_pipeline_resource
from hubspot_deals.defs.sensors import launch_waiting_scans, remove_scans
from hubspot_deals.sync_defs.server import revive_sync_server


def build_definitions(pipeline: PipelineSettingsResource) -> dg.Definitions:
    """Return the definitions around one set of settings; tests pass their own."""
    return dg.Definitions(
        assets=[hubspot_account, scan_assets],
        jobs=[scan_deals],
        sensors=[launch_waiting_scans, remove_scans, revive_sync_server],
        resources={"pipeline": pipeline},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Read the environment; a missing setting stops the code server with the setting's name."""
    return build_definitions(build_pipeline_resource())
