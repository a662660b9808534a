"""A simulated account is synchronized again and again: after each run the copy is the truth."""

import random
from functools import partial
from threading import Event, Thread

from hubspot_deals.source.associations import read_associations
from hubspot_deals.source.endpoints import ASSOCIATED
from hubspot_deals.source.fates import End
from hubspot_deals.source.stage_history import CUT_AT, read_stage_history
from hubspot_sandbox.life import RATES
from hubspot_sandbox.testing import SandboxProcess
from tests.unit.living_account import BUSY, FAST, HOUR, LAG, account_of, differences, wrong_ends
from tests.unit.memory_warehouse import CALCULATED, Warehouse


def test_a_copy_is_the_account_after_each_of_thirty_runs():
    """Every third run begins while the index still lags; then only what is older must be right."""
    seed = 1
    rng = random.Random(seed)
    with SandboxProcess(deals=1_200, seed=seed, **FAST) as sandbox:
        warehouse = Warehouse()
        sandbox.control.advance(400 * 24 * HOUR)
        with account_of(sandbox) as account:
            warehouse.load(account)
        assert not differences(warehouse, sandbox)
        for number in range(30):
            seconds = rng.choice([60, HOUR, HOUR, 5 * HOUR, 26 * HOUR])
            sandbox.control.live_on(seconds, seed=seed * 1_000 + number, rates=BUSY)
            is_settled = number % 3 != 2
            if is_settled:
                sandbox.control.advance(LAG + 1)
            since = sandbox.control.state()["now_ms"] - (LAG + 1) * 1_000
            ignored = frozenset() if is_settled else sandbox.control.touched_since(since)
            with account_of(sandbox) as account:
                is_proved = warehouse.sync(account)
                assert is_proved or not is_settled
                assert not differences(warehouse, sandbox, ignored=ignored), number
                assert not wrong_ends(warehouse, sandbox, ignored=ignored), number
                if number % 5 == 4:
                    warehouse.refresh(account, list(warehouse.deals))
                    assert not differences(warehouse, sandbox, names=CALCULATED, ignored=ignored)
        ends = [end for end, _ in warehouse.tombstones.values()]
        assert min(ends.count(End.ARCHIVED), ends.count(End.MERGED), ends.count(End.DELETED)) > 3
        assert warehouse.restored > 3


def test_with_few_requests_a_run_only_leaves_open_what_it_says():
    """What is not found out in a run is known to be open, and the next ones find it."""
    quiet = dict.fromkeys(RATES, 0)
    with SandboxProcess(deals=6_000, seed=2, **FAST) as sandbox:
        warehouse, opened = Warehouse(), 0
        sandbox.control.advance(400 * 24 * HOUR)
        with account_of(sandbox) as account:
            warehouse.load(account)
        for number in range(16):
            rates = {"update": 40, "create": 5, "delete": 6} if number < 8 else {}
            sandbox.control.live_on(HOUR, seed=number, rates=quiet | rates)
            sandbox.control.advance(LAG + 1)
            with account_of(sandbox) as account:
                before = account.counts.requests
                warehouse.sync(account, most_requests=5, archived_pages=1)
                assert account.counts.requests - before < 20
            assert len(differences(warehouse, sandbox)) == warehouse.unlocated
            opened += warehouse.unlocated
        assert opened
        assert not warehouse.unlocated
        assert not wrong_ends(warehouse, sandbox)


def test_a_restore_that_moves_no_time_and_hides_a_deletion_is_found_by_the_list():
    """Whether restoring changes a deal is not known of HubSpot."""
    with SandboxProcess(deals=900, seed=3, **FAST) as sandbox:
        warehouse = Warehouse()
        sandbox.control.advance(HOUR)
        with account_of(sandbox) as account:
            warehouse.load(account)
        ids = sorted(warehouse.deals)
        with account_of(sandbox) as account:
            sandbox.control.archive([ids[5]])
            sandbox.control.advance(HOUR)
            warehouse.sync(account)
        modified = sandbox.control.deals(archived=True)[0]["updatedAt"]
        sandbox.control.restore([ids[5]])
        sandbox.control.update([ids[5]], modified_at=modified)
        sandbox.control.delete([ids[700]])
        sandbox.control.advance(HOUR)
        with account_of(sandbox) as account:
            warehouse.sync(account)
            assert len(differences(warehouse, sandbox)) == 2, "one hides the other from a count"
            warehouse.reconcile(account)
        assert not differences(warehouse, sandbox)
        assert warehouse.tombstones[ids[700]] == (End.DELETED, None)
        assert warehouse.restored == 1


def test_stages_and_associations_are_those_of_the_account():
    with SandboxProcess(deals=400, seed=4, **FAST) as sandbox:
        sandbox.control.advance(400 * 24 * HOUR)
        sandbox.control.live_on(48 * HOUR, seed=1, rates={"stage": 400, "associate": 60})
        ids = [deal["id"] for deal in sandbox.control.deals(archived=False, properties=["amount"])]
        with account_of(sandbox) as account:
            rows = account.ask(partial(read_associations, deal_ids=ids))
            stays = account.ask(partial(read_stage_history, deal_ids=ids))
        for kind in ASSOCIATED:
            found = {deal_id: [] for deal_id in ids}
            for row in rows:
                if row["object_type"] == kind:
                    found[row["deal_id"]].append(int(row["object_id"]))
            truth = sandbox.control.associations(ids, kind)
            assert {one: sorted(found[one]) for one in ids} == truth
        assert max(map(len, sandbox.control.associations(ids, "contacts").values())) > 200
        truth = sandbox.control.history(ids, "dealstage")
        assert max(map(len, truth.values())) > CUT_AT
        for one in ids:
            mine = [row for row in stays if row["deal_id"] == one]
            entered = [
                (row["stage_id"], int(row["entered_at"].timestamp() * 1_000 + 0.5)) for row in mine
            ]
            versions = [(item["value"], item["moment_ms"]) for item in truth[one]][:CUT_AT]
            assert entered == versions[::-1]
            assert all(row["is_cut"] == (len(truth[one]) >= CUT_AT) for row in mine)
            if mine:
                assert [row["left_at"] for row in mine[:-1]] == [
                    row["entered_at"] for row in mine[1:]
                ]


def test_whatever_happens_during_a_run_the_next_one_knows():
    """The account lives on between and during the requests of eight runs."""
    with SandboxProcess(deals=500, seed=6, **FAST) as sandbox:
        warehouse = Warehouse()
        sandbox.control.advance(400 * 24 * HOUR)
        with account_of(sandbox) as account:
            warehouse.load(account)
        busy = {name: 40 * rate for name, rate in (RATES | BUSY).items()}
        is_over = Event()

        def live() -> None:
            seed = 0
            while not is_over.is_set():
                seed += 1
                sandbox.control.live_on(20, seed=seed, rates=busy)

        living = Thread(target=live)
        living.start()
        try:
            for _ in range(8):
                with account_of(sandbox) as account:
                    warehouse.sync(account)
        finally:
            is_over.set()
            living.join()
        sandbox.control.advance(LAG + 1)
        with account_of(sandbox) as account:
            assert warehouse.sync(account)
            warehouse.sync(account)
        assert not differences(warehouse, sandbox)
        assert not wrong_ends(warehouse, sandbox)
