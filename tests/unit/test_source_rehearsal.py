"""A rehearsal counts what the reader asks an imagined account, without waiting for anything."""

import asyncio
import time
from datetime import date

import pytest

from hubspot_deals.contract import DateRange, ScanFilters
from hubspot_deals.source.client import ConnectionOptions
from hubspot_deals.source.governor import Budget
from hubspot_deals.source.plan import build_plan
from hubspot_deals.source.rehearsal import ImaginedAccount, _SkippingLoop, rehearse, scale_of
from hubspot_deals.source.survey import _fill, tier_of
from tests.pace import within

YEAR = DateRange(date(2024, 1, 1), date(2024, 12, 31))
SLOW = {Budget.BURST: 0.3, Budget.SEARCH: 0.4}


def ids(number):
    return range(1_000_000, 1_000_000 + 50 * number, 50)


def rehearsed(live, *, archived=0, span=None, properties=("amount",), share=1.0, **facts):
    filters = ScanFilters(include_archived=archived > 0, date_range=span)
    account = ImaginedAccount(ids(live), archived=archived, **facts)
    return rehearse(build_plan(filters), properties, account, ConnectionOptions(share=share))


@pytest.mark.parametrize(("live", "pages"), [(0, 1), (1, 1), (100, 1), (101, 2), (1_000, 10)])
def test_few_deals_are_a_count_and_a_chain_of_pages(live, pages):
    rehearsal = rehearsed(live)
    assert (rehearsal.lists, rehearsal.searches, rehearsal.others) == (pages, 1, 0)


def test_archived_deals_are_a_chain_of_their_own():
    rehearsal = rehearsed(150, archived=301)
    assert (rehearsal.lists, rehearsal.searches) == (2 + 4, 1)


def test_a_range_is_counted_twice_and_searched():
    rehearsal = rehearsed(399, span=YEAR)
    assert (rehearsal.lists, rehearsal.searches) == (0, 2 + 2)


@pytest.mark.parametrize(("has_others", "asked"), [(True, (1, 4)), (False, (1, 3))])
def test_an_empty_range_is_tried_with_a_known_deal_if_there_is_one(has_others, asked):
    rehearsal = rehearsed(0, span=YEAR, has_others=has_others)
    assert (rehearsal.lists, rehearsal.searches) == asked


def test_properties_that_no_address_holds_cost_a_request_a_page():
    wide = [f"a_property_with_a_long_name_{number}" for number in range(200)]
    rehearsal = rehearsed(1_000, properties=wide)
    assert (rehearsal.lists, rehearsal.others) == (10, 10)


def test_a_big_account_is_read_by_list_and_search_at_once_in_no_time():
    began = time.monotonic()
    rehearsal = rehearsed(100_000, burst=190, latency=SLOW)
    assert time.monotonic() - began < within(5)
    assert 600 < rehearsal.lists < 750
    assert 150 < rehearsal.searches < 200
    assert 35 < rehearsal.seconds < 60


def test_slower_limits_take_longer_and_equal_rehearsals_are_equal():
    whole, half = rehearsed(10_000, burst=190), rehearsed(10_000, burst=190, share=0.5)
    assert 1.9 < half.seconds / whole.seconds < 2.2
    assert whole == rehearsed(10_000, burst=190)
    assert whole.seconds < rehearsed(10_000, burst=190, latency=SLOW).seconds < half.seconds


def test_an_account_that_is_too_big_to_rehearse_takes_in_proportion():
    small, big = rehearsed(100_000), rehearsed(100_000, archived=400, scale=4.0)
    assert (big.lists, big.searches) == (4 * (small.lists + 1), 4 * small.searches)
    # Seconds of settling are by the world's clock, by which rehearsing takes some too.
    assert big.seconds / small.seconds == pytest.approx(4, rel=0.1)
    assert [scale_of(deals) for deals in (0, 400_000, 1_000_000)] == [1, 1, 2.5]


def test_a_rehearsal_that_would_never_end_fails():
    async def stuck():
        await asyncio.Event().wait()

    with (
        pytest.raises(RuntimeError, match="nobody does"),
        asyncio.Runner(loop_factory=_SkippingLoop) as runner,
    ):
        runner.run(stuck())


def test_pieces_are_filled_with_as_many_deals_as_they_have():
    pieces = [(10, 20, 2), (0, 10, 0), (100, 103, 3)]
    assert _fill(pieces, 1.0) == [15, 20, 101, 102, 103]
    assert _fill(pieces, 2.0) == [20, 101, 103]


@pytest.mark.parametrize(
    ("burst", "daily", "name"),
    [
        (100, 250_000, "Free or Starter"),
        (190, 650_000, "Professional"),
        (190, 1_000_000, "Enterprise"),
        (250, 2_000_000, "with API limit increase"),
        (110, None, "public OAuth app"),
        (77, 250_000, None),
        (None, None, None),
    ],
)
def test_a_tier_is_told_by_its_limits(burst, daily, name):
    assert tier_of(burst, daily) == name
