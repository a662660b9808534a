"""One status follows from what is recorded of a connection."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from hubspot_deals.sync_contract import (
    Cadence,
    ConnectionFacts,
    ConnectionStatus,
    SyncOutcome,
    derive_connection_status,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def status(*, cadence=Cadence.HOURLY, age=None, enabled=True, syncing=False, last=None):
    facts = ConnectionFacts(
        is_enabled=enabled,
        is_syncing=syncing,
        fresh_as_of=None if age is None else NOW - age,
        last_outcome=last,
        cadence=cadence,
    )
    return derive_connection_status(facts, NOW)


@pytest.mark.parametrize(
    ("cadence", "age", "expected"),
    [
        (Cadence.HOURLY, timedelta(hours=2), ConnectionStatus.CURRENT),
        (Cadence.HOURLY, timedelta(hours=2, seconds=1), ConnectionStatus.BEHIND),
        (Cadence.DAILY, timedelta(hours=48), ConnectionStatus.CURRENT),
        (Cadence.DAILY, timedelta(hours=49), ConnectionStatus.BEHIND),
    ],
)
def test_two_partitions_without_news_are_behind(cadence, age, expected):
    assert status(cadence=cadence, age=age) is expected


def test_a_first_load_waits_or_is_under_way_and_fails_only_when_it_is_not():
    assert status() is ConnectionStatus.WAITING
    assert status(syncing=True) is ConnectionStatus.LOADING
    assert status(last=SyncOutcome.FAILED) is ConnectionStatus.FAILING
    assert status(last=SyncOutcome.FAILED, syncing=True) is ConnectionStatus.LOADING


def test_a_failure_stands_until_a_run_completes():
    hour = timedelta(hours=1)
    for outcome in (SyncOutcome.FAILED, SyncOutcome.CRASHED):
        assert status(age=hour, last=outcome) is ConnectionStatus.FAILING
        assert status(age=hour, last=outcome, syncing=True) is ConnectionStatus.FAILING
    assert status(age=hour, last=SyncOutcome.COMPLETED) is ConnectionStatus.CURRENT


def test_every_combination_has_a_status_and_paused_wins():
    ages = (None, timedelta(), timedelta(days=9))
    for cadence, age, syncing, last in product(Cadence, ages, (True, False), (None, *SyncOutcome)):
        given = {"cadence": cadence, "age": age, "syncing": syncing, "last": last}
        assert status(**given, enabled=False) is ConnectionStatus.PAUSED
        assert status(**given) in set(ConnectionStatus) - {ConnectionStatus.PAUSED}
