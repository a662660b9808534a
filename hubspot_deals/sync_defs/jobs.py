"""The job of a connection: one sync, for one partition or a stretch of them."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from hubspot_deals.contract import ACCOUNT_TAG, ORGANIZATION_TAG
from hubspot_deals.sync_contract import CONNECTION_TAG, sync_job_name
from hubspot_deals.warehouse.syncs.connections import StoredConnection


def build_sync_job(
    connection: StoredConnection, tables: dg.AssetsDefinition
) -> UnresolvedAssetJobDefinition:
    """Return the job that schedule and sensor launch."""
    return dg.define_asset_job(
        sync_job_name(connection.connection_id),
        selection=_all_of(tables),
        executor_def=dg.in_process_executor,
        tags=_tags(connection),
        description=f"Brings the tables of connection {connection.connection_id} up to now.",
    )


def build_analysis_job(
    connection: StoredConnection, views: dg.AssetsDefinition
) -> UnresolvedAssetJobDefinition:
    """Return the job that looks at the views over a connection's tables."""
    return dg.define_asset_job(
        analysis_job_name(connection.connection_id),
        selection=_all_of(views),
        executor_def=dg.in_process_executor,
        tags=_tags(connection),
        description=f"Draws and checks the views of connection {connection.connection_id}.",
    )


def analysis_job_name(connection_id: str) -> str:
    """Return the name of the job that looks at a connection's views."""
    return f"analyse_tables_of_{connection_id}"


def _all_of(assets: dg.AssetsDefinition) -> dg.AssetSelection:
    return dg.AssetSelection.assets(assets) | dg.AssetSelection.checks_for_assets(assets)


def _tags(connection: StoredConnection) -> dict[str, str]:
    account = {ACCOUNT_TAG: connection.account} if connection.account else {}
    return {
        CONNECTION_TAG: connection.connection_id,
        ORGANIZATION_TAG: connection.organization_id,
        **account,
    }
