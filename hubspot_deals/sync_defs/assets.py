"""The assets of a connection: the tables that a sync keeps current, and where they come from."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime
from typing import Any, Final

import dagster as dg

from hubspot_deals import tracing
from hubspot_deals.contract import REQUEST_ID_TAG, SERVICE_NAME, TRACE_PARENT_TAG
from hubspot_deals.defs.failures import (
    build_failure,
    interrupted,
    is_being_terminated,
    secrets_kept,
)
from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.errors import HubSpotDealsError
from hubspot_deals.logs import run_logged
from hubspot_deals.settings import PipelineSettings
from hubspot_deals.sync import SyncOrder, run_sync
from hubspot_deals.sync_contract import CURRENT_SCHEMA, UNTIL_NOW_TAG
from hubspot_deals.sync_defs import checks
from hubspot_deals.sync_defs.metadata import metadata_of
from hubspot_deals.sync_defs.partitions import build_partitions
from hubspot_deals.sync_errors import SyncSupersededError
from hubspot_deals.warehouse.syncs.connections import StoredConnection
from hubspot_deals.warehouse.syncs.tallies import tally

TABLES: Final[Mapping[str, str]] = {
    "deals_current": "Every live deal as it is now: typed standard properties, the rest as sent.",
    "deal_changes": "What was changed about which deal, and when that was noticed.",
    "owners": "Owners, active and archived.",
    "pipelines": "Deal pipelines.",
    "pipeline_stages": "Stages of the deal pipelines with order, probability and whether closed.",
    "deal_stage_history": "When deals entered and left their stages, and how long they stood.",
    "deal_associations": "Contacts, companies and line items of deals, however many.",
    "deal_tombstones": "Deals that are no longer live: why, since when, and what survived them.",
}
hubspot = dg.AssetSpec(
    "hubspot", group_name="hubspot", description="HubSpot's CRM API.", kinds={"hubspot"}
)
_RETRIES: Final = dg.RetryPolicy(
    max_retries=2, delay=20, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)


def pool_of(connection_id: str) -> str:
    """Return the pool in which the runs of a connection take turns, however they were launched."""
    return f"connection_{connection_id}"


def account_spec(connection: StoredConnection) -> dg.AssetSpec:
    """Return the HubSpot account of a connection, which others fill."""
    portal = f"portal {connection.portal_id}" if connection.portal_id else "its access token opens"
    return dg.AssetSpec(
        [connection.connection_id, "hubspot_account"],
        deps=[hubspot],
        group_name=connection.connection_id,
        description=f"The HubSpot account {portal} of organization {connection.organization_id}.",
        kinds={"hubspot"},
    )


def build_tables(connection: StoredConnection) -> dg.AssetsDefinition:
    """Return the tables of a connection: one sync keeps all of them current."""
    connection_id = connection.connection_id

    @dg.multi_asset(
        name=f"read_{connection_id}",
        specs=[_spec(connection_id, name) for name in TABLES],
        check_specs=checks.build_check_specs(connection_id),
        partitions_def=build_partitions(connection),
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=_RETRIES,
        pool=pool_of(connection_id),
    )
    def tables(
        context: dg.AssetExecutionContext, pipeline: PipelineSettingsResource
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        """Bring one HubSpot account's tables up to now, and the run's partitions with them."""
        settings, tags = pipeline.resolve(), context.run.tags
        ids = {"connection_id": connection_id, "run_id": context.run.run_id}
        tracing.configure(settings.traces_endpoint, f"{SERVICE_NAME}_worker")
        with (
            run_logged(settings.log_format, asked_by=tags.get(REQUEST_ID_TAG), ids=ids),
            closing(tracing),
            tracing.span("sync run", parent=tags.get(TRACE_PARENT_TAG), attributes=ids),
            secrets_kept(),
        ):
            yield from _synchronize(context, settings, connection)

    return tables


def _spec(connection_id: str, name: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        [connection_id, name],
        deps=[[connection_id, "hubspot_account"]],
        group_name=connection_id,
        description=TABLES[name],
        kinds={"postgres"},
        metadata={"dagster/table_name": f"{CURRENT_SCHEMA}.{name}"},
    )


def _synchronize(
    context: dg.AssetExecutionContext,
    settings: PipelineSettings,
    connection: StoredConnection,
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    connection_id = connection.connection_id
    order = SyncOrder(connection_id, context.run.run_id, *_window(context))
    try:
        report = run_sync(
            settings,
            order,
            log=context.log,
            is_cancelled=lambda: is_being_terminated(context),
        )
    except SyncSupersededError as error:
        # Nothing failed: another run has taken over, or the connection rests.
        raise interrupted(context, error) from error
    except HubSpotDealsError as error:
        raise build_failure(error) from error
    tallied = tally(settings.database_url, connection.organization_id, connection_id)
    last = context.partition_keys[-1]
    for name in TABLES:
        key = dg.AssetKey([connection_id, name])
        # Whatever stands in the result is stored with each of the run's partitions.
        context.add_asset_metadata(
            metadata_of(report, tallied, name), asset_key=key, partition_key=last
        )
        yield dg.MaterializeResult(asset_key=key)
    yield from checks.check_sync(settings.database_url, connection, report, tallied)


def _window(context: dg.AssetExecutionContext) -> tuple[datetime | None, datetime | None]:
    """Return what the run's partitions cover; neither end for a run that reads up to now.

    The engine would take a window that is over for one to be read again, and read nothing newer.
    """
    if UNTIL_NOW_TAG in context.run.tags:
        return None, None
    window = context.partition_time_window
    return window.start, window.end
