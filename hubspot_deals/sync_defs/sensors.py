"""The sensors over all connections. What they do is in the modules that they call."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.sync_defs import launching, upkeep, watching
from hubspot_deals.warehouse.syncs.connections import StoredConnection

_RUNNING = dg.DefaultSensorStatus.RUNNING


def build_sensors(
    connections: Sequence[StoredConnection],
    sync_jobs: Sequence[UnresolvedAssetJobDefinition],
    analysis_jobs: Sequence[UnresolvedAssetJobDefinition],
) -> list[dg.SensorDefinition]:
    """Return the sensors; those that launch runs know the connections of this load only."""
    upkeep_sensors = [_reloading_sensor(upkeep.fingerprint(connections)), _removing_sensor()]
    if not connections:
        return upkeep_sensors
    known = frozenset(connection.connection_id for connection in connections)

    @dg.sensor(
        jobs=list(sync_jobs),
        description="Launches first loads, wanted syncs, and what was missed or failed.",
        minimum_interval_seconds=5,
        default_status=_RUNNING,
    )
    def launch_due_syncs(
        context: dg.SensorEvaluationContext, pipeline: PipelineSettingsResource
    ) -> dg.SensorResult | dg.SkipReason:
        """Launch what no schedule does.

        First loads, syncs that somebody asked for, and partitions that were missed or have failed:
        a stretch of them in one run, after pauses that grow with each failure in a row.
        """
        return launching.launch_due(context, pipeline.resolve().database_url, known)

    @dg.sensor(
        jobs=list(analysis_jobs),
        description="Has the views drawn and checked: after a connection's first load, and daily.",
        minimum_interval_seconds=60,
        default_status=_RUNNING,
    )
    def analyse_connections(
        context: dg.SensorEvaluationContext, pipeline: PipelineSettingsResource
    ) -> dg.SensorResult:
        """Have the views of each connection drawn and checked: after its first load, and daily.

        Not after each sync: the views are always current, and to add a million deals up takes
        longer than to synchronize a hundred.
        """
        return watching.launch_analyses(context, pipeline.resolve().database_url, known)

    @dg.sensor(
        description="Repeats the checks that time alone can break. Launches nothing.",
        minimum_interval_seconds=60,
        default_status=_RUNNING,
    )
    def watch_connections(
        context: dg.SensorEvaluationContext, pipeline: PipelineSettingsResource
    ) -> dg.SensorResult:
        """Repeat the checks that time alone can break: whether deals are fresh, and no hole."""
        return watching.report_verdicts(context, pipeline.resolve().database_url, known)

    return [launch_due_syncs, analyse_connections, watch_connections, *upkeep_sensors]


def _reloading_sensor(loaded: str) -> dg.SensorDefinition:
    @dg.sensor(
        description="Loads these definitions anew when connections have changed. Launches nothing.",
        minimum_interval_seconds=30,
        default_status=_RUNNING,
    )
    def follow_connections(pipeline: PipelineSettingsResource) -> dg.SkipReason:
        """Load these definitions anew when connections have come, gone or changed."""
        return upkeep.reload_if_changed(pipeline.resolve().database_url, loaded)

    return follow_connections


def _removing_sensor() -> dg.SensorDefinition:
    @dg.sensor(
        description="Deletes what removed connections have left. Launches nothing.",
        minimum_interval_seconds=30,
        default_status=_RUNNING,
    )
    def remove_connections(
        context: dg.SensorEvaluationContext, pipeline: PipelineSettingsResource
    ) -> dg.SkipReason:
        """Delete what removed connections have left: rows, and Dagster's runs and assets."""
        return upkeep.remove_connections(context, pipeline.resolve().database_url)

    return remove_connections
