"""How recorded facts become the bodies that callers see."""

from datetime import UTC, datetime, timedelta

import pytest

from api.errors import UnknownTableError
from api.results.service import FoundPage, PageRequest, choose_table
from api.scans.service import describe_scan, progress, request_hash
from api.schemas import format_timestamp
from hubspot_deals.contract import ScanConfig, ScanFilters, ScanStatus
from hubspot_deals.warehouse.results import Page, ResultTable, Snapshot
from hubspot_deals.warehouse.scans import Checkpoint, ScanRecord

NOON = datetime(2024, 1, 15, 12, tzinfo=UTC)
STARTED = NOON - timedelta(seconds=300.5)


def record(**facts):
    known = {
        "seq": 1,
        "scan_id": "scan-1",
        "organization_id": "org-1",
        "config": ScanConfig("scan-1", "org-1").to_json(),
        "created_at": STARTED,
        "run_id": "run-1",
        "epoch": 1,
        "started_at": STARTED,
        "heartbeat_at": NOON - timedelta(seconds=1),
        "records_expected": None,
        "generation": 0,
        "outcome": None,
        "ended_at": None,
        "error_message": None,
        "records_extracted": 0,
        "metadata": {},
        "attempts": [],
        "resume_at": None,
        "results_removed_at": None,
        "is_paused": False,
        "is_resuming": False,
        "is_held": True,
        "will_resume": True,
    }
    return ScanRecord(**(known | facts))


def describe(scan, *, checkpoint=None, run_status=None):
    return describe_scan(scan, checkpoint, run_status=run_status, now=NOON)


def test_a_running_scan_lasts_until_now():
    shown = describe(record())

    assert (shown.status, shown.duration) == (ScanStatus.RUNNING, 300.5)


def test_an_ended_scan_lasts_until_its_end():
    scan = record(outcome="failed", ended_at=STARTED + timedelta(seconds=2), error_message="why")

    shown = describe(scan)

    assert (shown.status, shown.duration, shown.error_message) == (ScanStatus.FAILED, 2.0, "why")


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({"is_held": False, "will_resume": False}, ScanStatus.CRASHED),
        ({"is_held": False, "will_resume": True}, ScanStatus.RESUMING),
        ({"is_held": False, "is_resuming": True}, ScanStatus.RESUMING),
        ({"is_paused": True}, ScanStatus.PAUSED),
    ],
)
def test_a_scan_that_nobody_works_on_lasts_until_its_workers_last_sign_of_life(facts, status):
    shown = describe(record(**facts))

    assert (shown.status, shown.duration) == (status, 299.5)


def test_a_scan_that_waits_for_hubspots_limit_tells_when_it_goes_on():
    shown = describe(record(is_paused=True, resume_at=NOON))

    assert shown.model_dump(by_alias=True)["resumeAt"] == "2024-01-15T12:00:00.000Z"
    assert describe(record()).resume_at is None


def test_a_pending_scan_has_no_duration():
    shown = describe(record(started_at=None, heartbeat_at=None, is_held=False))

    assert (shown.status, shown.duration, shown.start_time) == (ScanStatus.PENDING, None, None)


@pytest.mark.parametrize("run_status", [None, "QUEUED", "STARTED", "FAILURE", "CANCELED"])
def test_dagsters_word_on_a_run_is_a_remark_and_changes_no_status(run_status):
    pending = record(started_at=None, is_held=False)

    shown = describe(pending, run_status=run_status)

    assert (shown.status, shown.error_message) == (ScanStatus.PENDING, None)
    assert shown.metadata.get("runStatus") == run_status


def test_every_run_that_took_a_scan_up_is_told():
    attempts = [
        {"runId": "run-0", "startedAt": "2024-01-15T11:00:00.000Z", "why": "start"},
        {"runId": "run-1", "startedAt": "2024-01-15T11:30:00.000Z", "why": "crash"},
    ]

    shown = describe(record(attempts=attempts, metadata={"portalId": 7}))

    assert shown.metadata == {"runId": "run-1", "portalId": 7, "attempts": attempts}


