"""A connection is synchronized into PostgreSQL: after each run its tables are the account."""

import random

import pytest

from hubspot_sandbox.testing import SandboxProcess
from tests.syncs.harness import check_replay, synced
from tests.unit.test_source_syncing import BUSY, FAST, HOUR, LAG


@pytest.fixture
def living():
    """An account that tests may change."""
    with SandboxProcess(deals=1_200, seed=1, **FAST) as sandbox:
        sandbox.control.advance(400 * 24 * HOUR)
        yield sandbox


@pytest.fixture
def account(database_url, living):
    with synced(database_url, living, chunk_rows=500) as account:
        yield account


def test_the_tables_are_the_account_after_each_of_thirty_runs(account):
    """Every third run begins while the index still lags; then only what is older must be right."""
    seed = 1
    rng, control = random.Random(seed), account.sandbox.control
    assert account.sync().kind == "first_load"
    assert not account.faults()
    assert not account.table("deal_changes")
    log, reached = account.copy().deals, 0
    reasons = set()
    for number in range(30):
        seconds = rng.choice([60, HOUR, HOUR, 5 * HOUR, 26 * HOUR])
        control.live_on(seconds, seed=seed * 1_000 + number, rates=BUSY)
        is_settled = number % 3 != 2
        if is_settled:
            control.advance(LAG + 1)
        since = control.state()["now_ms"] - (LAG + 1) * 1_000
        ignored = frozenset() if is_settled else control.touched_since(since)
        report = account.sync()
        assert report.is_proved or not is_settled
        assert not account.faults(ignored=ignored), number
        reached = account.replay(log, reached)
        check_replay(account, log)
        reasons |= report.tombstones.keys()
    assert reasons == {"archived", "merged", "deleted"}
    kinds = {row["kind"] for row in account.table("deal_changes")}
    assert kinds == {"created", "updated", "archived", "restored", "merged", "deleted"}
