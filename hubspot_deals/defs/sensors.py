"""Safety nets around a scan's run: launch what nobody launched, note what ended unrecorded."""

import dagster as dg

from hubspot_deals.contract import (
    LAUNCH_EPOCH_TAG,
    ORGANIZATION_TAG,
    SCAN_ID_TAG,
    Outcome,
)
from hubspot_deals.defs.jobs import scan_deals
from hubspot_deals.defs.partitions import scans_partitions
from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.warehouse.launches import claim_scans_to_launch, end_unstarted_scan

_PARTITION_TAG = "dagster/partition"
_LAUNCHES_A_TICK = 50


@dg.sensor(
    job=scan_deals,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def launch_accepted_scans(
    context: dg.SensorEvaluationContext, pipeline: PipelineSettingsResource
) -> dg.SensorResult | dg.SkipReason:
    """Launch scans that were accepted while Dagster could not be asked, oldest first."""
    scans = claim_scans_to_launch(pipeline.resolve().database_url, limit=_LAUNCHES_A_TICK)
    if not scans:
        return dg.SkipReason("Every accepted scan has a run.")
    context.log.info("launching %s scans that have no run", len(scans))
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{scan.scan_id}/{scan.epoch}",
                partition_key=scan.scan_id,
                tags={
                    SCAN_ID_TAG: scan.scan_id,
                    ORGANIZATION_TAG: scan.organization_id,
                    LAUNCH_EPOCH_TAG: str(scan.epoch),
                },
            )
            for scan in scans
        ],
        dynamic_partitions_requests=[
            scans_partitions.build_add_request([scan.scan_id for scan in scans])
        ],
    )


@dg.run_failure_sensor(
    monitored_jobs=[scan_deals],
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def fail_scans_that_never_started(
    context: dg.RunFailureSensorContext, pipeline: PipelineSettingsResource
) -> None:
    """Note the failure of a run that ended before it could take its scan up."""
    _end_unstarted(context, pipeline, Outcome.FAILED, "failed before it could start the scan")


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.CANCELED,
    monitored_jobs=[scan_deals],
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def cancel_scans_that_never_started(
    context: dg.RunStatusSensorContext, pipeline: PipelineSettingsResource
) -> None:
    """Note that a run was cancelled while it was still queued."""
    _end_unstarted(context, pipeline, Outcome.CANCELLED, "was cancelled before it started")


def _end_unstarted(
    context: dg.RunStatusSensorContext,
    pipeline: PipelineSettingsResource,
    outcome: Outcome,
    what_happened: str,
) -> None:
    run = context.dagster_run
    scan_id = run.tags.get(_PARTITION_TAG)
    if scan_id is not None:
        message = f"Dagster run {run.run_id} {what_happened}; its log in the Dagster UI says why."
        database_url = pipeline.resolve().database_url
        end_unstarted_scan(database_url, scan_id, run.run_id, outcome, message)
