"""The outbox: one event for each change of a scan, written by the change itself."""

import asyncio
import random
import threading
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from hubspot_deals.contract import LaunchReason, Outcome
from hubspot_deals.errors import LeaseLostError, ScanBusyError, ScanSupersededError
from hubspot_deals.warehouse import launches, outcomes
from hubspot_deals.warehouse.acceptance import create_scan
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.deliveries import note_crashed_scans, sweep
from hubspot_deals.warehouse.launches import StartedRun, claim_waiting_scans
from hubspot_deals.warehouse.leases import hold_lease
from hubspot_deals.warehouse.outcomes import TableResult
from hubspot_deals.warehouse.removal import mark_old_scans
from tests.conftest import TEST_KEYS, TEST_TOKEN

TOMORROW = datetime.now(UTC) + timedelta(days=1)
TABLES = [TableResult("deals", 7, 7, ("id",)), TableResult("users", 2, 2, ("id",))]


@pytest.fixture
def subscribe(change):
    """Adds a webhook of an organization."""

    def subscribe(*events, name="wh_1", organization="org-1", enabled=True):
        change(
            "INSERT INTO hubspot_deals.webhooks"
            " (webhook_id, organization_id, url, receiver, events, enabled)"
            " VALUES (%s, %s, 'https://r.example/', 'r.example:443', %s, %s)",
            name,
            organization,
            list(events or ("*",)),
            enabled,
        )

    return subscribe


@pytest.fixture
def told(query):
    """Returns the types that a webhook is to be told, in order."""

    def told(name="wh_1"):
        return [
            event_type
            for (event_type,) in query(
                "SELECT e.type FROM hubspot_deals.webhook_deliveries d"
                " JOIN hubspot_deals.webhook_events e USING (event_id)"
                " WHERE d.webhook_id = %s ORDER BY d.seq",
                name,
            )
        ]

    return told


@pytest.fixture
def last(query):
    """Returns what the latest event says."""
    statement = (
        "SELECT e.data FROM hubspot_deals.webhook_deliveries d"
        " JOIN hubspot_deals.webhook_events e USING (event_id) ORDER BY d.seq DESC LIMIT 1"
    )
    return lambda: query(statement)[0][0]


@pytest.fixture
def take(settings):
    def take(scan_id="scan-1", launch_epoch=None):
        return hold_lease(settings.database_url, scan_id, "run-1", launch_epoch=launch_epoch)

    return take


@pytest.fixture
def on_connection(database_url):
    def on_connection(function, **options):
        async def run():
            async with await psycopg.AsyncConnection.connect(
                database_url, autocommit=True
            ) as connection:
                return await function(connection, **options)

        return asyncio.run(run())

    return on_connection


def epoch_of(query):
    return query("SELECT epoch FROM hubspot_deals.scans WHERE scan_id = 'scan-1'")[0][0]


def test_a_scan_tells_of_its_start_and_of_what_it_completed_with(
    accept, subscribe, take, told, last, change
):
    subscribe()
    accept()
    assert told() == []
    with take(launch_epoch=0) as lease:
        assert told() == ["scan.started"]
        assert last()["reason"] == LaunchReason.START
        lease.report_progress(deals=4, expected=7)
        change("UPDATE hubspot_deals.scans SET heartbeat_at = now(), progress_at = now()")
        outcomes.complete(lease, TABLES, {"note": "not told"})

    assert told() == ["scan.started", "scan.completed"]
    data = last()
    assert data["tables"] == [{"name": "deals", "rowCount": 7}, {"name": "users", "rowCount": 2}]
    assert (data["scanId"], data["organizationId"]) == ("scan-1", "org-1")
    assert (data["status"], data["recordsExtracted"], data["recordsExpected"]) == (
        "completed",
        7,
        7,
    )
    assert data["startTime"] < data["endTime"]
    assert "not told" not in str(data)


def test_each_webhook_is_told_what_it_asked_for(accept, subscribe, take, told, query):
    subscribe("scan.completed", name="exact")
    subscribe("scan.*", name="family")
    subscribe("scan.failed", name="other")
    subscribe(name="foreign", organization="org-2")
    subscribe(name="off", enabled=False)
    accept()
    with take(launch_epoch=0) as lease:
        outcomes.complete(lease, TABLES, {})

    assert told("exact") == ["scan.completed"]
    assert told("family") == ["scan.started", "scan.completed"]
    assert told("other") == told("foreign") == told("off") == []
    # Both are told of one event: receivers can tell it by its id.
    assert query("SELECT count(*) FROM hubspot_deals.webhook_events") == [(2,)]


