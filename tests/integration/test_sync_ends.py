"""Whatever ends a sync, and whoever works beside it: the next one ends exact."""

import random
from datetime import timedelta
from threading import Thread

import pytest
from pydantic import SecretStr

from hubspot_deals.errors import HubSpotAuthenticationError
from hubspot_deals.sync_errors import (
    ConnectionNotFoundError,
    PortalTakenError,
    SyncBusyError,
    SyncSupersededError,
    WrongPortalError,
)
from hubspot_deals.syncing.steps import SyncSteps
from hubspot_deals.warehouse.syncs import runs
from hubspot_deals.warehouse.syncs.launches import end_lost_runs, find_gaps
from hubspot_deals.warehouse.syncs.leases import hold_sync_lease
from hubspot_deals.warehouse.syncs.removal import remove_connection_data
from hubspot_sandbox.testing import SandboxProcess
from tests.syncs.harness import check_replay, kill_often, synced
from tests.unit.living_account import BUSY, FAST, HOUR, LAG

OTHER_TOKEN = SecretStr("another-token-0123456789")


@pytest.fixture
def living():
    """An account that tests may change."""
    with SandboxProcess(deals=2_000, seed=3, **FAST) as sandbox:
        sandbox.control.advance(400 * 24 * HOUR)
        yield sandbox


@pytest.fixture
def account(database_url, living):
    with synced(database_url, living, chunk_rows=100) as account:
        yield account


def live(account, hours=1.0, seed=1, **rates):
    account.sandbox.control.live_on(hours * HOUR, seed=seed, rates=BUSY | rates)
    account.sandbox.control.advance(LAG + 1)


def test_syncs_that_are_killed_leave_nothing_that_the_next_one_does_not_mend(account):
    rng = random.Random(5)
    killed = kill_often(account, rng, 3, 1.5)
    account.sync()
    assert not account.faults()
    log, reached = account.copy().deals, account.last_change
    for number in range(3):
        live(account, 8, seed=number)
        killed += kill_often(account, rng, 2, 0.7)
        assert account.sync().is_proved
        assert not account.faults()
        reached = account.replay(log, reached)
        check_replay(account, log)
    assert killed == 9
    ends = account.rows("SELECT outcome, count(*) AS n FROM hubspot_deals.sync_runs GROUP BY 1")
    assert {row["outcome"]: row["n"] for row in ends}["crashed"] == killed


