"""The certificate of a scan: what it proves, and what it finds out, on a real PostgreSQL."""

import hashlib
import random
import threading
import time
from datetime import date

import dagster as dg
import psycopg
import pytest
from pydantic import SecretStr

from api.dagster.testing import InMemoryDagsterGateway
from api.main import create_app
from api.settings import ApiSettings
from api.testing import serve
from hubspot_deals.contract import DateRange, ScanFilters, ScanStatus
from hubspot_sandbox.testing import SandboxProcess
from tests.conftest import FAST, TEST_KEYS

LONG_AGO = "2024-02-03T04:05:06.000Z"
DEALS = "hubspot_deals_extraction.deals"


@pytest.fixture
def client(database_url):
    settings = ApiSettings(database_url=SecretStr(database_url), encryption_keys=TEST_KEYS)
    with serve(create_app(settings, gateway=InMemoryDagsterGateway())) as client:
        yield client


@pytest.fixture
def certified(client):
    """Asks for a scan's certificate and returns the data of the answer."""

    def ask(scan_id="scan-1"):
        answer = client.get(f"/api/v1/results/{scan_id}/certificate")
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    return ask


@pytest.fixture
def tampering(database_url):
    """A connection behind the product's back."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def while_owners_are_fetched(account, change):
    """Hold the owners up, which are fetched when all deals are read, and change deals meanwhile."""
    account.control.add_fault({"type": "stall", "seconds": 1.5}, match={"kind": "owners"})

    def wait():
        while "owners" not in account.control.requests()["by_kind"]:
            time.sleep(0.02)
        change()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_scan_of_a_quiet_account_is_certified_by_an_equal_count(
    accept, run_job, certified, sandbox, query
):
    accept(filters=ScanFilters(include_archived=True))
    searches = sandbox.control.requests()["by_kind"].get("search", {})
    assert run_job().success
    found = certified()
    assert found["complete"]
    assert found["audit"]["differences"] == []
    proof = found["certificate"]
    hubspot = proof["hubspot"]
    assert (hubspot["agreement"], hubspot["counted"], hubspot["stored"]) == ("equal", 1_000, 1_000)
    tables = {table["name"]: table for table in proof["tables"]}
    deals = tables["deals"]
    assert (deals["read"], deals["committed"], deals["stored"], deals["distinct"]) == (1_100,) * 4
    assert deals["archived"] == 100
    assert any("100 archived deals" in statement for statement in proof["statements"])
    ids = sorted(deal["id"] for deal in sandbox.control.deals())
    lines = "".join(f"{deal_id}\n" for deal_id in ids).encode()
    assert deals["keyHash"] == hashlib.sha256(lines).hexdigest()
    assert all(table["keyHash"] for table in tables.values())
    assert {table["name"]: table["keyHash"] for table in found["audit"]["tables"]} == {
        name: table["keyHash"] for name, table in tables.items()
    }
    now = sandbox.control.requests()["by_kind"]["search"]
    assert sum(now.values()) - sum(searches.values()) <= 3


def test_what_is_done_to_a_hundred_thousand_deals_behind_our_back_is_found(
    accept, run_job, certified, tampering
):
    with SandboxProcess(deals=100_000, archived_share=0, properties=60, **FAST) as account:
        accept(filters=ScanFilters(("dealname",)))
        assert run_job(hubspot_url=account.url).success
    whole = certified()
    assert whole["complete"]
    assert whole["audit"]["seconds"] < 10
    ((deleted,),) = tampering.execute(f"SELECT id FROM {DEALS} WHERE row_no = 77777").fetchall()

    def tampered(*statements):
        """The differences after some changes, which are undone."""
        tampering.execute("CREATE TABLE saved AS SELECT * FROM " + DEALS)
        for statement in statements:
            assert tampering.execute(statement).rowcount == 1
        found = certified()
        assert not found["complete"]
        tampering.execute(f"TRUNCATE {DEALS}")
        tampering.execute(f"INSERT INTO {DEALS} SELECT * FROM saved ORDER BY row_no")
        tampering.execute("DROP TABLE saved")
        return {one["kind"]: one for one in found["audit"]["differences"]}

    gone = tampered(f"DELETE FROM {DEALS} WHERE row_no = 77777")["rows_missing"]
    assert (gone["table"], gone["rowNumbers"], gone["keys"]) == ("deals", [77_777], [deleted])
    chunks = tampering.execute(
        "SELECT chunk_no FROM hubspot_deals.scan_chunks WHERE table_name = 'deals'"
        " AND 77777 BETWEEN first_row AND first_row + row_count - 1"
    )
    assert chunks.fetchall() == [(gone["chunk"],)]

    twice = tampered(f"INSERT INTO {DEALS} SELECT * FROM {DEALS} WHERE row_no = 77777")
    assert twice["duplicate"]["keys"] == [deleted]
    assert twice["duplicate"]["rowNumbers"] == [77_777, 77_777]
    assert twice["rows_added"]["chunk"] == gone["chunk"]

    changed = tampered(f"UPDATE {DEALS} SET id = '1' WHERE row_no = 77777")["keys_changed"]
    assert (changed["rowNumbers"], changed["keys"]) == ([77_777], [deleted])
    assert changed["chunk"] == gone["chunk"]

    # Nobody is deceived by chunks that were changed to fit, nor by two changes that cancel out.
    swapped = tampered(
        f"DELETE FROM {DEALS} WHERE row_no = 77777",
        f"INSERT INTO {DEALS} SELECT * FROM {DEALS} WHERE row_no = 77778",
        f"UPDATE {DEALS} SET row_no = 77777"
        f" WHERE ctid = (SELECT max(ctid) FROM {DEALS} WHERE row_no = 77778)",
    )
    assert swapped["duplicate"]["rowNumbers"] == [77_777, 77_778]
    assert swapped["keys_changed"]["keys"] == [deleted]
    assert certified()["complete"]


def test_changes_of_a_small_table_and_rows_of_no_chunk_are_found(
    accept, run_job, certified, tampering
):
    accept()
    assert run_job().success
    tampering.execute("UPDATE hubspot_deals_extraction.pipelines SET id = 'other' WHERE row_no = 1")
    tampering.execute(
        f"CREATE TABLE one AS SELECT * FROM {DEALS} WHERE row_no = 1;"
        " UPDATE one SET _dlt_load_id = 'nobody'; INSERT INTO "
        f"{DEALS} SELECT * FROM one"
    )
    found = certified()
    assert not found["complete"]
    kinds = {(one["table"], one["kind"]) for one in found["audit"]["differences"]}
    assert kinds == {
        ("pipelines", "keys_changed"),
        ("pipelines", "recount"),
        ("deals", "foreign_rows"),
    }


def test_chunks_that_were_changed_with_their_rows_do_not_pass(
    accept, run_job, certified, tampering
):
    accept()
    assert run_job().success
    tampering.execute(f"DELETE FROM {DEALS} WHERE row_no = 1000")
    tampering.execute(
        "UPDATE hubspot_deals.scan_chunks SET row_count = row_count - 1, key_hash = NULL"
        " WHERE table_name = 'deals'"
    )
    found = certified()
    assert not found["complete"]
    assert [one["kind"] for one in found["audit"]["differences"]] == ["recount"]


def test_a_scan_from_before_there_were_certificates_is_counted(
    accept, run_job, certified, tampering
):
    accept()
    assert run_job().success
    tampering.execute("DELETE FROM hubspot_deals.certificates")
    tampering.execute("UPDATE hubspot_deals.scan_chunks SET key_hash = NULL, ids = NULL")
    found = certified()
    assert found["complete"]
    assert found["certificate"] is None
    assert {table["unhashedChunks"] for table in found["audit"]["tables"]} == {1}
    tampering.execute(f"DELETE FROM {DEALS} WHERE row_no = 7")
    found = certified()
    assert not found["complete"]
    assert found["audit"]["differences"][0]["rowNumbers"] == [7]


def test_a_search_that_is_refused_is_said_and_fails_nothing(accept, run_job, certified):
    with SandboxProcess(deals=300, archived_share=0, **FAST) as account:
        account.control.add_fault({"type": "missing_scope"}, match={"kind": "search"}, times=None)
        accept()
        result = run_job(hubspot_url=account.url)
    assert result.success
    hubspot = certified()["certificate"]["hubspot"]
    assert (hubspot["agreement"], hubspot["counted"]) == ("not_counted", None)
    assert "crm.objects.deals.read" in hubspot["note"]
    (check,) = [
        check
        for check in result.get_asset_check_evaluations()
        if check.check_name == "agrees_with_hubspot"
    ]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_deals_that_come_while_a_scan_reads_are_named_and_fail_nothing(accept, run_job, certified):
    came = []
    with SandboxProcess(deals=300, archived_share=0, **FAST) as account:
        thread = while_owners_are_fetched(
            account, lambda: came.extend(account.control.create({"dealname": "new"}, count=3))
        )
        accept()
        assert run_job(hubspot_url=account.url).success
        thread.join()
    found = certified()
    assert found["complete"]
    hubspot = found["certificate"]["hubspot"]
    assert (hubspot["agreement"], hubspot["counted"], hubspot["stored"]) == ("explained", 303, 300)
    (reason,) = hubspot["reasons"]
    assert sorted(reason["ids"]) == sorted(came)


def test_a_lagging_search_fails_no_scan(accept, run_job, certified):
    with SandboxProcess(
        deals=300, archived_share=0, **FAST | {"search_lag_seconds": 20}
    ) as account:
        ids = [deal["id"] for deal in account.control.deals()]
        account.control.create({"dealname": "new"}, count=5)
        account.control.archive(ids[:3])
        account.control.delete(ids[3:5])
        accept()
        assert run_job(hubspot_url=account.url).success
    found = certified()
    assert found["complete"]
    hubspot = found["certificate"]["hubspot"]
    assert hubspot["missing"] == 0
    assert hubspot["agreement"] in {"equal", "explained"}


@pytest.mark.parametrize("span", [None, DateRange(date(2024, 1, 1), date(2024, 12, 31))])
def test_a_deal_that_was_left_out_fails_the_scan_and_is_named(
    accept, run_job, look_up, certified, span
):
    """HubSpot shows a deal that it says to have had all along, once its list has been read."""
    hidden = []

    def reveal():
        hidden.extend(account.control.create({"dealname": "hidden", "createdate": LONG_AGO}))
        account.control.update(hidden, {"hs_lastmodifieddate": LONG_AGO})

    with SandboxProcess(deals=300, archived_share=0, **FAST) as account:
        thread = while_owners_are_fetched(account, reveal)
        accept(filters=ScanFilters(date_range=span))
        result = run_job(hubspot_url=account.url)
        thread.join()
        assert not result.success
        scan = look_up()
        assert scan.status is ScanStatus.FAILED
        assert f"HubSpot has 1 deals that were not read ({hidden[0]})" in scan.error_message
        (check,) = result.get_asset_check_evaluations()
        assert (check.check_name, check.passed) == ("agrees_with_hubspot", False)
        assert run_job(hubspot_url=account.url).success, "a run by hand reads everything anew"
    assert look_up().status is ScanStatus.COMPLETED
    assert certified()["certificate"]["hubspot"]["agreement"] == "equal"


def test_a_scan_that_went_on_after_a_fault_is_certified_as_one(accept, run_job, certified):
    with SandboxProcess(deals=900, archived_share=0, **FAST) as account:
        account.control.add_fault(
            {"type": "status", "status": 400}, match={"kind": "list"}, after=6, times=1
        )
        accept()
        assert not run_job(hubspot_url=account.url, chunk_rows=200).success
        assert run_job(hubspot_url=account.url, chunk_rows=200).success
    found = certified()
    assert found["complete"]
    deals = next(one for one in found["certificate"]["tables"] if one["name"] == "deals")
    assert deals["read"] == deals["stored"] == 900


def test_only_completed_scans_have_a_certificate(client, accept):
    accept()
    assert client.get("/api/v1/results/scan-1/certificate").status_code == 400
    assert client.get("/api/v1/results/no-such-scan/certificate").status_code == 404


def test_an_account_that_changes_all_the_time_is_certified_with_reasons(accept, run_job, certified):
    with SandboxProcess(deals=3_000, **FAST | {"search_lag_seconds": 8}) as account:
        dice = random.Random(7)
        ids = [deal["id"] for deal in account.control.deals(archived=False)]
        has_ended = threading.Event()

        def change():
            control = account.control
            while not has_ended.wait(0.05):
                control.create({"dealname": "new", "createdate": "2024-05-06T00:00:00Z"})
                control.update([dice.choice(ids)], {"dealname": "changed"})
                control.archive([ids.pop(dice.randrange(len(ids)))])
                control.delete([ids.pop(dice.randrange(len(ids)))])

        thread = threading.Thread(target=change)
        thread.start()
        try:
            accept(filters=ScanFilters(("dealname",)))
            assert run_job(hubspot_url=account.url, chunk_rows=1_000).success
        finally:
            has_ended.set()
            thread.join()
    found = certified()
    assert found["complete"], found["certificate"]["statements"]
    assert found["certificate"]["hubspot"]["missing"] == 0
