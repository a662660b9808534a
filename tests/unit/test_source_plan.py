"""Which ranges a scan reads, what it asks the search for, and what it takes as inside."""

import json
from datetime import date

import pytest

from hubspot_deals.contract import DateRange, ScanFilters
from hubspot_deals.source.plan import (
    Checkpoint,
    ListRange,
    SearchRange,
    above_id,
    build_plan,
    date_filters,
    is_inside,
)
from hubspot_deals.source.shards import Frontier, Proof, Shard

SPAN = DateRange(date(2024, 2, 1), date(2024, 2, 29), "closedate")
FIRST, LAST = 1_706_745_600_000, 1_709_251_199_999


def test_the_plan_follows_the_filters():
    assert build_plan(ScanFilters()) == [ListRange()]
    assert build_plan(ScanFilters(include_archived=True)) == [ListRange(), ListRange(archived=True)]
    assert build_plan(ScanFilters(date_range=SPAN)) == [SearchRange(SPAN)]
    assert build_plan(ScanFilters(include_archived=True, date_range=SPAN)) == [
        SearchRange(SPAN),
        ListRange(archived=True, filter=SPAN),
    ]


FRONTIER = Frontier(
    (Shard(5, 900), Shard(10_000), Shard(950, 1_400, Proof(900, 1_500, 200, 1_000))),
    read=7_000,
    count=20_000,
    searched=4,
    since=1_706_745_600_000,
)


@pytest.mark.parametrize(
    "checkpoint",
    [
        Checkpoint(),
        Checkpoint(1, "c7"),
        Checkpoint(2, None),
        Checkpoint(0, frontier=FRONTIER),
        Checkpoint(0, frontier=Frontier((), listed=True)),
    ],
)
def test_a_checkpoint_comes_back_from_json(checkpoint):
    stored = json.loads(json.dumps(checkpoint.to_json()))
    assert Checkpoint.from_json(stored) == checkpoint
    assert Checkpoint.from_json(None) == Checkpoint()


@pytest.mark.parametrize(
    ("span", "bounds"),
    [
        (None, None),
        (DateRange(), None),
        (SPAN, {"operator": "BETWEEN", "value": str(FIRST), "highValue": str(LAST)}),
        (DateRange(SPAN.start, None, "closedate"), {"operator": "GTE", "value": str(FIRST)}),
        (DateRange(None, SPAN.end, "closedate"), {"operator": "LTE", "value": str(LAST)}),
        # HubSpot answers 500 to a filter at the epoch.
        (DateRange(date(1970, 1, 1), None), None),
        (
            DateRange(date(1901, 1, 1), SPAN.end, "closedate"),
            {"operator": "LTE", "value": str(LAST)},
        ),
    ],
)
def test_the_search_asks_for_whole_days_in_milliseconds(span, bounds):
    assert date_filters(span) == ([{"propertyName": "closedate", **bounds}] if bounds else [])


def test_the_search_asks_for_ids_above_the_last_one():
    assert above_id(41) == {"propertyName": "hs_object_id", "operator": "GT", "value": "41"}


@pytest.mark.parametrize(
    ("value", "inside"),
    [
        ("2024-02-01T00:00:00.000Z", True),
        ("2024-01-31T23:59:59.999Z", False),
        ("2024-01-31T23:59:59.999999Z", False),
        ("2024-02-29T23:59:59.999Z", True),
        ("2024-02-29T23:59:59.999999Z", True),
        ("2024-03-01T00:00:00Z", False),
        ("2024-03-01T00:00:00+01:00", True),
        ("2024-02-01", True),
        (str(FIRST), True),
        (str(FIRST - 1), False),
        (str(LAST), True),
        (str(LAST + 1), False),
        (FIRST, True),
        ("", False),
        (None, False),
        ("soon", False),
        ("9" * 5_000, False),
    ],
)
def test_a_deal_is_inside_by_its_own_value(value, inside):
    assert is_inside({"properties": {"closedate": value}}, SPAN) is inside


def test_a_range_without_ends_wants_a_date_and_no_range_wants_nothing():
    assert is_inside({"properties": {}}, None)
    assert not is_inside({"properties": {}}, DateRange())
    assert is_inside({"properties": {"createdate": "1969-12-31"}}, DateRange())