def test_of_two_syncs_at_once_one_waits_or_is_sent_away(account):
    account.sync()
    live(account)
    reports, busy = [], []

    def sync(patience):
        try:
            reports.append(account.sync(patience=patience))
        except SyncBusyError as error:
            busy.append(error)

    together = [Thread(target=sync, args=(30,)) for _ in range(2)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert len(reports) == 2
    assert not busy
    assert not account.faults()
    with hold_sync_lease(account.settings.database_url, account.name):
        sync(0.2)
    assert len(busy) == 1
    assert "another run" in str(busy[0])
    changed = account.rows(
        "SELECT deal_id, modified_at FROM hubspot_deals_current.deal_changes"
        " WHERE kind = 'updated' GROUP BY 1, 2 HAVING count(*) > 1"
    )
    assert not changed, "nothing was noticed twice"


def test_a_missed_day_is_made_up_for_by_the_next_sync(account):
    account.sync()
    before = account.state["cursor"]
    live(account, 30)
    hour = timedelta(hours=1)
    report = account.sync(window=(before + 29 * hour, before + 30 * hour))
    assert report.kind == "changes"
    assert not account.faults()
    assert account.state["cursor"] >= before + 30 * hour
    account.sync(window=(before, before + hour))
    stretch = (account.name, before, before + 30 * hour)
    holes = find_gaps(account.settings.database_url, [stretch])[account.name]
    assert holes[0] == (before + hour, before + 29 * hour)


def test_a_deal_that_the_index_learns_of_in_mid_run_hides_none_that_vanished(account, monkeypatch):
    """Whoever counts finds as many as are known: one is gone, and one has come."""
    control = account.sandbox.control
    account.sync()
    gone = min(account.copy().deals)
    control.delete([gone])
    control.advance(LAG + 1)
    [new] = control.create({"dealname": "New"})
    read_archived = SyncSteps._read_archived

    def read_archived_later(steps):
        control.advance(LAG + 1)
        read_archived(steps)

    monkeypatch.setattr(SyncSteps, "_read_archived", read_archived_later)
    account.sync()
    assert new in account.copy().deals
    assert gone not in account.copy().deals
    assert not account.faults()


def test_a_window_that_is_over_is_read_again_and_moves_nothing(account):
    account.sync()
    before = account.state["cursor"]
    live(account, 3)
    account.sync()
    end = account.state["cursor"]
    changed = len(account.table("deal_changes"))
    account.rows(
        "UPDATE hubspot_deals_current.deals_current SET properties = properties || %s::jsonb,"
        " dealname = 'spoiled' WHERE hs_lastmodifieddate BETWEEN %s AND %s RETURNING id",
        '{"dealname": "spoiled"}',
        before,
        end,
    )
    assert account.faults()
    report = account.sync(window=(before, end))
    assert report.kind == "backfill"
    assert report.is_proved
    assert not account.faults()
    assert report.counts["deals_current"].updated == len(account.table("deal_changes")) - changed
    state = account.state
    assert (state["cursor"], state["run_no"]) == (end, 3)
    assert account.last_run["window_end"] == end


def test_a_token_that_expires_in_mid_sync_is_the_cause_and_a_new_one_goes_on(account):
    account.sandbox.control.add_fault(
        {"type": "expire_token"}, match={"kind": "associations"}, after=9
    )
    with pytest.raises(HubSpotAuthenticationError):
        account.sync()
    loaded = len(account.table("deals_current"))
    assert 0 < loaded < 2_000
    run = account.last_run
    assert (run["outcome"], run["kind"]) == ("failed", "first_load")
    assert "token" in run["error_message"]
    account.give_token(OTHER_TOKEN)
    account.sync()
    assert not account.faults()
    assert not account.table("deal_changes")
    live(account, 5)
    account.sandbox.control.add_fault(
        {"type": "expire_token"}, match={"kind": "associations"}, after=3
    )
    with pytest.raises(HubSpotAuthenticationError):
        account.sync()
    account.give_token(SecretStr("a-third-token-0123456789"))
    account.sync()
    assert not account.faults()


def fence(account, change):
    """A log that changes the connection when the first chunk is committed."""

    class Fencing:
        def info(self, *_):
            account.rows(
                f"UPDATE hubspot_deals.connections SET {change}, epoch = epoch + 1"
                " WHERE connection_id = %s RETURNING 1",
                account.name,
            )

    return Fencing()


@pytest.mark.parametrize("change", ["is_enabled = false", "removed_at = now()"])
def test_a_connection_that_is_paused_or_removed_stops_the_run(account, change, monkeypatch):
    monkeypatch.setattr("tests.syncs.harness.LOG", fence(account, change))
    with pytest.raises(SyncSupersededError):
        account.sync()
    monkeypatch.undo()
    assert 0 < len(account.table("deals_current")) < 2_000
    assert account.last_run["outcome"] == "cancelled"
    with pytest.raises((SyncSupersededError, ConnectionNotFoundError)):
        account.sync()
    account.rows(
        "UPDATE hubspot_deals.connections SET is_enabled = true, removed_at = NULL RETURNING 1"
    )
    account.sync()
    assert not account.faults()


def test_an_interrupt_is_a_cancellation_only_if_it_was_meant(account, monkeypatch):
    class Interrupting:
        def info(self, *_):
            raise KeyboardInterrupt

    monkeypatch.setattr("tests.syncs.harness.LOG", Interrupting())
    with pytest.raises(KeyboardInterrupt):
        account.sync()
    assert account.last_run["outcome"] is None
    assert end_lost_runs(account.settings.database_url) == [account.last_run["run_id"]]
    assert not end_lost_runs(account.settings.database_url)
    assert account.last_run["outcome"] == "crashed"
    with pytest.raises(KeyboardInterrupt):
        account.sync(is_cancelled=lambda: True)
    assert account.last_run["outcome"] == "cancelled"


def test_a_run_at_work_is_not_lost(account):
    with hold_sync_lease(account.settings.database_url, account.name) as lease:
        runs.begin_run(lease, "run", "changes", (None, None))
        assert not end_lost_runs(account.settings.database_url)
    assert len(end_lost_runs(account.settings.database_url)) == 1


def test_a_token_of_another_account_changes_nothing(account):
    account.sync()
    account.rows("UPDATE hubspot_deals.connections SET portal_id = 7 RETURNING 1")
    with pytest.raises(WrongPortalError, match="tables hold account 7"):
        account.sync()
    assert not account.faults()


def test_of_two_connections_to_one_account_the_second_says_what_to_do(account, living):
    account.sync()
    before = account.state["portal_id"]
    settings = account.settings.database_url.get_secret_value()
    with synced(settings, living, name="twin") as twin:
        with pytest.raises(PortalTakenError, match=rf"{before}, which connection main .* Remove"):
            twin.sync()
        assert twin.last_run["outcome"] == "failed"
        assert "Remove one of the two" in twin.last_run["error_message"]
        assert twin.state["portal_id"] is None
        assert not twin.table("deals_current")
        account.rows(
            "UPDATE hubspot_deals.connections SET removed_at = now()"
            " WHERE connection_id = 'main' RETURNING 1"
        )
        twin.sync()
        assert twin.state["portal_id"] == before


def test_a_first_load_goes_on_with_the_account_that_it_began_with(account, monkeypatch):
    monkeypatch.setattr("tests.syncs.harness.LOG", fence(account, "is_enabled = true"))
    with pytest.raises(SyncSupersededError):
        account.sync()
    assert account.state["cursor"] is None
    assert account.state["portal_id"] is not None


def test_a_removed_connection_is_deleted_bit_by_bit(account):
    account.sync()
    live(account, 2)
    account.sync()
    url, seq = account.settings.database_url, account.state["seq"]
    assert remove_connection_data(url, seq, seconds=5)
    assert account.table("deals_current"), "one that is there is left alone"
    account.rows("UPDATE hubspot_deals.connections SET removed_at = now() RETURNING 1")
    tries = 0
    while not remove_connection_data(url, seq, seconds=0.01):
        tries += 1
        assert tries < 200
    assert tries
    left = account.row("SELECT count(*) AS n FROM hubspot_deals.connections")["n"]
    for table in (
        "deals_current",
        "deal_changes",
        "deal_tombstones",
        "deal_associations",
        "owners",
    ):
        left += len(account.table(table))
    assert left == 0
