"""Another thread ends what an account is doing: at once, and whatever it is waiting for."""

import time
from contextlib import contextmanager
from threading import Timer

import pytest
from pydantic import SecretStr

from hubspot_deals.contract import DateRange, ScanFilters
from hubspot_deals.errors import PermanentError
from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.client import ConnectionOptions
from hubspot_deals.source.plan import build_plan
from hubspot_sandbox.testing import GOOD_TOKEN, SandboxProcess
from tests.pace import within

PLAN = build_plan(ScanFilters())
STALL = {"type": "stall", "seconds": 60}
LONG_WAIT = {"type": "status", "status": 429, "headers": {"Retry-After": "60"}}
DOWN = {"type": "status", "status": 503, "headers": {"Retry-After": "60"}}


class StopNowError(PermanentError):
    """Permanent, because those of optional requests are otherwise only noted."""


@pytest.fixture(scope="module")
def sandbox():
    with SandboxProcess(deals=1_000) as running:
        yield running


@pytest.fixture
def account(sandbox):
    sandbox.control.reset()
    options = ConnectionOptions(base_url=sandbox.url, request_timeout=90, retry_time=300)
    with HubSpotAccount(SecretStr(GOOD_TOKEN), options) as entered:
        yield entered
    sandbox.control.reset()


@contextmanager
def aborted_soon(account):
    """Gives a timer that aborts the account; the block must raise that, and soon after."""
    moments = []

    def abort():
        moments.append(time.monotonic())
        account.abort(StopNowError("stop now"))

    timer = Timer(0.3, abort)
    with pytest.raises(StopNowError, match="stop now"):
        yield timer
    timer.join()
    assert time.monotonic() - moments[0] < within(0.5)


@pytest.mark.parametrize("fault", [STALL, LONG_WAIT, DOWN], ids=["stall", "429", "503"])
def test_a_call_ends_at_once_while_it_stalls_or_waits(sandbox, account, fault):
    sandbox.control.add_fault(fault, times=None)
    with aborted_soon(account) as timer:
        timer.start()
        account.check_access()
    assert account.notes == []


@pytest.mark.parametrize("fault", [STALL, LONG_WAIT, DOWN], ids=["stall", "429", "503"])
def test_a_consumer_that_waits_for_a_page_is_woken_up(sandbox, account, fault):
    sandbox.control.add_fault(fault, match={"kind": "list"}, after=5, times=None)
    read = 0
    with aborted_soon(account) as timer, account.open_deals(PLAN, ("dealname",)) as stream:
        for page in stream.pages:
            read += len(page.deals)
            if read == 500:
                timer.start()
    assert read == 500


def test_optional_calls_raise_it_too_instead_of_noting_it(sandbox, account):
    sandbox.control.add_fault(STALL, match={"kind": "owners"}, times=None)
    with aborted_soon(account) as timer:
        timer.start()
        account.fetch_owners()
    assert account.notes == []


def test_nothing_is_asked_after_it(sandbox, account):
    account.abort(StopNowError("first"))
    account.abort(StopNowError("second"))
    for call in (
        account.check_access,
        account.fetch_definitions,
        account.fetch_pipelines,
        account.fetch_owners,
        lambda: account.count_deals(None),
        lambda: account.open_deals(PLAN, ()).__enter__(),
    ):
        with pytest.raises(StopNowError, match="first"):
            call()
    assert account.counts.requests == 0


def test_pages_that_were_read_ahead_are_not_handed_out_any_more(sandbox, account):
    with account.open_deals(PLAN, ("dealname",)) as stream:
        next(stream.pages)
        asked = wait_until_steady(account)
        account.abort(StopNowError("stop now"))
        with pytest.raises(StopNowError):
            next(stream.pages)
    assert account.counts.requests == asked


def test_an_account_may_be_aborted_after_it_was_left(sandbox):
    options = ConnectionOptions(base_url=sandbox.url)
    with HubSpotAccount(SecretStr(GOOD_TOKEN), options) as account:
        account.check_access()
    account.abort(StopNowError("late"))


@pytest.mark.parametrize(
    ("filters", "at_once"),
    [(ScanFilters(), 100), (ScanFilters(date_range=DateRange(field="createdate")), 200)],
    ids=["list", "search"],
)
def test_a_loading_consumer_is_ahead_of_by_few_enough_deals(filters, at_once):
    with SandboxProcess(deals=12_000, archived_share=0) as many:
        options = ConnectionOptions(base_url=many.url, searches_per_second=1_000)
        with (
            HubSpotAccount(SecretStr(GOOD_TOKEN), options) as account,
            account.open_deals(build_plan(filters), ("createdate",)) as stream,
        ):
            next(stream.pages)
            wait_until_steady(account)
            ahead = len(stream.reader.seen)
    # A page at the consumer, one at the reader, and what is between them.
    assert 1_500 < ahead <= 1_600 + 2 * at_once
    # Beside one chunk that is being loaded and one that is being gathered.
    assert 2 * 4_000 + ahead <= 10_000


def wait_until_steady(account):
    """The requests sent, when for a while there were no more of them."""
    deadline, last, since = time.monotonic() + 20, -1, time.monotonic()
    while time.monotonic() < deadline:
        if account.counts.requests != last:
            last, since = account.counts.requests, time.monotonic()
        elif time.monotonic() - since > 0.5:
            return last
        time.sleep(0.02)
    pytest.fail("still reading")
