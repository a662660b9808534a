"""HubSpot at its worst: a scan ends exact, or failed with the cause, and soon."""

import time
from datetime import UTC, date, datetime

import pytest
from pydantic import SecretStr

from hubspot_deals.contract import DateRange, ScanFilters, ScanStatus
from hubspot_sandbox.testing import SandboxProcess
from tests.conftest import FAST
from tests.pace import within

CANARY = "canary-token-0123456789"
LIST = {"kind": "list"}
FILTERED = ScanFilters(("dealname",), date_range=DateRange(field="createdate"))
# What passes: groups of faults, each with how often in a row it strikes.
PASSING = {
    "answers": [
        ({"type": "status", "status": 500}, 1),
        ({"type": "status", "status": 502, "body": "html"}, 1),
        ({"type": "status", "status": 503, "body": "empty"}, 1),
        ({"type": "html_200"}, 1),
    ],
    "gateways": [
        ({"type": "status", "status": 504, "body": "html"}, 1),
        ({"type": "status", "status": 524, "body": "html"}, 1),
        ({"type": "status", "status": 401, "message": "a moment"}, 1),
        ({"type": "cut_json"}, 1),
    ],
    "wires": [
        ({"type": "reset"}, 1),
        ({"type": "cut_body"}, 1),
        ({"type": "wrong_length"}, 1),
        ({"type": "stall", "seconds": 60}, 1),
    ],
    "pages": [
        ({"type": "empty_page"}, 1),
        ({"type": "short_page", "results": 3}, 2),
    ],
    "limits": [
        ({"type": "status", "status": 429, "headers": {"Retry-After": "1"}}, 1),
        ({"type": "burst_429"}, 1),
    ],
}
# What stays: the fault, and a word of the message that a person needs.
STAYING = {
    "401": ({"type": "status", "status": 401, "message": f"no {CANARY}"}, "rejected the access"),
    "403": ({"type": "missing_scope"}, "crm.objects.deals.read"),
    "404": ({"type": "status", "status": 404, "body": "html"}, "HUBSPOT_DEALS_HUBSPOT_URL"),
    "429": ({"type": "burst_429"}, "ten-second limit"),
    "HTML": ({"type": "html_200"}, "without valid JSON"),
    "stalled": ({"type": "stall", "seconds": 60}, "Timeout"),
}
# What is known to pass, but not soon: the fault, and the most seconds until then.
LATER = {
    "the day's 429": ({"type": "daily_429"}, 86_400 + 60),
    "429": ({"type": "status", "status": 429, "headers": {"Retry-After": "3600"}}, 3_600),
    "locked": ({"type": "status", "status": 423, "headers": {"Retry-After": "86400"}}, 86_400),
    "moving": ({"type": "status", "status": 477, "headers": {"Retry-After": "7200"}}, 7_200),
    "down": ({"type": "status", "status": 503, "headers": {"Retry-After": "600"}}, 600),
}


@pytest.fixture(scope="module")
def account():
    """450 live and 45 archived deals; every test clears its faults away."""
    with SandboxProcess(deals=450, archived_share=0.1, **FAST) as running:
        yield running


@pytest.fixture
def faulty(account):
    """The account, without faults and counts of earlier tests."""
    account.control.reset()
    yield account
    account.control.reset()


def wanted(account):
    return {deal["id"] for deal in account.control.deals(archived=False)}


def stored(query):
    return [deal_id for (deal_id,) in query("SELECT id FROM hubspot_deals.deals ORDER BY row_no")]


@pytest.mark.parametrize("name", PASSING)
def test_faults_that_pass_leave_no_trace_in_the_rows(accept, run_job, look_up, query, faulty, name):
    for position, (fault, times) in enumerate(PASSING[name]):
        faulty.control.add_fault(fault, match=LIST, after=1 + 2 * position, times=times)
    accept()
    assert run_job(hubspot_url=faulty.url, request_timeout_seconds=0.5, retry_seconds=10).success
    rows = stored(query)
    assert len(rows) == len(set(rows))
    assert set(rows) == wanted(faulty)
    assert all(rule["struck"] for rule in faulty.control.faults())
    assert look_up().records_extracted == 450


def test_every_kind_of_request_is_repeated(accept, run_job, query, faulty):
    for kind in ("account", "properties", "pipelines", "owners", "search"):
        faulty.control.add_fault({"type": "cut_body"}, match={"kind": kind})
    accept(filters=FILTERED)
    assert run_job(hubspot_url=faulty.url).success
    assert [rule["struck"] for rule in faulty.control.faults()] == [1] * 5
    assert len(stored(query)) == len(set(stored(query))) > 400


