"""Scans that are paused, cancelled or set aside while their worker reads."""

import threading
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg
import pytest

from hubspot_deals.contract import LAUNCH_EPOCH_TAG, ScanStatus
from hubspot_deals.defs.sensors import launch_waiting_scans
from hubspot_sandbox.testing import SandboxProcess
from tests.conftest import FAST
from tests.pace import within

DEALS = 1_000
SECOND_PAGES = {"kind": "list", "query_contains": "after"}


@pytest.fixture(scope="module")
def account():
    """1,000 deals; every test clears its faults away."""
    with SandboxProcess(deals=DEALS, archived_share=0, **FAST) as running:
        yield running


@pytest.fixture
def faulty(account):
    account.control.clear_faults()
    yield account
    account.control.clear_faults()


@pytest.fixture
def start(run_job):
    """Runs the job in a thread; returns it and where its result will be."""

    def start(account, **tags):
        ended = []
        thread = threading.Thread(
            target=lambda: ended.append(
                run_job(
                    hubspot_url=account.url,
                    chunk_rows=100,
                    chunk_seconds=0.05,
                    request_timeout_seconds=60,
                    retry_seconds=60,
                    tags=tags,
                )
            )
        )
        thread.start()
        return thread, ended

    return start


def wait_until(holds, seconds=20):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stored_ids(query):
    return sorted(int(row[0]) for row in query("SELECT id FROM hubspot_deals.deals"))


@pytest.mark.parametrize(
    ("wanted", "status"), [("pause", ScanStatus.PAUSED), ("cancel", ScanStatus.CANCELLED)]
)
def test_a_wish_ends_a_worker_that_waits_for_hubspot_within_seconds(
    accept,
    start,
    ask,
    look_up,
    faulty,
    instance,
    wanted,
    status,
):
    accept()
    stall = {"type": "stall", "seconds": 50}
    faulty.control.add_fault(stall, match=SECOND_PAGES, after=3, times=None)
    thread, ended = start(faulty)
    wait_until(lambda: look_up().records_extracted >= 100)
    began = time.monotonic()
    assert ask(wanted)
    assert look_up().status is status
    thread.join(20)
    assert not thread.is_alive()
    assert time.monotonic() - began < within(8)
    assert look_up().status is status
    run = instance.get_run_by_id(ended[0].run_id)
    assert run.status is dg.DagsterRunStatus.CANCELED


def test_a_scan_that_was_paused_again_and_again_is_exact(
    accept,
    start,
    ask,
    look_up,
    faulty,
    query,
):
    accept()
    faulty.control.add_fault({"type": "stall", "seconds": 0.15}, match=SECOND_PAGES, times=None)
    for _ in range(3):
        before = look_up().records_extracted
        thread, _ = start(faulty, **{LAUNCH_EPOCH_TAG: str(look_up().epoch)})
        wait_until(lambda before=before: look_up().records_extracted > before)
        assert ask("pause")
        read = look_up().records_extracted
        thread.join(20)
        assert look_up().records_extracted == read
        assert ask("resume")
    faulty.control.clear_faults()
    thread, ended = start(faulty, **{LAUNCH_EPOCH_TAG: str(look_up().epoch)})
    thread.join(60)
    assert ended[0].success
    assert stored_ids(query) == sorted(
        int(deal["id"]) for deal in faulty.control.deals(archived=False)
    )
    assert [attempt["why"] for attempt in look_up().attempts] == ["start", *3 * ["resume"]]


def test_the_daily_limit_sets_a_scan_aside_until_it_is_free(
    accept, run_job, look_up, faulty, query, instance, definitions, settings
):
    accept()
    limit = {"type": "daily_429"}
    faulty.control.add_fault(limit, match=SECOND_PAGES, after=3, times=1)
    result = run_job(hubspot_url=faulty.url, chunk_rows=100, tags={LAUNCH_EPOCH_TAG: "0"})
    assert not result.success
    assert instance.get_run_by_id(result.run_id).status is dg.DagsterRunStatus.CANCELED
    scan = look_up()
    assert scan.status is ScanStatus.PAUSED
    assert "daily" in scan.error_message
    now = datetime.now(UTC)
    assert now < scan.resume_at < now + timedelta(hours=25)
    with psycopg.connect(settings.database_url.get_secret_value()) as admin:
        admin.execute("UPDATE hubspot_deals.scans SET resume_at = now()")
    resources = {"pipeline": definitions.resources["pipeline"]}
    with dg.build_sensor_context(instance=instance, resources=resources) as context:
        (request,) = launch_waiting_scans(context).run_requests
    assert look_up().status is ScanStatus.RESUMING
    assert run_job(hubspot_url=faulty.url, tags=dict(request.tags)).success
    assert len(set(stored_ids(query))) == DEALS
    assert [attempt["why"] for attempt in look_up().attempts] == ["start", "quota"]
    assert look_up().resume_at is None