@pytest.mark.parametrize(
    "others", [[], [{"organization": "org-2"}, {"name": "o", "enabled": False}]]
)
def test_without_a_webhook_that_wants_it_nothing_is_written(
    accept, subscribe, take, query, ask, others
):
    for number, other in enumerate(others):
        subscribe(**{"name": f"wh_{number}", **other})
    accept()
    with take(launch_epoch=0) as lease:
        outcomes.fail(lease, "HubSpot is gone")
    assert ask("remove")

    assert query("SELECT count(*) FROM hubspot_deals.webhook_events") == [(0,)]


def test_pauses_and_resumptions_are_told_when_they_come_true(
    accept, subscribe, take, told, last, ask, query, settings, change
):
    subscribe()
    accept()
    with take(launch_epoch=0) as lease:
        outcomes.pause(lease, TOMORROW, "HubSpot's daily limit is used up")
    assert told() == ["scan.started", "scan.paused"]
    assert last()["resumeAt"] == f"{TOMORROW.isoformat(timespec='milliseconds')[:-6]}Z"
    assert last()["errorMessage"] == "HubSpot's daily limit is used up"
    assert ask("pause")  # until somebody resumes it: it was paused before
    assert ask("resume")
    assert told() == ["scan.started", "scan.paused"]
    with take(launch_epoch=epoch_of(query)):
        assert told()[-1] == "scan.resumed"
        assert (last()["reason"], last()["status"]) == ("resume", "running")
        assert ask("pause")
    change("UPDATE hubspot_deals.scans SET resume_at = now()")
    assert launches.resume_due_scans(settings.database_url)
    with take(launch_epoch=epoch_of(query)):
        assert ask("cancel")

    assert told() == [
        "scan.started",
        "scan.paused",
        "scan.resumed",
        "scan.paused",
        "scan.resumed",
        "scan.cancelled",
    ]


def test_a_scan_that_is_paused_before_its_start_starts_later(
    accept, subscribe, ask, take, told, query
):
    subscribe()
    accept()
    assert ask("pause")
    assert ask("resume")
    with take(launch_epoch=epoch_of(query)) as lease:
        outcomes.cancel(lease)

    assert told() == ["scan.paused", "scan.started", "scan.cancelled"]


def test_a_worker_that_dies_is_told_by_the_one_that_goes_on(
    accept, subscribe, take, told, last, settings, query, change
):
    subscribe()
    accept()
    with take(launch_epoch=0) as lease:
        outcomes.note_interruption(lease, "the database broke off")
    assert launches.resume_due_scans(settings.database_url)
    with take(launch_epoch=epoch_of(query)) as lease:
        assert told() == ["scan.started", "scan.resumed"]
        assert last()["reason"] == "crash"
        change("UPDATE hubspot_deals.scans SET auto_resumes = auto_resume_limit")
        outcomes.note_interruption(lease, "the database broke off again")

    assert told() == ["scan.started", "scan.resumed", "scan.failed"]
    assert last()["errorMessage"] == "the database broke off again"


def test_a_crash_for_good_is_told_once(accept, subscribe, take, told, change, on_connection, ask):
    subscribe()
    accept()
    with take(launch_epoch=0):
        change("UPDATE hubspot_deals.scans SET auto_resume_limit = 0")
        on_connection(note_crashed_scans)
        assert told() == ["scan.started"]
    on_connection(note_crashed_scans)
    on_connection(note_crashed_scans)
    assert told() == ["scan.started", "scan.crashed"]

    assert ask("resume")
    on_connection(note_crashed_scans)
    with take():
        pass
    on_connection(note_crashed_scans)
    assert told() == ["scan.started", "scan.crashed", "scan.resumed", "scan.crashed"]
    # It has to have ended before it can go.
    assert ask("remove")
    assert told()[4:] == ["scan.failed", "scan.removed"]


def test_scans_that_end_without_a_worker_tell_of_it(accept, subscribe, told, settings, take, query):
    subscribe()
    for number in (1, 2):
        accept(f"scan-{number}")
    with take():
        run = StartedRun("run-1", "scan-1", is_of_scan_job=True)
        assert launches.cancel_scan_of_run(settings.database_url, run)
    assert query("SELECT 1 FROM hubspot_deals.scans WHERE outcome = 'cancelled'")
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute("UPDATE hubspot_deals.scans SET launch_claimed_until = NULL")
    (waiting,) = claim_waiting_scans(settings.database_url, limit=9)
    launches.end_waiting_scan(settings.database_url, waiting, Outcome.FAILED, "no worker")

    assert told() == ["scan.started", "scan.cancelled", "scan.failed"]


