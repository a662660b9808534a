"""The job that carries out one scan."""

import dagster as dg

from hubspot_deals.contract import JOB_NAME
from hubspot_deals.defs.assets import scan_assets

# One step: a process of its own for it would only start Python a second time.
scan_deals = dg.define_asset_job(
    JOB_NAME,
    selection=dg.AssetSelection.assets(scan_assets)
    | dg.AssetSelection.checks_for_assets(scan_assets),
    executor_def=dg.in_process_executor,
    description="Reads the deals of one HubSpot account into PostgreSQL.",
)
