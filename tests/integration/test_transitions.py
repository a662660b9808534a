"""What callers want of a scan against what its worker does: one winner each, on real PostgreSQL."""

import asyncio
import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from hubspot_deals.contract import Outcome, ScanStatus
from hubspot_deals.errors import (
    LeaseLostError,
    ScanNotFoundError,
    ScanSupersededError,
)
from hubspot_deals.warehouse import outcomes
from hubspot_deals.warehouse.leases import hold_lease
from hubspot_deals.warehouse.transitions import detect_crashed
from tests.integration.conftest import ASKED


@pytest.fixture
def detect(settings):
    def detect(minutes=1):
        async def on_connection():
            async with await psycopg.AsyncConnection.connect(
                settings.database_url.get_secret_value(), autocommit=True
            ) as connection:
                return await detect_crashed(connection, silent_minutes=minutes)

        return asyncio.run(on_connection())

    return detect


@pytest.fixture
def take(settings):
    def take(scan_id="scan-1", launch_epoch=None):
        return hold_lease(settings.database_url, scan_id, "run-1", launch_epoch=launch_epoch)

    return take


def finish(lease):
    """Complete the scan as its worker does; True if that was granted."""
    try:
        outcomes.complete(lease, [], {})
    except LeaseLostError:
        return False
    return True


def test_a_paused_scan_fences_its_worker_and_goes_on_under_a_new_epoch(accept, ask, take, look_up):
    accept()
    with take(launch_epoch=0) as lease:
        assert ask("pause")
        assert look_up().status is ScanStatus.PAUSED
        with pytest.raises(LeaseLostError):
            lease.report_progress(deals=1, expected=1)
        assert not ask("pause")
    assert look_up().status is ScanStatus.PAUSED
    assert ask("resume")
    scan = look_up()
    assert scan.status is ScanStatus.RESUMING
    assert not ask("resume")
    with take(launch_epoch=scan.epoch) as lease:
        assert look_up().status is ScanStatus.RUNNING
        assert finish(lease)
    assert look_up().status is ScanStatus.COMPLETED
    assert [attempt["why"] for attempt in look_up().attempts] == ["start", "resume"]


def test_a_worker_that_was_paused_and_winds_down_does_not_look_like_the_next_one(
    accept, ask, take, look_up
):
    accept()
    with take(launch_epoch=0):
        assert ask("pause")
        assert ask("resume")
        assert look_up().status is ScanStatus.RESUMING


def test_a_paused_scan_that_never_started_is_not_started_by_its_queued_run(
    accept, ask, take, look_up
):
    accept()
    assert ask("pause")
    with pytest.raises(ScanSupersededError), take(launch_epoch=0):
        pass
    assert look_up().status is ScanStatus.PAUSED
    assert ask("resume")
    with take(launch_epoch=look_up().epoch):
        assert look_up().status is ScanStatus.RUNNING


@pytest.mark.parametrize("ended", [*Outcome])
def test_an_ended_scan_can_only_be_removed(accept, ask, change, look_up, ended):
    accept()
    change("UPDATE hubspot_deals.scans SET outcome = %s, ended_at = now()", ended)
    assert not any(ask(wanted) for wanted in ("cancel", "pause", "resume"))
    assert look_up().status is ScanStatus(ended.value)
    assert ask("remove")
    with pytest.raises(ScanNotFoundError):
        look_up()
    assert not any(ask(wanted) for wanted in ASKED)


def test_a_crashed_scan_can_be_resumed_cancelled_and_removed_but_not_paused(
    accept, ask, take, change, look_up
):
    for scan_id in ("to-resume", "to-cancel", "to-remove"):
        accept(scan_id)
        with take(scan_id):
            pass
    change("UPDATE hubspot_deals.scans SET auto_resume_limit = 0")
    assert look_up("to-resume").status is ScanStatus.CRASHED
    assert not ask("pause", "to-resume")
    assert ask("resume", "to-resume")
    assert look_up("to-resume").status is ScanStatus.RESUMING
    assert not ask("remove", "to-resume")
    assert ask("cancel", "to-cancel")
    assert ask("remove", "to-remove")


def test_scans_that_wait_or_work_cannot_be_removed(accept, ask, take):
    accept()
    assert not ask("remove")
    with take():
        assert not ask("remove")
    assert ask("pause")
    assert not ask("remove")


