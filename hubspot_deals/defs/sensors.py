"""Safety nets around a scan's run: launch what waits, go on with what was interrupted, clean up."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Final

import dagster as dg
from pydantic import SecretStr

from hubspot_deals.contract import (
    ACCOUNT_TAG,
    JOB_NAME,
    LAUNCH_EPOCH_TAG,
    ORGANIZATION_TAG,
    REQUEST_ID_TAG,
    SCAN_ID_TAG,
    SCANS_PARTITIONS,
    TRACE_PARENT_TAG,
    Outcome,
)
from hubspot_deals.defs.jobs import scan_deals
from hubspot_deals.defs.partitions import scans_partitions
from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.warehouse import launches, removal, signs
from hubspot_deals.warehouse.audit_log import delete_old_entries
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.launches import StartedRun, WaitingScan
from hubspot_deals.warehouse.removal import RemovedScan

_RUN_KEY_TAG: Final = "dagster/run_key"
_PARTITION_TAG: Final = "dagster/partition"
_SCANS_A_TICK: Final = 50
_START_SECONDS: Final = 120
"""Longest time from a run's start to its worker's first word."""
_HEARING_SECONDS: Final = 15
"""How long a worker has to hear of a termination."""
_REMOVAL_SECONDS: Final = 20
"""A tick of a sensor that takes over a minute is cut off."""


class NextStep(Enum):
    """What a scan needs that no worker has taken up."""

    LAUNCH = auto()
    WAIT = auto()
    LAUNCH_ANEW = auto()
    CANCEL = auto()


def decide_next_step(status: dg.DagsterRunStatus | None, seconds_since_change: float) -> NextStep:
    """Decide from Dagster's word on the run that was launched for the scan's epoch; None: none."""
    match status:
        case None:
            return NextStep.LAUNCH
        case dg.DagsterRunStatus.QUEUED | dg.DagsterRunStatus.CANCELING:
            return NextStep.WAIT
        case dg.DagsterRunStatus.CANCELED:
            return NextStep.CANCEL
        case dg.DagsterRunStatus.FAILURE | dg.DagsterRunStatus.SUCCESS:
            return NextStep.LAUNCH_ANEW
        case _:
            # Dagster's own launcher never notices that a worker died with its code server.
            is_lost = seconds_since_change > _START_SECONDS
            return NextStep.LAUNCH_ANEW if is_lost else NextStep.WAIT


@dg.sensor(
    job=scan_deals,
    description="Launches scans that wait, and those whose worker died or that rested until now.",
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def launch_waiting_scans(
    context: dg.SensorEvaluationContext, pipeline: PipelineSettingsResource
) -> dg.SensorResult | dg.SkipReason:
    """Launch scans that were accepted while Dagster could not be asked, oldest first.

    Scans whose worker died go on after their last committed chunk, and so do scans that HubSpot's
    daily limit has set aside.
    """
    database_url = pipeline.resolve().database_url
    _show_signs_of_life(context.instance, database_url)
    _look_after_started_runs(context, database_url)
    launches.give_up_silent_workers(database_url)
    for scan_id, run_id in launches.resume_due_scans(database_url):
        context.log.info("scan %s goes on; its last run was %s", scan_id, run_id)
        _free_place(context.instance, run_id)
    claimed = launches.claim_waiting_scans(database_url, limit=_SCANS_A_TICK)
    due: list[WaitingScan] = []
    for scan in claimed:
        match _look_at_run(context.instance, scan):
            case NextStep.LAUNCH, _:
                due.append(scan)
            case NextStep.LAUNCH_ANEW, run_id:
                message = (
                    f"Dagster run {run_id} ended before it could take the scan up; "
                    "its log in the Dagster UI says why."
                )
                context.log.warning("scan %s: %s", scan.scan_id, message)
                launches.launch_anew(database_url, scan, message)
            case NextStep.CANCEL, run_id:
                message = f"Dagster run {run_id} was cancelled before it started."
                launches.end_waiting_scan(database_url, scan, Outcome.CANCELLED, message)
            case _:
                context.log.debug("scan %s waits for its run", scan.scan_id)
    if not due:
        return dg.SkipReason("Every accepted scan has a run.")
    context.log.info("launching %s scans", len(due))
    return dg.SensorResult(
        run_requests=[_build_request(scan) for scan in due],
        dynamic_partitions_requests=[
            scans_partitions.build_add_request([scan.scan_id for scan in due])
        ],
    )


def _show_signs_of_life(instance: dg.DagsterInstance, database_url: SecretStr) -> None:
    """Tell the health check what it cannot ask itself: this sensor, and the host of the runs."""
    faults: dict[str, str | None] = {signs.SENSORS: None}
    is_prompt = getattr(instance.run_launcher, "is_prompt", None)
    if is_prompt is not None:
        faults[signs.RUN_HOST] = None if is_prompt() else "it does not answer"
    signs.show(database_url, faults)


def _look_after_started_runs(context: dg.SensorEvaluationContext, database_url: SecretStr) -> None:
    """Carry out terminations that no worker heard of, and free the places of runs without one.

    Dagster's launcher reaches a worker, and learns of its end, only through the code server that
    started it.
    """
    wanted = dg.RunsFilter(
        statuses=[
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.STARTED,
            dg.DagsterRunStatus.CANCELING,
        ]
    )
    runs = {
        run.run_id: run
        for run in context.instance.get_runs(wanted)
        if _PARTITION_TAG in run.tags and _age(context.instance, run.run_id) > _HEARING_SECONDS
    }
    started = {
        run_id: StartedRun(run_id, run.tags[_PARTITION_TAG], run.job_name == JOB_NAME)
        for run_id, run in runs.items()
    }
    for run_id, run in runs.items():
        if run.status is dg.DagsterRunStatus.CANCELING and launches.cancel_scan_of_run(
            database_url, started[run_id]
        ):
            context.log.info(
                "scan %s is cancelled, as run %s was", run.tags[_PARTITION_TAG], run_id
            )
    old = [
        run for run_id, run in started.items() if _age(context.instance, run_id) > _START_SECONDS
    ]
    for run_id in launches.find_abandoned_runs(database_url, old) if old else []:
        context.log.warning("run %s has no worker any more", run_id)
        _free_place(context.instance, run_id)


def _age(instance: dg.DagsterInstance, run_id: str) -> float:
    """Return the seconds since a run was started; 0 for one that Dagster has not tried to start.

    By the moments of its events: those of its record are in whatever time zone the database has.
    """
    stats = instance.get_run_stats(run_id)
    # As of some version the type says so only of a snapshot.
    moment = getattr(stats, "start_time", None) or getattr(stats, "launch_time", None)
    return time.time() - moment if moment else 0.0


def _free_place(instance: dg.DagsterInstance, run_id: str) -> None:
    """A frozen worker, too, keeps a place that its scan needs to go on; it may write no more."""
    run = instance.get_run_by_id(run_id)
    if run is not None and not run.is_finished:
        instance.report_run_failed(run, "The worker of this run is gone.")


def _look_at_run(instance: dg.DagsterInstance, scan: WaitingScan) -> tuple[NextStep, str]:
    if scan.run_id:
        run = instance.get_run_by_id(scan.run_id)
    else:
        run = next(iter(instance.get_runs(dg.RunsFilter(tags={_RUN_KEY_TAG: scan.run_key}))), None)
    if run is None:
        return decide_next_step(None, 0), ""
    age = _age(instance, run.run_id) or scan.waiting_seconds
    return decide_next_step(run.status, age), run.run_id


def _build_request(scan: WaitingScan) -> dg.RunRequest:
    known = {
        ACCOUNT_TAG: scan.account,
        REQUEST_ID_TAG: scan.request_id,
        TRACE_PARENT_TAG: scan.trace_parent,
    }
    return dg.RunRequest(
        run_key=scan.run_key,
        partition_key=scan.scan_id,
        tags={
            SCAN_ID_TAG: scan.scan_id,
            ORGANIZATION_TAG: scan.organization_id,
            LAUNCH_EPOCH_TAG: str(scan.epoch),
        }
        | {name: value for name, value in known.items() if value},
    )


@dg.sensor(
    description="Deletes what removed scans have left, and what has been kept long enough.",
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def remove_scans(
    context: dg.SensorEvaluationContext, pipeline: PipelineSettingsResource
) -> dg.SkipReason:
    """Delete what is left of removed scans: rows, Dagster's runs with their logs, partition keys.

    With HUBSPOT_DEALS_RETENTION_DAYS it also removes the results of scans that ended so long ago,
    after HUBSPOT_DEALS_CREDENTIAL_HOURS their access tokens, and with HUBSPOT_DEALS_AUDIT_DAYS
    entries of the audit log that are so old.
    """
    settings = pipeline.resolve()
    database_url, give_up_at = settings.database_url, time.monotonic() + _REMOVAL_SECONDS
    if settings.retention_days:
        removal.mark_expired_results(database_url, days_old=settings.retention_days)
    removal.drop_credentials(database_url, hours_old=settings.credential_hours)
    if settings.audit_days:
        with open_connection(database_url) as connection:
            delete_old_entries(connection, days_old=settings.audit_days)
    for removed in removal.find_removed_scans(database_url, limit=_SCANS_A_TICK):
        with _logged(context, f"Dagster still knows of scan {removed.scan_id}"):
            if time.monotonic() < give_up_at and _forget(context.instance, database_url, removed):
                removal.forget_removed_scan(database_url, removed)
    while (seconds := give_up_at - time.monotonic()) > 0:
        claimed = removal.claim_unfinished_removals(database_url, limit=1)
        if not claimed:
            break
        with _logged(context, f"Rows of scan number {claimed[0]} are left"):
            removal.remove_marked_rows(database_url, claimed[0], seconds=seconds)
    return dg.SkipReason("Removing scans needs no run.")


@contextmanager
def _logged(context: dg.SensorEvaluationContext, what: str) -> Iterator[None]:
    """Let one item's failure stop no other; it comes up again in a later tick."""
    try:
        yield
    except Exception:
        context.log.exception(what)


def _forget(instance: dg.DagsterInstance, database_url: SecretStr, removed: RemovedScan) -> bool:
    """Delete what Dagster has under a scan's id; False while a run of it has not ended.

    When a new scan has the id, only runs that surely were the removed one's are deleted.
    """
    wanted = dg.RunsFilter(job_name=JOB_NAME, tags={_PARTITION_TAG: removed.scan_id})
    by_id = {run.run_id: run for run in instance.get_runs(wanted)}
    with removal.locked_id(database_url, removed.scan_id) as is_taken:
        if not is_taken:
            instance.delete_dynamic_partition(SCANS_PARTITIONS, removed.scan_id)
    if is_taken:
        by_id = {}
    # Runs from an asset's own page belong to another job.
    for run_id in removed.run_ids:
        if run := instance.get_run_by_id(run_id):
            by_id[run_id] = run
    for run in by_id.values():
        if run.is_finished:
            # The run last: while it is there, its logs are found again.
            instance.compute_log_manager.delete_logs(prefix=[run.run_id])
            instance.delete_run(run.run_id)
    return all(run.is_finished for run in by_id.values())