def test_a_scan_whose_results_were_removed_says_since_when():
    shown = describe(record(outcome="completed", ended_at=STARTED, results_removed_at=NOON))

    assert shown.status is ScanStatus.COMPLETED
    assert shown.metadata["resultsRemovedAt"] == "2024-01-15T12:00:00.000Z"


@pytest.mark.parametrize(
    ("extracted", "expected", "status", "percent"),
    [
        (0, None, ScanStatus.RUNNING, None),
        (5, 0, ScanStatus.RUNNING, None),
        (0, 8, ScanStatus.RUNNING, 0.0),
        (1, 3, ScanStatus.FAILED, 33.3),
        (8, 8, ScanStatus.RUNNING, 99.9),
        (9_999, 10_000, ScanStatus.RUNNING, 99.9),
        (12, 8, ScanStatus.CRASHED, 99.9),
        (7, 8, ScanStatus.COMPLETED, 100.0),
        (0, None, ScanStatus.COMPLETED, 100.0),
    ],
)
def test_progress_is_whole_only_for_a_completed_scan(extracted, expected, status, percent):
    assert progress(extracted, expected, status) == percent


def test_progress_never_goes_back_while_deals_are_added():
    percents = [progress(deals, 1_234, ScanStatus.RUNNING) for deals in range(1_500)]

    assert percents == sorted(percents)
    assert percents[-1] < 100


def test_a_checkpoint_is_shown_with_its_moment():
    shown = describe(record(), checkpoint=Checkpoint({"after": "7"}, NOON))

    assert shown.checkpoint_info.model_dump(by_alias=True) == {
        "latestCheckpoint": {"after": "7"},
        "progress": None,
        "lastCheckpointAt": "2024-01-15T12:00:00.000Z",
    }


def test_a_credential_that_ever_got_into_a_config_is_not_shown():
    shown = describe(record(config={"type": ["user"], "auth": {"accessToken": "x"}}))

    assert "auth" not in shown.config


@pytest.mark.parametrize(
    ("total", "offset", "returned", "has_more"),
    [
        (0, 0, 0, False),
        (10, 0, 5, True),
        (10, 5, 5, False),
        (10, 10, 0, False),
        (10, 4, 5, True),
        (10, 99, 0, False),
        (10, 0, 0, False),
    ],
)
def test_there_is_more_only_behind_a_page_that_brought_something(total, offset, returned, has_more):
    deals = ResultTable("deals", total, total, ["id"])
    request = PageRequest("scan-1", "deals", 5, offset, None)
    snapshot = Snapshot("scan-1", 1, 1, [deals])

    found = FoundPage(request, snapshot, deals, Page(b"", returned), total)

    assert (found.next_cursor is not None) is has_more


def test_a_timestamp_is_in_utc_with_milliseconds():
    moment = datetime.fromisoformat("2024-01-15T12:00:00.123456+02:00")

    assert format_timestamp(moment) == "2024-01-15T10:00:00.123Z"


def test_requests_are_the_same_whatever_the_order_of_their_keys_but_not_of_their_filters():
    one = ScanConfig("s", "o", filters=ScanFilters(properties=("a", "b")))

    assert request_hash(one) == request_hash(ScanConfig.from_json(one.to_json()))
    assert request_hash(one) != request_hash(ScanConfig("s", "o"))


def table(name):
    return ResultTable(name, 1, 1, ["id"])


def test_the_default_table_is_users_or_else_the_first():
    assert choose_table([table("users"), table("deals")], None).table_name == "users"
    assert choose_table([table("deals"), table("pipelines")], None).table_name == "deals"


@pytest.mark.parametrize("name", ["", "user", "Deals", "deals\x00", "deals; --", "x" * 5_000])
def test_an_unknown_table_is_refused_with_those_that_exist(name):
    with pytest.raises(UnknownTableError, match="available: users, deals") as refused:
        choose_table([table("users"), table("deals")], name)

    assert len(str(refused.value)) < 300


def test_a_scan_without_tables_has_no_default():
    with pytest.raises(UnknownTableError, match="available: none"):
        choose_table([], None)