def test_a_frozen_worker_counts_as_gone(accept, take, change, look_up):
    accept()
    with take() as lease:
        change("UPDATE hubspot_deals.scans SET heartbeat_at = now() - interval '13 seconds'")
        assert look_up().status is ScanStatus.RESUMING
        with take(launch_epoch=None) as other:
            assert other.epoch == lease.epoch + 1
            assert lease.heartbeat.connection.closed or look_up().status is ScanStatus.RUNNING
            with pytest.raises(psycopg.OperationalError):
                lease.connection.execute("SELECT 1")


def test_scans_without_worker_are_detected_and_so_is_a_worker_that_makes_no_progress(
    accept, take, detect, change, look_up
):
    for scan_id in ("gone", "stuck", "busy", "waiting"):
        accept(scan_id)
    with take("gone"):
        pass
    with take("stuck") as stuck, take("busy") as busy:
        assert detect() == ["gone"]
        change(
            "UPDATE hubspot_deals.scans SET progress_at = now() - interval '5 minutes'"
            " WHERE scan_id = 'stuck'"
        )
        assert detect(minutes=6) == ["gone"]
        assert detect(minutes=4) == ["gone", "stuck"]
        assert look_up("stuck").status is ScanStatus.RESUMING
        assert not finish(stuck)
        assert finish(busy)
    assert look_up("busy").status is ScanStatus.COMPLETED
    assert look_up("waiting").status is ScanStatus.PENDING


def test_a_pause_by_hubspots_limit_can_be_made_lasting(accept, ask, change, look_up):
    accept()
    change("UPDATE hubspot_deals.scans SET requested = 'pause', resume_at = now()")
    assert ask("pause")
    assert look_up().resume_at is None
    assert not ask("pause")


def test_a_rerun_by_hand_starts_with_a_fresh_count_of_crashes(accept, take, change, look_up):
    accept()
    change("UPDATE hubspot_deals.scans SET auto_resumes = 5")
    with take(launch_epoch=None):
        pass
    assert look_up().status is ScanStatus.RESUMING


def race(accept, take, ask, look_up, *, wanted, rounds):
    """Let a caller and a worker race; return how often the worker won."""
    finished = 0
    with ThreadPoolExecutor(2) as threads:
        for number in range(rounds):
            scan_id = f"race-{wanted}-{number}"
            accept(scan_id)
            start = threading.Barrier(2)

            def caller(scan_id=scan_id, start=start):
                start.wait()
                return ask(wanted, scan_id)

            with take(scan_id) as lease:

                def worker(lease=lease, start=start):
                    start.wait()
                    threading.Event().wait(random.uniform(0, 0.02))
                    return finish(lease)

                asked, ended = threads.submit(caller), threads.submit(worker)
                granted, completed = asked.result(30), ended.result(30)
            assert granted is not completed, (scan_id, granted, completed)
            status = look_up(scan_id).status
            lost = {"cancel": ScanStatus.CANCELLED, "pause": ScanStatus.PAUSED}[wanted]
            assert status is (ScanStatus.COMPLETED if completed else lost)
            finished += completed
    return finished


@pytest.mark.parametrize("wanted", ["cancel", "pause"])
def test_a_wish_and_a_completion_at_once_have_one_winner(accept, take, ask, look_up, wanted):
    race(accept, take, ask, look_up, wanted=wanted, rounds=25)


@pytest.mark.parametrize(
    ("first", "second"),
    list(itertools.combinations_with_replacement(["cancel", "pause", "resume"], 2)),
)
def test_two_wishes_at_once_leave_one_state(accept, ask, change, look_up, first, second):
    for number in range(5):
        scan_id = f"scan-{number}"
        accept(scan_id)
        if "resume" in {first, second}:
            assert ask("pause", scan_id)
        with ThreadPoolExecutor(2) as threads:
            granted = list(threads.map(ask, (first, second), (scan_id, scan_id)))
        status = look_up(scan_id).status
        if first == second:
            assert granted.count(True) == 1
        if ("cancel", True) in zip((first, second), granted, strict=True):
            assert status is ScanStatus.CANCELLED
        assert any(granted)