def test_a_run_beside_a_served_result_tells_only_of_a_new_result(
    accept, subscribe, take, told, last
):
    subscribe()
    accept()
    with take() as lease:
        outcomes.complete(lease, TABLES, {})
    with take() as lease:
        outcomes.fail(lease, "the rerun failed")
    assert told() == ["scan.started", "scan.completed"]
    with take() as lease:
        outcomes.complete(lease, TABLES[:1], {})

    assert told() == ["scan.started", "scan.completed", "scan.completed"]
    assert last()["tables"] == [{"name": "deals", "rowCount": 7}]


def test_a_scan_that_is_started_anew_tells_of_both_lives(
    accept, subscribe, take, told, on_connection, query
):
    subscribe()
    config = accept()
    with take(launch_epoch=0) as lease:
        outcomes.complete(lease, TABLES, {})
    sealed = KeyRing.parse(TEST_KEYS).seal(TEST_TOKEN, bound_to="scan-1")
    on_connection(create_scan, config=config, token=sealed, request_hash="-", restarts=True)
    assert told() == ["scan.started", "scan.completed"]
    with take(launch_epoch=epoch_of(query)) as lease:
        outcomes.fail(lease, "no longer allowed")

    assert told() == ["scan.started", "scan.completed", "scan.started", "scan.failed"]


def test_results_that_are_cleaned_up_and_scans_that_are_purged_are_told(
    accept, subscribe, take, told, change, on_connection
):
    subscribe()
    accept()
    with take() as lease:
        outcomes.complete(lease, TABLES, {})
    change("UPDATE hubspot_deals.scans SET ended_at = now() - interval '9 days'")
    assert on_connection(mark_old_scans, days_old=7)
    change("UPDATE hubspot_deals.scans SET removal = NULL")  # all rows are deleted
    assert on_connection(mark_old_scans, days_old=7, purge=True)

    assert told()[2:] == ["scan.results_removed", "scan.removed"]


def test_what_is_rolled_back_is_not_told(accept, subscribe, take, told):
    def fail_and_break_off(lease):
        with lease.fenced() as cursor:
            cursor.execute("UPDATE hubspot_deals.scans SET outcome = 'failed'")
            raise RuntimeError

    subscribe()
    accept()
    with take() as lease:
        with pytest.raises(RuntimeError):
            fail_and_break_off(lease)
        assert told() == ["scan.started"]


def test_a_webhook_that_is_deleted_meanwhile_holds_no_scan_up(
    accept, subscribe, take, settings, query, on_connection, told
):
    subscribe()
    accept()
    with psycopg.connect(settings.database_url.get_secret_value()) as deleting:
        deleting.execute("DELETE FROM hubspot_deals.webhooks")
        with take() as lease:
            outcomes.complete(lease, TABLES, {})  # neither waits nor fails
    assert len(told()) == 2
    on_connection(sweep, log_days=30)

    assert query("SELECT DISTINCT status FROM hubspot_deals.webhook_deliveries") == [("dead",)]


def work_on(take, scan_id, rng):
    """Take a scan up again and again, and end it now and then."""
    endings = [outcomes.cancel, lambda lease: outcomes.complete(lease, [], {}), None, None]
    for _ in range(6):
        with suppress(LeaseLostError, ScanSupersededError, ScanBusyError), take(scan_id) as lease:
            if (ending := rng.choice(endings)) is not None:
                ending(lease)


def steer(ask, scan_id, rng, granted):
    for _ in range(12):
        wish = rng.choice(["pause", "resume", "cancel"])
        if ask(wish, scan_id):
            granted.append(wish)


@pytest.mark.parametrize("scan_id", ["scan-1", "scan-2", "scan-3", "scan-4"])
def test_callers_and_workers_at_once_every_change_is_told_once(
    accept, subscribe, take, ask, told, query, scan_id
):
    seed = random.randrange(1_000_000)
    first, second, granted = random.Random(seed), random.Random(seed + 1), []
    subscribe()
    accept(scan_id)
    threads = [
        threading.Thread(target=work_on, args=(take, scan_id, first)),
        threading.Thread(target=steer, args=(ask, scan_id, second, granted)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    events = Counter(told())
    ((attempts,),) = query("SELECT jsonb_array_length(attempts) FROM hubspot_deals.scans")
    assert events["scan.started"] == min(attempts, 1), f"seed {seed}"
    assert events["scan.paused"] == granted.count("pause"), f"seed {seed}"
    # Only a run beside a completed result is taken up without a word.
    silent = attempts - events["scan.started"] - events["scan.resumed"]
    assert silent == 0 or events["scan.completed"], f"seed {seed}"
