"""The safety nets around a run, on real Dagster records and real scan rows."""

import time
import uuid

import dagster as dg
import pytest
from pydantic import SecretStr

from hubspot_deals.contract import (
    ACCOUNT_TAG,
    LAUNCH_EPOCH_TAG,
    ORGANIZATION_TAG,
    SCAN_ID_TAG,
    ScanStatus,
)
from hubspot_deals.defs.sensors import NextStep, decide_next_step, launch_waiting_scans
from hubspot_deals.warehouse.leases import hold_lease


@pytest.fixture
def release(change):
    """Lets go of the claims under which the REST facade accepted scans."""

    def release():
        change("UPDATE hubspot_deals.scans SET launch_claimed_until = NULL")

    return release


@pytest.fixture
def tick(instance, definitions):
    """One tick of the launching sensor."""

    def tick():
        resources = {"pipeline": definitions.resources["pipeline"]}
        with dg.build_sensor_context(instance=instance, resources=resources) as context:
            return launch_waiting_scans(context)

    return tick


@pytest.fixture
def dagster_run(instance):
    """Puts a run for a scan's epoch into Dagster's records, as this sensor asks for it."""

    def dagster_run(status, scan_id="scan-1", epoch=0, seq=1):
        run = dg.DagsterRun(
            job_name="scan_deals",
            run_id=str(uuid.uuid4()),
            status=status,
            tags={"dagster/run_key": f"{scan_id}/{seq}/{epoch}"},
        )
        return instance.add_run(run).run_id

    return dagster_run


def begin(instance, run_id, seconds_ago):
    """Let a run have been started so long ago, by its events."""
    event = dg.DagsterEvent(event_type_value="PIPELINE_START", job_name="scan_deals")
    instance.event_log_storage.store_event(
        dg.EventLogEntry(
            error_info=None,
            level=20,
            user_message="",
            run_id=run_id,
            timestamp=time.time() - seconds_ago,
            dagster_event=event,
        )
    )


def launched(result):
    if isinstance(result, dg.SkipReason):
        return []
    return [request.partition_key for request in result.run_requests or []]


def test_accepted_scans_are_launched_in_order_with_their_partitions(accept, release, tick):
    names = ["b", "a", "c"]
    for name in names:
        accept(name)
    release()
    result = tick()
    assert launched(result) == names
    (added,) = result.dynamic_partitions_requests
    assert (added.partitions_def_name, list(added.partition_keys)) == ("scans", names)
    request = result.run_requests[0]
    assert request.run_key.startswith("b/")
    assert {
        key: request.tags[key] for key in (SCAN_ID_TAG, ORGANIZATION_TAG, LAUNCH_EPOCH_TAG)
    } == {
        SCAN_ID_TAG: "b",
        ORGANIZATION_TAG: "org-1",
        LAUNCH_EPOCH_TAG: "0",
    }
    # One token, one account: its runs can be limited together.
    assert len({request.tags[ACCOUNT_TAG] for request in result.run_requests}) == 1


def test_a_second_tick_launches_nothing_twice(accept, release, tick):
    accept("first")
    release()
    assert launched(tick()) == ["first"]
    assert launched(tick()) == []


def test_a_claim_that_ran_out_is_taken_over(accept, change, tick):
    accept("left")
    assert launched(tick()) == []
    change("UPDATE hubspot_deals.scans SET launch_claimed_until = now() - interval '1 second'")
    assert launched(tick()) == ["left"]


def test_scans_that_have_a_worker_or_an_end_or_rest_are_left_alone(
    accept, change, release, tick, settings
):
    for name in ("has-ended", "is-running", "is-paused", "is-removed", "waits"):
        accept(name)
    release()
    change("UPDATE hubspot_deals.scans SET outcome = 'cancelled' WHERE scan_id = 'has-ended'")
    change("UPDATE hubspot_deals.scans SET requested = 'pause' WHERE scan_id = 'is-paused'")
    change(
        "UPDATE hubspot_deals.scans SET removal = 'scan', results_removed_at = now()"
        " WHERE scan_id = 'is-removed'"
    )
    with hold_lease(settings.database_url, "is-running", "r3", launch_epoch=None):
        assert launched(tick()) == ["waits"]


def test_a_launched_request_runs_the_scan(accept, release, tick, run_job, look_up):
    accept()
    release()
    (request,) = tick().run_requests
    assert run_job(tags=dict(request.tags)).success
    assert look_up().status is ScanStatus.COMPLETED
    assert [attempt["why"] for attempt in look_up().attempts] == ["start"]


