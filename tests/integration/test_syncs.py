"""A connection is synchronized into PostgreSQL: after each run its tables are the account."""

import random

import pytest

from hubspot_deals.contract import DATASET_NAME, ScanFilters
from hubspot_deals.scan import Launch, run_scan
from hubspot_deals.tables import DEALS_CURRENT, TABLES
from hubspot_deals.warehouse.syncs.staging import MergeCounts
from hubspot_sandbox.testing import SandboxProcess
from tests.syncs.harness import LOG, check_replay, synced
from tests.unit.living_account import BUSY, FAST, HOUR, LAG
from tests.unit.memory_warehouse import CALCULATED, PROPERTIES


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


def test_a_first_load_has_what_a_scan_has(account, accept, settings):
    """Column by column: both are typed by the same code, but merged and loaded in other ways."""
    scan = settings.model_copy(update={"hubspot_url": account.settings.hubspot_url})
    accept(filters=ScanFilters(properties=PROPERTIES))
    run_scan(scan, Launch("scan-1", "run", None), log=LOG, is_cancelled=lambda: False)
    account.sync()
    columns = ", ".join(DEALS_CURRENT.columns)
    differing = account.row(
        f"SELECT count(*) AS n FROM (SELECT {columns} FROM {DATASET_NAME}.deals"
        f" EXCEPT ALL SELECT {columns} FROM hubspot_deals_current.deals_current) d"
    )
    assert differing["n"] == 0
    assert account.row(f"SELECT count(*) AS n FROM {DATASET_NAME}.deals")["n"] == 1_200
    for mine, theirs in (("owners", "users"), ("pipelines",) * 2, ("pipeline_stages",) * 2):
        rows = [
            {name: row[name] for name in TABLES[theirs].columns}
            for row in account.table(mine, "3, 4")
        ]
        scanned = account.rows(f"SELECT * FROM {DATASET_NAME}.{theirs}")
        assert len(rows) == len(scanned) > 0
        assert all({name: row[name] for name in TABLES[theirs].columns} in rows for row in scanned)


def test_twenty_thousand_deals_of_one_moment_are_read_once_each(database_url):
    with (
        SandboxProcess(deals=20_300, seed=2, **FAST) as sandbox,
        synced(database_url, sandbox) as account,
    ):
        account.choose(objects=("owners", "pipelines"))
        sandbox.control.advance(HOUR)
        account.sync()
        sandbox.control.update(20_000, {"dealname": "All at once"})
        sandbox.control.advance(LAG + 1)
        report = account.sync()
        assert report.is_proved
        assert report.counts["deals_current"] == MergeCounts(20_000, updated=20_000)
        assert not account.faults()
        changed = account.row(
            "SELECT count(*) AS n, count(DISTINCT deal_id) AS deals,"
            " count(DISTINCT modified_at) AS moments FROM hubspot_deals_current.deal_changes"
        )
        assert changed == {"n": 20_000, "deals": 20_000, "moments": 1}
        assert account.sync().counts["deals_current"].updated == 0


def test_each_end_has_its_reason_and_each_return_is_known(account):
    control = account.sandbox.control
    account.sync()
    ids = sorted(account.copy().deals)
    archived, restored, loser, winner, deleted, purged = ids[:6]
    control.archive([archived, restored, purged])
    control.merge(winner, [loser])
    control.delete([deleted])
    control.advance(HOUR)
    account.sync()
    tombstones = {row["deal_id"]: row for row in account.table("deal_tombstones")}
    assert {one: row["reason"] for one, row in tombstones.items() if one in ids} == {
        archived: "archived",
        restored: "archived",
        purged: "archived",
        loser: "merged",
        deleted: "deleted",
    }
    assert tombstones[loser]["survivor"] == winner
    assert tombstones[archived]["archived_at"] is not None
    assert all(tombstones[one]["properties"]["dealname"] for one in ids[:6] if one != winner)
    control.restore([restored])
    control.delete([purged])
    control.advance(HOUR)
    account.sync()
    back = {row["deal_id"]: row["restored_at"] for row in account.table("deal_tombstones")}
    assert back[restored] is not None
    assert [one for one, moment in back.items() if moment] == [restored]
    control.archive([restored])
    control.advance(HOUR)
    account.sync()
    again = {row["deal_id"]: row for row in account.table("deal_tombstones")}[restored]
    assert again["restored_at"] is None
    assert again["archived_at"] > tombstones[restored]["archived_at"]
    kinds = [
        row["kind"] for row in account.table("deal_changes", "seq") if row["deal_id"] == restored
    ]
    assert kinds == ["archived", "restored", "archived"]
    assert not account.faults()


