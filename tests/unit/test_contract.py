"""What the processes agree on: one status for any facts, configurations that survive storage."""

import json
from datetime import UTC, date, datetime
from itertools import product

import pytest

from hubspot_deals.contract import (
    DATE_FIELDS,
    DateRange,
    Outcome,
    ScanConfig,
    ScanFacts,
    ScanFilters,
    ScanStatus,
    derive_status,
)

FLAGS = (False, True)
ALL_FACTS = [
    ScanFacts(outcome, *flags)
    for outcome, *flags in product((None, *Outcome), FLAGS, FLAGS, FLAGS, FLAGS, FLAGS)
]


def expected(facts):
    """The mapping once more, as a table of first matches."""
    for holds, status in (
        (facts.outcome is Outcome.COMPLETED, ScanStatus.COMPLETED),
        (facts.outcome is Outcome.FAILED, ScanStatus.FAILED),
        (facts.outcome is Outcome.CANCELLED, ScanStatus.CANCELLED),
        (facts.is_paused, ScanStatus.PAUSED),
        (facts.is_held, ScanStatus.RUNNING),
        (facts.is_resuming, ScanStatus.RESUMING),
        (facts.has_started and facts.will_resume, ScanStatus.RESUMING),
        (facts.has_started, ScanStatus.CRASHED),
    ):
        if holds:
            return status
    return ScanStatus.PENDING


@pytest.mark.parametrize("facts", ALL_FACTS, ids=str)
def test_any_facts_have_one_status(facts):
    assert derive_status(facts) is expected(facts)


def test_an_outcome_is_final_whatever_else_is_said():
    for outcome in Outcome:
        said = {derive_status(facts) for facts in ALL_FACTS if facts.outcome is outcome}
        assert said == {ScanStatus(outcome.value)}


def test_every_status_can_be_reached():
    assert {derive_status(facts) for facts in ALL_FACTS} == set(ScanStatus)


DAY = date(2024, 2, 29)
RANGES = [
    None,
    *(
        DateRange(start, end, field)
        for start, end, field in product((None, DAY), (None, DAY), DATE_FIELDS)
    ),
]


@pytest.mark.parametrize("properties", [None, (), ("*",), ("dealname", "amount")])
@pytest.mark.parametrize("archived", FLAGS)
@pytest.mark.parametrize("span", RANGES, ids=str)
def test_a_configuration_comes_back_from_json(properties, archived, span):
    config = ScanConfig("scan-1", "org-1", filters=ScanFilters(properties, archived, span))
    assert ScanConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    "day", [date(1, 1, 1), date(1969, 12, 31), date(1970, 1, 1), DAY, date(9999, 12, 30)]
)
def test_a_day_holds_its_86_400_000_milliseconds(day):
    span = DateRange(day, day)
    first = datetime(day.year, day.month, day.day, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    assert span.first_millisecond == first.days * 86_400_000
    assert span.last_millisecond == span.first_millisecond + 86_400_000 - 1


def test_an_open_range_has_no_milliseconds():
    assert (DateRange().first_millisecond, DateRange().last_millisecond) == (None, None)
