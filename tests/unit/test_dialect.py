"""How facts are told on the verb-first paths, and which grammar a path is of."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from api.dialect.grammar import is_verb_first
from api.dialect.schemas import ExtractionCreate, PageNumbers
from api.dialect.service import project
from api.error_bodies import Manner, error_response, manner, nest_faults
from api.errors import SourceUnavailableError
from api.health.meter import RequestMeter
from api.scans.schemas import ScanCreate
from hubspot_deals.contract import DateRange, ScanStatus
from tests.unit.test_api_projection import NOON, STARTED, record

AUTH = {"accessToken": "pat-na1-xxxxxxxx"}
BODY = {
    "scanId": "weekly-sync-001",
    "type": ["deals"],
    "auth": AUTH,
    "dateRange": {"startDate": "2024-01-01", "endDate": "2024-01-31"},
    "user_upns": ["alice@company.com"],
}


def faults_of(config, model=ExtractionCreate):
    try:
        model.model_validate({"config": config})
    except ValidationError as error:
        return nest_faults([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()])
    return {}


@pytest.mark.parametrize(
    ("facts", "state", "word", "users"),
    [
        ({"started_at": None, "is_held": False}, "pending", "pending", (0, 0, 0)),
        ({}, "running", "running", (0, 0, 0)),
        ({"is_paused": True}, "paused", "running", (0, 0, 0)),
        ({"is_paused": True, "started_at": None}, "paused", "pending", (0, 0, 0)),
        ({"is_held": False, "is_resuming": True}, "resuming", "running", (0, 0, 0)),
        ({"is_held": False, "will_resume": False}, "crashed", "failed", (1, 1, 0)),
        ({"outcome": "completed", "ended_at": NOON}, "completed", "completed", (1, 0, 1)),
        ({"outcome": "failed", "ended_at": NOON}, "failed", "failed", (1, 1, 0)),
        ({"outcome": "cancelled", "ended_at": NOON}, "cancelled", "cancelled", (0, 0, 0)),
    ],
)
def test_every_state_has_a_word_of_the_other_document(facts, state, word, users):
    shown = project(record(records_extracted=245, **facts), None)

    assert (shown.status, shown.state) == (word, ScanStatus(state))
    counts = shown.progress
    assert (counts.completed_users, counts.failed_users, counts.successful_users) == users
    assert (counts.total_users, counts.total_events_extracted) == (1, 245)
    assert counts.completed_users == counts.failed_users + counts.successful_users
    assert (shown.completed_at is None) == ("ended_at" not in facts)


def test_a_crashed_extraction_says_why_it_counts_as_failed():
    crashed = {"is_held": False, "will_resume": False}

    assert "worker is gone" in project(record(**crashed), None).error_message
    assert project(record(**crashed, error_message="why"), None).error_message == "why"


def test_the_last_change_is_the_latest_moment_that_is_known():
    later = STARTED + timedelta(days=1)

    assert project(record(), None).updated_at == NOON - timedelta(seconds=1)
    assert project(record(restarted_at=later), None).updated_at == later


@pytest.mark.parametrize(
    ("page", "size", "total", "pages", "following", "preceding"),
    [
        (1, 100, 0, 0, None, None),
        (1, 100, 100, 1, None, None),
        (1, 100, 101, 2, 2, None),
        (2, 100, 101, 2, None, 1),
        (2, 10, 1_500, 150, 3, 1),
        (9, 100, 101, 2, None, 2),
        (9, 100, 0, 0, None, None),
    ],
)
def test_pages_are_counted_with_nulls_at_the_ends(page, size, total, pages, following, preceding):
    shown = PageNumbers.of(page, size, total)

    assert (shown.total_pages, shown.next_page, shown.previous_page) == (
        pages,
        following,
        preceding,
    )
    assert (shown.has_next, shown.has_previous) == (following is not None, preceding is not None)
    assert shown.total_items == shown.total_events == total


def test_the_documented_request_needs_no_organization_and_has_its_dates_outside_the_filters():
    request = ExtractionCreate.model_validate({"config": BODY})

    config = request.to_config()
    assert (config.scan_id, config.organization_id) == ("weekly-sync-001", "default")
    assert config.scan_type == "deals"
    day = datetime(2024, 1, 1, tzinfo=UTC).date()
    assert config.filters.date_range == DateRange(day, day.replace(day=31))
    assert "user_upns does not narrow" in request.warnings()[0]


def test_the_other_mount_takes_the_same_request_with_an_organization():
    assert faults_of(BODY, ScanCreate) == {
        "config": {"organizationId": ["Organization ID is required"]}
    }
    assert faults_of(BODY | {"organization_id": "acme"}, ScanCreate) == {}


@pytest.mark.parametrize(
    ("changes", "place", "text"),
    [
        ({"filters": {"dateRange": BODY["dateRange"]}}, "dateRange", "given twice"),
        ({"user_upns": ["ok", "\n"]}, "user_upns", "User must be"),
        ({"user_upns": "alice"}, "user_upns", "must be a list"),
        ({"dateRange": {"startDate": "01.01.2024"}}, "dateRange", "YYYY-MM-DD"),
        ({"users": []}, "users", "Unknown field"),
        ({"scanId": "a b"}, "scanId", "Scan ID must be"),
        ({"type": []}, "type", 'Type must be ["user"] or ["deals"]'),
    ],
)
def test_faults_of_the_documented_request_are_named(changes, place, text):
    faults = faults_of(BODY | changes)

    assert faults["config"].keys() == {place}
    assert text in str(faults)


@pytest.mark.parametrize("model", [ScanCreate, ExtractionCreate])
@pytest.mark.parametrize("types", [["calendar"], ["deals", "calendar"]])
def test_calendars_are_refused_before_their_credential_is_looked_at(model, types):
    body = {"config": {"scanId": "a b", "type": types, "auth": {"[auth_key_1]": "x"}}}

    with pytest.raises(SourceUnavailableError, match="not available yet"):
        model.model_validate(body)


@pytest.mark.parametrize(
    ("method", "path", "at_root", "under_version"),
    [
        ("GET", "/scan/status/a", True, True),
        ("HEAD", "/scan/status/a", True, True),
        ("GET", "/scan/a/status", False, False),
        ("GET", "/scan/result/status", True, False),
        ("GET", "/scan/status/status", True, False),
        ("GET", "/scan/status/cancel", True, True),
        ("POST", "/scan/cancel/status", True, True),
        ("POST", "/scan/cancel/pause", True, False),
        ("POST", "/scan/status/pause", False, False),
        ("DELETE", "/scan/remove/remove", True, False),
        ("GET", "/scan/download/status", False, False),
        ("GET", "/scan/download/status/csv", True, True),
        ("POST", "/scan/start", True, False),
        ("PUT", "/scan/a/b", True, False),
        ("GET", "/results/a/result", False, False),
        ("GET", "/health", True, False),
        ("GET", "", True, False),
        ("GET", "/", True, False),
        ("OPTIONS", "*", True, True),
    ],
)
def test_every_path_is_of_one_grammar(method, path, at_root, under_version):
    assert is_verb_first(method, path) is at_root
    # Nothing can stand before an asterisk.
    prefixed = path if path == "*" else f"/api/v1{path}"
    expected = at_root if prefixed in {"*", "/api/v1"} else under_version
    assert is_verb_first(method, prefixed) is expected


def test_codes_are_spelt_as_the_callers_document_has_them():
    told = manner.set(Manner(generic_codes=True))
    try:
        generic = error_response(409, "SCAN_ACTIVE", "text").body
    finally:
        manner.reset(told)

    assert b'"error_code":"CONFLICT"' in generic
    assert b'"code":"SCAN_ACTIVE"' in generic
    assert b'"error_code":"SCAN_ACTIVE"' in error_response(409, "SCAN_ACTIVE", "text").body


def test_a_meter_counts_answers_and_forgets_faults_after_an_hour():
    meter = RequestMeter()
    for status in (200, 404, 500, 200):
        meter.count(status, 0.1)

    shown = meter.read(None)
    assert (shown.requests, shown.success_rate, shown.errors_last_hour) == (4, 75.0, 1)
    assert shown.average_milliseconds == 100.0
    assert shown.memory_bytes > 1_000_000
    meter._began -= 60 * 60
    assert meter.read(None).errors_last_hour == 0
    meter.count(503, 0.1)
    meter._began -= 60
    meter.count(503, 0.1)
    meter.count(503, 0.1)
    assert meter.read(None).errors_last_hour == 3


def test_an_unused_meter_has_no_errors_and_no_average():
    shown = RequestMeter().read(None)

    assert (shown.requests, shown.success_rate, shown.average_milliseconds) == (0, 100.0, 0.0)
    assert str(shown.uptime) == "0:00:00"
