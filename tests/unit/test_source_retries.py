"""How long to wait, and from when on to try again."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from zoneinfo import ZoneInfo

import pytest

from hubspot_deals.errors import (
    HubSpotAuthenticationError,
    HubSpotBusyError,
    HubSpotRateLimitError,
    HubSpotUnavailableError,
)
from hubspot_deals.source.governor import Budget
from hubspot_deals.source.retries import (
    RepeatableAnswer,
    asked_wait,
    day_is_over,
    final_error,
    next_reset,
    zone_of,
)

DAY = 86_400


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("007", 7),
        (str(DAY + 1), DAY),
        ("9" * 5_000, DAY),
        ("Fri, 31 Dec 9999 23:59:59 -1200", DAY),
    ],
)
def test_a_wait_is_asked_for_in_seconds_or_until_a_date(value, seconds):
    assert asked_wait({"Retry-After": value}) == seconds


@pytest.mark.parametrize("zone", [" GMT", " +0000", " -0000", ""])
def test_a_date_is_in_utc_whatever_it_says_of_that(zone):
    ahead = format_datetime(datetime.now(UTC) + timedelta(seconds=90)).removesuffix(" +0000")
    behind = format_datetime(datetime.now(UTC) - timedelta(seconds=90)).removesuffix(" +0000")
    assert 85 < asked_wait({"Retry-After": ahead + zone}) <= 90
    assert asked_wait({"Retry-After": behind + zone}) == 0


@pytest.mark.parametrize(
    "value", [None, "", "-1", "1.5", "soon", "²", "1e9", "Wed, 21 Oct 99999 07:28:00 GMT"]
)
def test_what_is_no_wait_is_none(value):
    assert asked_wait({} if value is None else {"Retry-After": value}) is None


@pytest.mark.parametrize(
    ("now", "zone", "expected"),
    [
        ("2026-01-15T12:00", "US/Eastern", "2026-01-16T05:00"),
        ("2026-07-15T03:59", "US/Eastern", "2026-07-15T04:00"),
        ("2026-07-15T04:00", "US/Eastern", "2026-07-16T04:00"),
        ("2026-03-08T05:30", "US/Eastern", "2026-03-09T04:00"),  # a day of 23 hours
        ("2026-11-01T04:30", "US/Eastern", "2026-11-02T05:00"),  # a day of 25 hours
        ("2026-12-31T23:00", "UTC", "2027-01-01T00:00"),
        ("2026-06-30T12:00", "Asia/Kathmandu", "2026-06-30T18:15"),
        ("2026-06-30T12:34", None, "2026-06-30T13:00"),
    ],
)
def test_a_day_ends_at_the_accounts_midnight_or_at_the_next_hour_if_that_is_unknown(
    now, zone, expected
):
    at = datetime.fromisoformat(f"{now}+00:00")
    ends = next_reset(at, zone and ZoneInfo(zone))
    assert ends == datetime.fromisoformat(f"{expected}+00:00")
    assert ends.utcoffset() == timedelta(0)


def test_scans_do_not_all_begin_again_at_once_unless_hubspot_says_so():
    moments = {day_is_over({}, ZoneInfo("UTC")) for _ in range(50)}
    assert len(moments) == 50
    assert max(moments) - min(moments) < timedelta(seconds=61)
    told = day_is_over({"Retry-After": "10"}, ZoneInfo("UTC")) - datetime.now(UTC)
    assert 9 < told.total_seconds() <= 10


@pytest.mark.parametrize("name", ["US/Eastern", "Europe/London", "Asia/Calcutta", "UTC"])
def test_zones_are_known_by_hubspots_names(name):
    assert zone_of(name) == ZoneInfo(name)


@pytest.mark.parametrize(
    "name",
    [None, "", 7, "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "America", "\0", "x" * 999],
)
def test_what_is_no_zone_is_unknown(name):
    assert zone_of(name) is None


@pytest.mark.parametrize(
    ("asked", "retry_time", "is_told"),
    [(None, 300, False), (2, 300, False), (2, 1, True), (59, 300, False), (61, 300, True)],
)
@pytest.mark.parametrize("refused", [False, True])
def test_a_long_wait_that_hubspot_asks_for_has_an_end(asked, retry_time, is_told, refused):
    answer = RepeatableAnswer("HTTP 503", asked=asked, refused=refused)
    raised = final_error("GET /x", Budget.BURST, answer, seconds=5, retry_time=retry_time)
    free_at = getattr(raised, "free_at", None)
    assert (free_at is not None) is is_told
    if free_at is not None:
        assert 0 <= (free_at - datetime.now(UTC)).total_seconds() <= asked
    if refused:
        assert type(raised) is HubSpotRateLimitError
    else:
        assert type(raised) is (HubSpotBusyError if is_told else HubSpotUnavailableError)
    assert "GET /x" in str(raised)


def test_an_answer_with_an_error_of_its_own_raises_that():
    error = HubSpotAuthenticationError("GET /x", 401, "no")
    answer = RepeatableAnswer("no", error=error)
    assert final_error("GET /x", Budget.BURST, answer, seconds=1, retry_time=1) is error