def test_all_associations_are_there_and_follow_on_their_cycle(account):
    control = account.sandbox.control
    one, other, gone = sorted(account.sandbox.control.deals(archived=False), key=by_id)[:3]
    ids = [deal["id"] for deal in (one, other, gone)]
    control.associate(ids, "contacts", list(range(1, 351)))
    account.choose(refresh_hours=24)
    account.sync()
    assert associated(account) == {one: set(range(1, 351)) for one in ids}
    control.associate(ids[:1], "contacts", [5, 1_000])
    control.update(ids[1:2], {"dealname": "Noticed"})
    control.associate(ids[1:2], "contacts", [6])
    control.archive(ids[2:])
    control.advance(60)
    account.sync()
    assert associated(account) == {ids[0]: set(range(1, 351)), ids[1]: {6}}
    control.advance(24 * HOUR)
    report = account.sync()
    assert report.refreshed == 1_199
    assert associated(account) == {ids[0]: {5, 1_000}, ids[1]: {6}}


def by_id(deal):
    return deal["id"]


def associated(account):
    found = {}
    for row in account.table("deal_associations"):
        if row["object_type"] == "contacts" and int(row["object_id"]) <= 1_000:
            found.setdefault(row["deal_id"], set()).add(int(row["object_id"]))
    return found


def test_calculated_values_are_as_of_what_their_row_says(account):
    """Each hour a part of the deals is read anew, in a day all of them."""
    control = account.sandbox.control
    account.choose(refresh_hours=24)
    account.sync()
    control.recalculate(1_200, {"health_score": "77"})
    control.advance(60)
    assert account.sync().refreshed == 0
    assert account.faults(names=CALCULATED)
    shares = []
    for _ in range(26):
        control.advance(HOUR)
        began = control.state()["now_ms"]
        report = account.sync()
        shares.append(report.refreshed)
        fresh = account.rows(
            "SELECT properties ->> 'health_score' AS score FROM"
            " hubspot_deals_current.deals_current WHERE extract(epoch FROM values_as_of) >= %s",
            began / 1_000 - 60,
        )
        assert all(row["score"] == "77" for row in fresh)
    assert max(shares) < 200
    assert not account.faults(names=CALCULATED)
    assert {row["kind"] for row in account.table("deal_changes")} == {"updated"}


def test_stays_in_stages_go_on_from_sync_to_sync(account):
    control = account.sandbox.control
    account.sync()
    [deal] = account.table("deals_current")[:1]
    before = [row for row in account.table("deal_stage_history") if row["deal_id"] == deal["id"]]
    assert before[-1]["left_at"] is None
    stages = [row["id"] for row in account.table("pipeline_stages")]
    other = next(stage for stage in stages if stage != deal["dealstage"])
    control.advance(HOUR)
    control.update([deal["id"]], {"dealstage": other})
    control.advance(HOUR)
    account.sync()
    after = [
        row
        for row in account.table("deal_stage_history", "entered_at, place")
        if row["deal_id"] == deal["id"]
    ]
    assert [row["stage_id"] for row in after[-2:]] == [deal["dealstage"], other]
    assert after[-2]["left_at"] == after[-1]["entered_at"]
    stay = after[-1]["entered_at"] - after[-2]["entered_at"]
    assert float(after[-2]["seconds"]) == stay.total_seconds()


def test_without_a_proof_the_cursor_stays_until_the_list_takes_its_place(account):
    control = account.sandbox.control
    account.sync()
    began = account.state["cursor"]
    control.update(3, {"dealname": "Noticed all the same"})
    control.advance(HOUR)
    for number in range(4):
        # A page of a search that is refused.
        control.add_fault({"type": "status", "status": 400}, match={"kind": "search"}, times=None)
        report = account.sync()
        assert report.kind == "reconciliation", "the search does not count either"
        state = account.state
        assert report.is_proved is (number == 3)
        assert (state["cursor"] > began) is (number == 3)
        assert state["unproved_runs"] == (0 if number == 3 else number + 1)
    assert not account.faults()


def test_what_the_token_may_not_read_is_said_and_left_as_it_is(account):
    account.sync()
    owners = len(account.table("owners"))
    control = account.sandbox.control
    for kind in ("owners", "associations"):
        control.add_fault({"type": "missing_scope"}, match={"kind": kind}, times=None)
    control.update(5, {"dealname": "Noticed"})
    control.advance(HOUR)
    report = account.sync()
    assert len(report.notes) == 2
    assert len(account.table("owners")) == owners
    assert all(row["removed_at"] is None for row in account.table("owners"))
    assert not account.faults()
    stale = account.row(
        "SELECT count(*) AS n FROM hubspot_deals_current.deals_current"
        " WHERE associations_as_of < values_as_of"
    )
    assert stale["n"] == 5


def test_tables_and_columns_say_what_they_hold(account):
    said = account.row(
        "SELECT obj_description('hubspot_deals_current.deal_tombstones'::regclass) AS table,"
        " col_description('hubspot_deals_current.deals_current'::regclass, ordinal_position)"
        " AS column FROM information_schema.columns"
        " WHERE table_name = 'deals_current' AND column_name = 'values_as_of'"
    )
    assert "restored_at" in said["table"]
    assert "read anew on a cycle" in said["column"]
