"""Changes of a stretch of time: exact for ties, for big ones, and for an index that lags."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from hubspot_deals.source import searching
from hubspot_deals.source.changes import OVERLAP, open_changes
from hubspot_deals.source.client import ConnectionOptions, HubSpotClient
from hubspot_sandbox.testing import GOOD_TOKEN, SandboxProcess
from tests.unit.living_account import FAST, HOUR, account_of

NAMES = ("amount", "hs_lastmodifieddate")
LONG = 400 * 24 * HOUR


def read(account, since, **options):
    """The amounts by id, how often ids came, and the stream."""
    with open_changes(account, since, NAMES, **options) as stream:
        deals = [deal for page in stream.pages for deal in page.deals]
    assert len({deal["id"] for deal in deals}) == len(deals)
    return {deal["id"]: deal["properties"]["amount"] for deal in deals}, stream


@pytest.fixture
def sandbox():
    with SandboxProcess(deals=600, **FAST) as running:
        running.control.advance(LONG)
        yield running


def test_time_is_hubspots(sandbox):
    """The sandbox's clock is a year ahead, as a worker's may be by minutes."""
    with account_of(sandbox) as account:
        behind = sandbox.control.state()["now_ms"] / 1000 - account.now().timestamp()
    assert 0 <= behind < 3


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Abc 2026 00:00:00 GMT"])
def test_without_a_readable_date_time_is_this_machines(date):
    client = HubSpotClient(SecretStr(GOOD_TOKEN), ConnectionOptions())
    client._observe_time(date)
    assert abs(client.now() - datetime.now(UTC)) < timedelta(seconds=5)


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
def test_a_date_without_a_zone_is_universal_time(zone):
    client = HubSpotClient(SecretStr(GOOD_TOKEN), ConnectionOptions())
    client._observe_time(f"Sat, 01 Jan 2028 00:00:00 {zone}")
    assert abs(client.now() - datetime(2028, 1, 1, tzinfo=UTC)) < timedelta(seconds=5)


def test_only_what_was_changed_since_is_read_and_the_cursor_moves_to_the_start_of_the_run(sandbox):
    with account_of(sandbox) as account:
        since = account.now()
        assert read(account, since)[0] == {}
        changed = [deal["id"] for deal in sandbox.control.deals(archived=False)[5:9]]
        sandbox.control.advance(600)
        sandbox.control.update(changed, {"amount": "77"})
        sandbox.control.advance(600)
    with account_of(sandbox) as account:
        before = account.counts.requests
        found, stream = read(account, since)
        assert found == dict.fromkeys(changed, "77")
        assert account.counts.requests - before == 2
        assert stream.is_proved
        assert since + timedelta(seconds=1_198) <= stream.cursor
        assert stream.cursor.timestamp() * 1_000 <= sandbox.control.state()["now_ms"]
        assert read(account, stream.cursor)[0] == {}
        # The upper end, for what is read again by stretches of time.
        early, stream = read(account, since, until=since + timedelta(seconds=300))
        assert (early, stream.cursor) == ({}, since + timedelta(seconds=300))


def test_a_change_that_the_index_has_not_seen_is_read_by_the_next_run(sandbox):
    deal = sandbox.control.deals(archived=False)[3]["id"]
    with account_of(sandbox) as account:
        since = account.now()
        sandbox.control.advance(3_600)
        sandbox.control.update([deal], {"amount": "5"})
        sandbox.control.advance(10)
    with account_of(sandbox) as account:
        found, first = read(account, since)
        assert (found, first.is_proved) == ({}, True)
        sandbox.control.advance(30)
    with account_of(sandbox) as account:
        assert first.cursor - OVERLAP < account.now() - timedelta(seconds=45)
        assert read(account, first.cursor)[0] == {deal: "5"}
        assert read(account, first.cursor, overlap=timedelta())[0] == {}


def test_a_deal_that_was_changed_again_comes_with_its_newest_values(sandbox):
    deal = sandbox.control.deals(archived=False)[3]["id"]
    with account_of(sandbox) as account:
        since = account.now()
        sandbox.control.update([deal], {"amount": "1"})
        sandbox.control.advance(60)
    with account_of(sandbox) as account:
        until = account.now()
        sandbox.control.advance(20)
        sandbox.control.update([deal], {"amount": "2"})
        found, stream = read(account, since, until=until)
        assert (found, stream.cursor) == ({deal: "2"}, until)


def test_what_the_index_matches_by_an_old_value_is_checked_again(sandbox):
    """A time of change that was set back: HubSpot never does that, a stale index looks like it."""
    deal = sandbox.control.deals(archived=False)[3]["id"]
    with account_of(sandbox) as account:
        since = account.now()
        sandbox.control.update([deal], {"amount": "1"})
        sandbox.control.advance(60)
        sandbox.control.update([deal], modified_at=1_700_000_000_000)
        assert read(account, since, until=since + timedelta(seconds=50))[0] == {}


def test_a_search_that_was_not_proved_leaves_the_cursor_and_what_it_found_is_true(sandbox):
    first, second = [deal["id"] for deal in sandbox.control.deals(archived=False)[3:5]]
    with account_of(sandbox) as account:
        since = account.now()
        sandbox.control.update([first, second], {"amount": "9"})
        sandbox.control.advance(60)
    # Counted by the index for some seconds more, and no longer shown.
    sandbox.control.archive([second])
    with account_of(sandbox) as account:
        before = account.counts.requests
        found, stream = read(account, since)
        assert (found, stream.is_proved, stream.cursor) == ({first: "9"}, False, since)
        assert account.counts.requests - before < 5
        listed, stream = read(account, since, or_list=True)
        assert (listed, stream.is_proved) == ({first: "9"}, True)
        assert stream.cursor > since
        sandbox.control.advance(31)
        assert read(account, since)[1].is_proved


def test_a_refused_search_is_no_empty_one(sandbox):
    with account_of(sandbox) as account:
        since = account.now()
        fault = {"type": "status", "status": 400}
        sandbox.control.add_fault(fault, match={"kind": "search"}, times=None)
        _, stream = read(account, since)
        assert (stream.is_proved, stream.cursor) == (False, since)


def test_twenty_thousand_deals_of_one_millisecond_are_read_once_each(monkeypatch):
    monkeypatch.setattr(searching, "_RECOUNTS", (0.0, 0.1))
    with SandboxProcess(deals=25_000, **FAST) as sandbox:
        sandbox.control.advance(LONG)
        with account_of(sandbox) as account:
            since = account.now()
        sandbox.control.advance(600)
        sandbox.control.update(20_000, {"amount": "3"})
        sandbox.control.advance(31)
        with account_of(sandbox) as account:
            before = account.counts.requests
            found, stream = read(account, since)
            assert (len(found), set(found.values())) == (20_000, {"3"})
            assert stream.is_proved
            assert account.counts.requests - before < 130
            assert len(read(account, stream.cursor)[0]) == 20_000, "within the overlap"


def test_a_run_that_was_killed_goes_on_where_it_was(monkeypatch):
    monkeypatch.setattr(searching, "_RECOUNTS", (0.0, 0.1))
    with SandboxProcess(deals=4_000, **FAST) as sandbox:
        sandbox.control.advance(LONG)
        with account_of(sandbox) as account:
            since = account.now()
        sandbox.control.update(3_000, {"amount": "3"})
        sandbox.control.advance(60)
        done, start, until = [], None, None
        for pages in (1, 3, 6, 100):
            with account_of(sandbox) as account:
                earlier = [(deal_id, None) for deal_id in done]
                options = {"start": start, "earlier": earlier, "until": until}
                with open_changes(account, since, NAMES, **options) as stream:
                    until = stream.until
                    for page, _ in zip(stream.pages, range(pages), strict=False):
                        done += [deal["id"] for deal in page.deals]
                        start = page.checkpoint
        assert (len(done), len(set(done))) == (3_000, 3_000)
        assert (stream.is_proved, stream.cursor) == (True, until)
