"""The safety nets around a run, on real Dagster records and real scan rows."""

import uuid

import dagster as dg
import psycopg
import pytest
from pydantic import SecretStr

from hubspot_deals.contract import LAUNCH_EPOCH_TAG, ORGANIZATION_TAG, SCAN_ID_TAG, ScanStatus
from hubspot_deals.defs.sensors import (
    cancel_scans_that_never_started,
    fail_scans_that_never_started,
    launch_accepted_scans,
)
from hubspot_deals.warehouse.leases import hold_lease


@pytest.fixture
def change(settings):
    """Runs SQL that changes scan rows."""

    def change(statement, *values):
        with psycopg.connect(settings.database_url.get_secret_value()) as connection:
            connection.execute(statement, values)

    return change


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
            return launch_accepted_scans(context)

    return tick


def launched(result):
    assert isinstance(result, dg.SensorResult)
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
    assert request.run_key == "b/0"
    assert {
        key: request.tags[key] for key in (SCAN_ID_TAG, ORGANIZATION_TAG, LAUNCH_EPOCH_TAG)
    } == {
        SCAN_ID_TAG: "b",
        ORGANIZATION_TAG: "org-1",
        LAUNCH_EPOCH_TAG: "0",
    }


def test_a_second_tick_launches_nothing_twice(accept, release, tick):
    accept("first")
    release()
    assert launched(tick()) == ["first"]
    assert isinstance(tick(), dg.SkipReason)


def test_a_claim_that_ran_out_is_taken_over(accept, change, tick):
    accept("left")
    assert isinstance(tick(), dg.SkipReason)
    change("UPDATE hubspot_deals.scans SET launch_claimed_until = now() - interval '1 second'")
    assert launched(tick()) == ["left"]


def test_scans_that_have_a_run_a_worker_or_an_end_are_left_alone(
    accept, change, release, tick, settings
):
    for name in ("has-run", "has-ended", "is-running", "was-running", "waits"):
        accept(name)
    release()
    change("UPDATE hubspot_deals.scans SET run_id = 'r' WHERE scan_id = 'has-run'")
    change("UPDATE hubspot_deals.scans SET outcome = 'cancelled' WHERE scan_id = 'has-ended'")
    with hold_lease(settings.database_url, "was-running", "r2", launch_epoch=None):
        pass
    with hold_lease(settings.database_url, "is-running", "r3", launch_epoch=None):
        assert launched(tick()) == ["waits"]


def test_a_launched_request_runs_the_scan(accept, release, tick, run_job, look_up):
    accept()
    release()
    (request,) = tick().run_requests
    assert run_job(tags=dict(request.tags)).success
    assert look_up().status is ScanStatus.COMPLETED


def note_failure(instance, definitions, result):
    """What the daemon does when it meets a failed run."""
    run = instance.get_run_by_id(result.run_id)
    assert run.status is dg.DagsterRunStatus.FAILURE
    with dg.build_run_status_sensor_context(
        sensor_name="fail_scans_that_never_started",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=run,
    ) as context:
        fail_scans_that_never_started(
            context.for_run_failure(), pipeline=definitions.resources["pipeline"]
        )


def test_a_run_that_failed_before_its_scan_started_fails_the_scan(
    accept, run_job, look_up, instance, definitions
):
    accept()
    nowhere = SecretStr("postgresql://someone:canary@127.0.0.1:1/nothing")
    result = run_job(database_url=nowhere)
    assert not result.success
    assert look_up().status is ScanStatus.PENDING
    note_failure(instance, definitions, result)
    scan = look_up()
    assert scan.status is ScanStatus.FAILED
    assert result.run_id in scan.error_message


def test_a_run_that_failed_later_leaves_what_the_worker_recorded(
    accept, run_job, look_up, instance, definitions
):
    accept(token=SecretStr("bad"))
    result = run_job()
    assert not result.success
    before = look_up()
    assert before.status is ScanStatus.FAILED
    note_failure(instance, definitions, result)
    assert look_up() == before


def test_a_key_ring_that_cannot_be_read_is_the_scans_own_message(accept, run_job, look_up):
    accept()
    assert not run_job(encryption_keys=SecretStr("canary")).success
    assert look_up().status is ScanStatus.FAILED
    assert "HUBSPOT_DEALS_ENCRYPTION_KEYS" in look_up().error_message


def test_a_run_that_is_cancelled_in_the_queue_cancels_its_scan_and_no_other(
    accept, look_up, instance, definitions, settings
):
    accept()
    run = dg.DagsterRun(
        job_name="scan_deals",
        run_id=str(uuid.uuid4()),
        status=dg.DagsterRunStatus.CANCELED,
        tags={"dagster/partition": "scan-1"},
    )
    event = dg.DagsterEvent(
        event_type_value="PIPELINE_CANCELED", job_name="scan_deals", message="cancelled"
    )

    def tick():
        with dg.build_run_status_sensor_context(
            sensor_name="cancel_scans_that_never_started",
            dagster_event=event,
            dagster_instance=instance,
            dagster_run=run,
        ) as context:
            cancel_scans_that_never_started(context, pipeline=definitions.resources["pipeline"])

    change = "UPDATE hubspot_deals.scans SET run_id = %s"
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        connection.execute(change, ("another-run",))
        tick()
        assert look_up().status is ScanStatus.PENDING
        connection.execute(change, (run.run_id,))
        tick()
    scan = look_up()
    assert scan.status is ScanStatus.CANCELLED
    assert run.run_id in scan.error_message