@pytest.mark.parametrize(
    ("status", "seconds", "step"),
    [
        (None, 0, NextStep.LAUNCH),
        ("QUEUED", 100_000, NextStep.WAIT),
        ("NOT_STARTED", 1, NextStep.WAIT),
        ("NOT_STARTED", 1_000, NextStep.LAUNCH_ANEW),
        ("MANAGED", 1, NextStep.WAIT),
        ("STARTING", 1, NextStep.WAIT),
        ("STARTING", 1_000, NextStep.LAUNCH_ANEW),
        ("STARTED", 1, NextStep.WAIT),
        ("STARTED", 1_000, NextStep.LAUNCH_ANEW),
        ("CANCELING", 1_000, NextStep.WAIT),
        ("CANCELED", 1, NextStep.CANCEL),
        ("FAILURE", 1, NextStep.LAUNCH_ANEW),
        ("SUCCESS", 1, NextStep.LAUNCH_ANEW),
    ],
)
def test_every_word_of_dagster_has_a_next_step(status, seconds, step):
    known = dg.DagsterRunStatus(status) if status else None
    assert decide_next_step(known, seconds) is step


def test_every_status_of_dagster_is_decided():
    assert all(decide_next_step(status, 0) for status in dg.DagsterRunStatus)


def test_a_scan_whose_run_dagster_still_has_is_not_launched_again(
    accept, release, tick, dagster_run
):
    accept()
    # A queued run's record needs more of Dagster than a test has; CANCELING waits likewise.
    dagster_run(dg.DagsterRunStatus.CANCELING)
    release()
    assert launched(tick()) == []


def test_a_run_that_died_before_it_began_is_launched_anew_as_often_as_the_limit_says(
    accept, release, tick, dagster_run, change, look_up
):
    accept()
    change("UPDATE hubspot_deals.scans SET auto_resume_limit = 2")
    for epoch in (0, 1):
        dagster_run(dg.DagsterRunStatus.FAILURE, epoch=epoch)
        release()
        assert launched(tick()) == []
        assert look_up().status is ScanStatus.PENDING
        (request,) = tick().run_requests
        assert request.tags[LAUNCH_EPOCH_TAG] == str(epoch + 1)
    run_id = dagster_run(dg.DagsterRunStatus.FAILURE, epoch=2)
    release()
    assert launched(tick()) == []
    scan = look_up()
    assert scan.status is ScanStatus.FAILED
    assert run_id in scan.error_message


def test_a_run_that_is_cancelled_in_the_queue_cancels_its_scan(
    accept, release, tick, dagster_run, look_up
):
    accept()
    run_id = dagster_run(dg.DagsterRunStatus.CANCELED)
    release()
    assert launched(tick()) == []
    scan = look_up()
    assert scan.status is ScanStatus.CANCELLED
    assert run_id in scan.error_message


def test_a_run_of_a_removed_scan_of_the_same_id_is_not_taken_for_the_new_ones(
    accept, release, tick, dagster_run
):
    dagster_run(dg.DagsterRunStatus.CANCELED, seq=99)
    accept()
    release()
    assert launched(tick()) == ["scan-1"]


def test_a_run_that_the_api_launched_is_known_by_its_id(
    accept, release, tick, dagster_run, change, look_up
):
    accept()
    run_id = dagster_run(dg.DagsterRunStatus.CANCELED, seq=99)
    change("UPDATE hubspot_deals.scans SET run_id = %s", run_id)
    release()
    assert launched(tick()) == []
    assert look_up().status is ScanStatus.CANCELLED


def test_a_crashed_scan_goes_on_by_itself_as_often_as_the_limit_says(
    accept, tick, change, look_up, settings
):
    accept()
    change("UPDATE hubspot_deals.scans SET auto_resume_limit = 2")
    for times in range(3):
        scan = look_up()
        with hold_lease(settings.database_url, "scan-1", f"r{times}", launch_epoch=scan.epoch):
            assert look_up().status is ScanStatus.RUNNING
        change("UPDATE hubspot_deals.scans SET heartbeat_at = now() - interval '1 hour'")
        if times < 2:
            assert look_up().status is ScanStatus.RESUMING
            (request,) = tick().run_requests
            assert int(request.tags[LAUNCH_EPOCH_TAG]) == look_up().epoch
    assert look_up().status is ScanStatus.CRASHED
    assert launched(tick()) == []
    assert [attempt["why"] for attempt in look_up().attempts] == ["start", "crash", "crash"]


def test_crashes_in_a_row_go_on_after_growing_pauses(accept, tick, change, look_up, settings):
    accept()
    change("UPDATE hubspot_deals.scans SET auto_resumes = 3")
    with hold_lease(settings.database_url, "scan-1", "r1", launch_epoch=0):
        pass
    change("UPDATE hubspot_deals.scans SET heartbeat_at = now() - interval '34 seconds'")
    assert launched(tick()) == []
    change("UPDATE hubspot_deals.scans SET heartbeat_at = now() - interval '36 seconds'")
    assert launched(tick()) == ["scan-1"]


def test_a_scan_that_paused_itself_goes_on_when_its_time_has_come(accept, tick, change, look_up):
    accept()
    change(
        "UPDATE hubspot_deals.scans SET requested = 'pause', epoch = 1,"
        " resume_at = now() + interval '1 hour'"
    )
    assert look_up().status is ScanStatus.PAUSED
    assert launched(tick()) == []
    change("UPDATE hubspot_deals.scans SET resume_at = now()")
    (request,) = tick().run_requests
    assert request.tags[LAUNCH_EPOCH_TAG] == "2"
    assert look_up().status is ScanStatus.PENDING