@pytest.mark.parametrize("name", STAYING)
def test_a_fault_that_stays_fails_the_scan_with_its_cause_and_soon(
    accept, run_job, look_up, query, faulty, name
):
    fault, cause = STAYING[name]
    faulty.control.add_fault(fault, match=LIST, after=3, times=None)
    accept(token=SecretStr(CANARY))
    began = time.monotonic()
    result = run_job(
        hubspot_url=faulty.url, chunk_rows=100, request_timeout_seconds=0.3, retry_seconds=1
    )
    assert time.monotonic() - began < within(10)
    assert not result.success
    scan = look_up()
    assert scan.status is ScanStatus.FAILED
    assert cause in scan.error_message
    assert "\n" not in scan.error_message
    assert CANARY not in scan.error_message
    assert not any(CANARY in str(event) for event in result.all_events)
    # Earlier rows are kept for a rerun, but nobody is served an incomplete scan.
    assert query("SELECT count(*) >= 100 FROM hubspot_deals_extraction.deals") == [(True,)]
    assert stored(query) == []


@pytest.mark.parametrize("name", LATER)
def test_a_scan_pauses_until_the_moment_that_hubspot_names(
    accept, run_job, look_up, query, faulty, name
):
    fault, most = LATER[name]
    faulty.control.add_fault(fault, match=LIST, after=3, times=None)
    accept()
    run_job(hubspot_url=faulty.url, chunk_rows=100)
    scan = look_up()
    assert scan.status is ScanStatus.PAUSED, scan.error_message
    assert 0 < (scan.resume_at - datetime.now(UTC)).total_seconds() <= most
    assert query("SELECT count(*) >= 100 FROM hubspot_deals_extraction.deals") == [(True,)]


def test_what_only_explains_deals_is_left_out_with_a_note(accept, run_job, look_up, query, faulty):
    faulty.control.add_fault({"type": "missing_scope"}, match={"kind": "owners"}, times=None)
    accept()
    assert run_job(hubspot_url=faulty.url).success
    assert set(stored(query)) == wanted(faulty)
    [note] = look_up().metadata["notes"]
    assert note.startswith("users holds only the owner ids found on deals.")


@pytest.mark.parametrize(
    ("kind", "fault", "cause"),
    [
        ("properties", {"type": "html_200"}, "properties"),
        ("pipelines", {"type": "status", "status": 503, "body": "html"}, "pipelines"),
        ("owners", {"type": "status", "status": 502, "body": "html"}, "owners"),
        ("list", {"type": "cursor_loop"}, "cursor"),
    ],
)
def test_the_message_names_what_was_asked(accept, run_job, look_up, query, kind, fault, cause):
    with SandboxProcess(deals=250, owners=150, **FAST) as account:
        after = 1 if kind == "list" else 0
        account.control.add_fault(fault, match={"kind": kind}, after=after, times=None)
        accept()
        assert not run_job(hubspot_url=account.url, retry_seconds=0.5).success
    assert look_up().status is ScanStatus.FAILED
    assert cause in look_up().error_message
    assert stored(query) == []


def test_a_search_that_fails_on_its_second_page_fails_a_filtered_scan(
    accept, run_job, look_up, faulty
):
    match = {"kind": "search", "body_contains": '"limit":200'}
    faulty.control.add_fault({"type": "html_200"}, match=match, after=1, times=None)
    accept(filters=FILTERED)
    assert not run_job(hubspot_url=faulty.url, retry_seconds=0.5).success
    assert "search" in look_up().error_message


def test_a_full_scan_does_not_depend_on_the_search_that_only_counts(
    accept, run_job, look_up, query, faulty
):
    faulty.control.add_fault(
        {"type": "status", "status": 500}, match={"kind": "search"}, times=None
    )
    accept()
    assert run_job(hubspot_url=faulty.url, retry_seconds=0.5).success
    assert set(stored(query)) == wanted(faulty)
    assert look_up().records_expected is None


def test_a_message_that_postgresql_cannot_hold_is_still_recorded(accept, run_job, look_up, faulty):
    message = f"gone \x00 {CANARY} " + "x" * 5_000
    faulty.control.add_fault(
        {"type": "status", "status": 400, "message": message}, match=LIST, after=2, times=None
    )
    accept(token=SecretStr(CANARY))
    assert not run_job(hubspot_url=faulty.url).success
    scan = look_up()
    assert scan.status is ScanStatus.FAILED
    assert "HTTP 400: gone [access token] xxx" in scan.error_message
    assert len(scan.error_message) < 1_000


def test_a_scan_from_the_epoch_on_is_exact(accept, run_job, query, faulty):
    span = DateRange(date(1970, 1, 1), date(2030, 1, 1))
    accept(filters=ScanFilters(("dealname",), date_range=span))
    assert run_job(hubspot_url=faulty.url, retry_seconds=0.5).success
    dated = {
        deal["id"]
        for deal in faulty.control.deals(archived=False)
        if deal["properties"]["createdate"]
    }
    assert set(stored(query)) == dated


def test_after_the_fault_is_gone_the_scan_goes_on_and_is_exact(
    accept, run_job, look_up, query, faulty
):
    faulty.control.add_fault({"type": "status"}, match=LIST, after=4, times=None)
    accept()
    assert not run_job(hubspot_url=faulty.url, chunk_rows=100, retry_seconds=1).success
    faulty.control.reset()
    assert run_job(hubspot_url=faulty.url, chunk_rows=100).success
    rows = stored(query)
    assert len(rows) == len(set(rows))
    assert set(rows) == wanted(faulty)
    assert look_up().error_message is None
