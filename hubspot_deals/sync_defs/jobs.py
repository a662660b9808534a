"""The jobs of a connection: one sync, for one partition or a stretch of them, and its views."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from hubspot_deals.contract import ACCOUNT_TAG, ORGANIZATION_TAG
from hubspot_deals.sync_contract import CONNECTION_TAG, sync_job_name
from hubspot_deals.warehouse.syncs.connections import StoredConnection


def build_sync_job(
    connection: StoredConnection, tables: dg.AssetsDefinition
) -> UnresolvedAssetJobDefinition:
    """Return the job that schedule and sensor launch."""
    text = f"Brings the tables of connection {connection.connection_id} up to now."
    return _build_job(connection, sync_job_name(connection.connection_id), tables, text)


def build_analysis_job(
    connection: StoredConnection, views: dg.AssetsDefinition
) -> UnresolvedAssetJobDefinition:
    """Return the job that looks at the views over a connection's tables."""
    text = f"Draws and checks the views of connection {connection.connection_id}."
    return _build_job(connection, analysis_job_name(connection.connection_id), views, text)


def analysis_job_name(connection_id: str) -> str:
    """Return the name of the job that looks at a connection's views."""
    return f"analyse_tables_of_{connection_id}"


def _build_job(
    connection: StoredConnection, name: str, assets: dg.AssetsDefinition, description: str
) -> UnresolvedAssetJobDefinition:
    account = {ACCOUNT_TAG: connection.account} if connection.account else {}
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(assets) | dg.AssetSelection.checks_for_assets(assets),
        executor_def=dg.in_process_executor,
        tags={
            CONNECTION_TAG: connection.connection_id,
            ORGANIZATION_TAG: connection.organization_id,
            **account,
        },
        description=description,
    )
