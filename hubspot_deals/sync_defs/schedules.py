"""The schedule of a connection: a sync at the end of each of its partitions."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.sync_defs.partitions import build_partitions, complete_windows, keys_within
from hubspot_deals.warehouse.syncs.connections import StoredConnection
from hubspot_deals.warehouse.syncs.launches import is_enabled


def build_schedule(
    connection: StoredConnection, job: UnresolvedAssetJobDefinition
) -> dg.ScheduleDefinition:
    """Return the schedule, which runs from the moment a connection is made.

    Dagster's own way to build it from the job asks nobody; a paused connection is skipped here.
    """
    connection_id, partitions = connection.connection_id, build_partitions(connection)

    @dg.schedule(
        name=f"{job.name}_{connection.settings.cadence.value}",
        job=job,
        cron_schedule=partitions.get_cron_schedule(),
        execution_timezone=connection.settings.time_zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Synchronizes connection {connection_id} when a partition has ended.",
    )
    def sync_schedule(
        context: dg.ScheduleEvaluationContext, pipeline: PipelineSettingsResource
    ) -> dg.RunRequest | dg.SkipReason:
        if not is_enabled(pipeline.resolve().database_url, connection_id):
            return dg.SkipReason("The connection is paused or was removed.")
        complete = complete_windows(partitions, context.scheduled_execution_time)
        if complete is None:
            return dg.SkipReason("No partition is over yet.")
        key = keys_within(partitions, complete.start, complete.end).end
        return dg.RunRequest(run_key=f"{connection_id}/{key}", partition_key=key)

    return sync_schedule