def test_a_run_that_failed_before_its_scan_started_leaves_it_waiting(accept, run_job, look_up):
    accept()
    nowhere = SecretStr("postgresql://someone:canary@127.0.0.1:1/nothing")
    assert not run_job(database_url=nowhere).success
    assert look_up().status is ScanStatus.PENDING


def test_a_key_ring_that_cannot_be_read_is_the_scans_own_message(accept, run_job, look_up):
    accept()
    assert not run_job(encryption_keys=SecretStr("canary")).success
    assert look_up().status is ScanStatus.FAILED
    assert "HUBSPOT_DEALS_ENCRYPTION_KEYS" in look_up().error_message


def test_a_run_whose_worker_is_gone_frees_its_place_and_one_that_works_keeps_it(
    accept, tick, instance, settings, change
):
    runs = {}
    for scan_id, seconds in (("gone", 3_600), ("works", 3_600), ("starts", 60)):
        accept(scan_id)
        run = dg.DagsterRun(
            job_name="scan_deals",
            run_id=str(uuid.uuid4()),
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": scan_id},
        )
        runs[scan_id] = instance.add_run(run).run_id
        begin(instance, run.run_id, seconds)
    with hold_lease(settings.database_url, "gone", runs["gone"], launch_epoch=None):
        pass
    change(
        "UPDATE hubspot_deals.scans SET auto_resume_limit = 0,"
        " heartbeat_at = now() - interval '1 hour'"
    )
    with hold_lease(settings.database_url, "works", runs["works"], launch_epoch=None):
        tick()
    finished = {name: instance.get_run_by_id(run_id).is_finished for name, run_id in runs.items()}
    assert finished == {"gone": True, "works": False, "starts": False}


def test_a_termination_that_no_worker_heard_of_cancels_the_scan(
    accept, tick, instance, settings, look_up, ask
):
    runs = {}
    for scan_id in ("terminated", "paused"):
        accept(scan_id)
        run = dg.DagsterRun(
            job_name="scan_deals",
            run_id=str(uuid.uuid4()),
            status=dg.DagsterRunStatus.CANCELING,
            tags={"dagster/partition": scan_id},
        )
        runs[scan_id] = instance.add_run(run).run_id
        begin(instance, run.run_id, 60)
    with (
        hold_lease(settings.database_url, "terminated", runs["terminated"], launch_epoch=0),
        hold_lease(settings.database_url, "paused", runs["paused"], launch_epoch=0),
    ):
        assert ask("pause", "paused")
        tick()
        assert look_up("terminated").status is ScanStatus.CANCELLED
        assert look_up("paused").status is ScanStatus.PAUSED


def test_a_run_from_an_assets_own_page_frees_its_place_and_others_runs_are_left_alone(
    accept, tick, instance, settings, change
):
    accept()
    change("UPDATE hubspot_deals.scans SET auto_resume_limit = 0")
    runs = [
        instance.add_run(
            dg.DagsterRun(
                job_name="__ASSET_JOB",
                run_id=str(uuid.uuid4()),
                status=dg.DagsterRunStatus.STARTED,
                tags={"dagster/partition": "scan-1"},
            )
        ).run_id
        for _ in range(2)
    ]
    for run_id in runs:
        begin(instance, run_id, 3_600)
    with hold_lease(settings.database_url, "scan-1", runs[0], launch_epoch=None):
        pass
    change("UPDATE hubspot_deals.scans SET heartbeat_at = now() - interval '1 hour'")
    tick()
    assert [instance.get_run_by_id(run_id).is_finished for run_id in runs] == [True, False]


def test_a_silent_worker_whose_scan_nobody_takes_over_is_given_up_for_good(
    accept, tick, settings, change, look_up, ask
):
    accept()
    change("UPDATE hubspot_deals.scans SET auto_resume_limit = 0")
    with hold_lease(settings.database_url, "scan-1", "r1", launch_epoch=0) as lease:
        change("UPDATE hubspot_deals.scans SET heartbeat_at = now() - interval '13 seconds'")
        assert look_up().status is ScanStatus.RUNNING
        assert not ask("remove")
        tick()
        assert look_up().status is ScanStatus.CRASHED
        assert lease.was_lost()
        assert launched(tick()) == []
        assert ask("resume")
    with hold_lease(settings.database_url, "scan-1", "r2", launch_epoch=look_up().epoch):
        assert look_up().status is ScanStatus.RUNNING


def test_the_run_of_a_frozen_worker_frees_its_place_at_once(
    accept, tick, instance, settings, change
):
    accept()
    run = dg.DagsterRun(
        job_name="scan_deals", run_id=str(uuid.uuid4()), status=dg.DagsterRunStatus.STARTED
    )
    instance.add_run(run)
    with hold_lease(settings.database_url, "scan-1", run.run_id, launch_epoch=0):
        tick()
        assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTED
        change("UPDATE hubspot_deals.scans SET heartbeat_at = now() - interval '13 seconds'")
        assert launched(tick()) == ["scan-1"]
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
