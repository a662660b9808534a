"""Requests stay inside HubSpot's budgets. Time is the event loop's own, and passes at once."""

import asyncio
import selectors
import time
from bisect import bisect_right
from itertools import pairwise

import pytest

from hubspot_deals.source.governor import BURST_SECONDS, Budget, Governor, LocalPace


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting, it moves the clock on by what would have been waited."""

    now = 1_000.0

    def select(self, timeout=None):
        # Never not at all: real time passes too, and the limiter waits for rounding errors.
        self.now += max(timeout or 0.0, 1e-6)
        return super().select(0)


class _VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self):
        return self._clock.now


def run_in_virtual_time(coroutine):
    with asyncio.Runner(loop_factory=_VirtualTimeLoop) as runner:
        return runner.run(coroutine)


async def admissions(governor, budget, count, *, idle=None):
    """The moments at which requests may go; `idle` is a pause after so many of them."""
    loop = asyncio.get_running_loop()
    moments = []
    for number in range(count):
        if idle and number == idle[0]:
            await asyncio.sleep(idle[1])
        await governor.admit(budget)
        moments.append(loop.time())
    return moments


def most_in_a_window(moments, seconds):
    return max(
        bisect_right(moments, begin + seconds) - index for index, begin in enumerate(moments)
    )


@pytest.mark.parametrize("limit", [100, 110, 190, 250])
@pytest.mark.parametrize("idle", [None, (120, 7.3), (1, 60.0)])
def test_no_ten_seconds_hold_more_than_the_burst_limit(limit, idle):
    async def scenario():
        governor = Governor()
        governor.observe({"X-HubSpot-RateLimit-Max": str(limit)})
        return await admissions(governor, Budget.BURST, 6 * limit, idle=idle)

    moments = run_in_virtual_time(scenario())
    assert 0.9 * limit < most_in_a_window(moments, BURST_SECONDS) <= limit


def test_no_second_holds_more_than_the_search_limit_however_many_ask_at_once():
    async def scenario():
        governor = Governor()
        runs = await asyncio.gather(*(admissions(governor, Budget.SEARCH, 10) for _ in range(10)))
        return sorted(moment for run in runs for moment in run)

    moments = run_in_virtual_time(scenario())
    assert len(moments) == 100
    assert most_in_a_window(moments, 1.0) == 5


def test_searches_and_ordinary_calls_do_not_share_a_budget():
    async def scenario():
        governor = Governor()
        await admissions(governor, Budget.SEARCH, 50)
        began = asyncio.get_running_loop().time()
        await governor.admit(Budget.BURST)
        return asyncio.get_running_loop().time() - began

    assert run_in_virtual_time(scenario()) < 0.001


def test_the_pace_follows_the_headers_of_the_account():
    async def scenario():
        governor = Governor()
        governor.observe({"X-HubSpot-RateLimit-Max": "100"})
        slow = await admissions(governor, Budget.BURST, 50)
        governor.observe({"X-HubSpot-RateLimit-Max": "250"})
        fast = await admissions(governor, Budget.BURST, 50)
        return slow[-1] - slow[0], fast[-1] - fast[0]

    slow, fast = run_in_virtual_time(scenario())
    assert fast < slow / 2


@pytest.mark.parametrize(
    "value",
    [None, "", "0", "-5", "many", "1e3", "²", "٣٣٣", "9" * 5_000, "10.5"],
)
def test_a_header_that_is_no_limit_changes_nothing(value):
    async def scenario():
        governor = Governor()
        governor.observe({} if value is None else {"X-HubSpot-RateLimit-Max": value})
        return await admissions(governor, Budget.BURST, 200)

    assert 170 < most_in_a_window(run_in_virtual_time(scenario()), BURST_SECONDS) <= 190


def test_a_refusal_closes_its_budget_for_a_while_and_no_other():
    async def scenario():
        governor = Governor(searches_per_second=1_000)
        governor.close(Budget.SEARCH, 0.2)
        governor.close(Budget.SEARCH, 0.01)  # a shorter one does not open it earlier
        began = time.monotonic()
        await governor.admit(Budget.BURST)
        ordinary = time.monotonic() - began
        await governor.admit(Budget.SEARCH)
        return ordinary, time.monotonic() - began, governor.throttled_seconds

    ordinary, search, throttled = asyncio.run(scenario())
    assert ordinary < 0.1
    assert 0.2 <= search < 1
    assert throttled == pytest.approx(search, abs=0.05)


def test_a_window_that_is_full_is_left_to_drain():
    async def scenario():
        governor = Governor()
        governor.observe({"X-HubSpot-RateLimit-Remaining": "1"})
        assert governor.closed_for(Budget.BURST) == 0
        governor.observe({"X-HubSpot-RateLimit-Remaining": "0"})
        assert 0.9 < governor.closed_for(Budget.BURST) <= 1
        assert governor.closed_for(Budget.SEARCH) == 0

    asyncio.run(scenario())


def test_governors_that_share_a_pace_stay_inside_the_budget_together_and_fair():
    async def scenario():
        pace = LocalPace()
        governors = [Governor(pace=pace) for _ in range(4)]
        runs = await asyncio.gather(
            *(admissions(governor, Budget.BURST, 190) for governor in governors)
        )
        return runs, sorted(moment for run in runs for moment in run)

    runs, moments = run_in_virtual_time(scenario())
    assert 170 < most_in_a_window(moments, BURST_SECONDS) <= 190
    ends = [run[-1] for run in runs]
    assert max(ends) - min(ends) < 2


def test_scans_of_one_account_share_its_searches_and_not_their_apps_bursts():
    async def scenario():
        pace = LocalPace()
        governors = [Governor(pace=pace, app=f"app-{number}") for number in range(2)]
        for governor in governors:
            governor.name_account("portal 7")
        searches = await asyncio.gather(
            *(admissions(governor, Budget.SEARCH, 20) for governor in governors)
        )
        bursts = await asyncio.gather(
            *(admissions(governor, Budget.BURST, 190) for governor in governors)
        )
        return [sorted(moment for run in runs for moment in run) for runs in (searches, bursts)]

    searches, bursts = run_in_virtual_time(scenario())
    assert most_in_a_window(searches, 1.0) == 5
    assert 340 < most_in_a_window(bursts, BURST_SECONDS) <= 380


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_no_more_than_the_share_of_a_budget_is_used(share):
    async def scenario():
        governor = Governor(share=share)
        return (
            await admissions(governor, Budget.BURST, 400),
            await admissions(governor, Budget.SEARCH, 30),
        )

    bursts, searches = run_in_virtual_time(scenario())
    assert most_in_a_window(bursts, BURST_SECONDS) <= 190 * share
    assert most_in_a_window(searches, 10.0) <= 50 * share + 1


def test_refusals_caused_by_others_slow_the_pace_and_it_recovers():
    async def scenario():
        governor = Governor()
        usual = await admissions(governor, Budget.BURST, 100)
        governor.close(Budget.BURST, 0.0)
        slowed = await admissions(governor, Budget.BURST, 100)
        await admissions(governor, Budget.BURST, 300)
        again = await admissions(governor, Budget.BURST, 100)
        return [moments[-1] - moments[0] for moments in (usual, slowed, again)]

    usual, slowed, again = run_in_virtual_time(scenario())
    assert slowed > 1.1 * usual
    assert again == pytest.approx(usual, rel=0.1)


def test_a_process_that_misses_its_slot_takes_another_one():
    """Else what was held up would go at once with what comes after it."""

    async def scenario():
        loop = asyncio.get_running_loop()
        governor = Governor(searches_per_second=10)
        moments = []

        async def ask():
            await governor.admit(Budget.SEARCH)
            moments.append(loop.time())

        loop.call_later(0.15, time.sleep, 0.4)  # four slots pass
        await asyncio.gather(*(ask() for _ in range(6)))
        return sorted(moments)

    moments = asyncio.run(scenario())
    gaps = [late - early for early, late in pairwise(moments)]
    assert max(gaps) > 0.3
    assert min(gaps) > 0.05
