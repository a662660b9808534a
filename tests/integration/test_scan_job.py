"""One scan as Dagster carries it out: on a real PostgreSQL, against the sandbox."""

import json
from datetime import date

import dagster as dg
import psycopg
import pytest
from pydantic import SecretStr

from hubspot_deals.contract import LAUNCH_EPOCH_TAG, DateRange, ScanFilters, ScanStatus
from hubspot_deals.tables import TABLES
from hubspot_sandbox.testing import SandboxProcess
from tests.conftest import FAST


def stored_deals(query, scan_id="scan-1"):
    """The deals of a scan as analysts read them: raw properties by id, in order."""
    return dict(
        query(
            "SELECT id, properties FROM hubspot_deals.deals WHERE scan_id = %s ORDER BY row_no",
            scan_id,
        )
    )


def differing(stored, truth):
    """Ids whose stored properties are not what the sandbox holds."""
    return [
        deal_id
        for deal_id, properties in stored.items()
        if any(
            truth[deal_id]["properties"].get(name) != value for name, value in properties.items()
        )
    ]


def test_a_scan_stores_exactly_the_live_deals(accept, run_job, look_up, query, sandbox):
    accept()
    assert run_job().success
    truth = {deal["id"]: deal for deal in sandbox.control.deals(archived=False)}
    stored = stored_deals(query)
    assert stored.keys() == truth.keys()
    assert differing(stored, truth) == []
    scan = look_up()
    assert scan.status is ScanStatus.COMPLETED
    assert scan.records_extracted == len(truth) == 1_000
    assert query("SELECT count(*) FROM hubspot_deals.pipeline_stages") != [(0,)]


def test_archived_deals_come_along_when_asked_for(accept, run_job, query, sandbox):
    accept(filters=ScanFilters(include_archived=True))
    assert run_job().success
    truth = {deal["id"]: deal for deal in sandbox.control.deals()}
    stored = stored_deals(query)
    assert stored.keys() == truth.keys()
    assert differing(stored, truth) == []
    assert query("SELECT count(*) FROM hubspot_deals.deals WHERE archived") == [(100,)]


@pytest.mark.parametrize("include_archived", [False, True])
def test_a_date_range_holds_whole_days_at_both_ends(
    accept, run_job, query, sandbox, include_archived
):
    span = DateRange(date(2024, 2, 1), date(2024, 2, 29))
    accept(filters=ScanFilters(("dealname",), include_archived, span))
    assert run_job().success
    wanted = {
        deal["id"]
        for deal in sandbox.control.deals(archived=None if include_archived else False)
        if "2024-02-01" <= (deal["properties"]["createdate"] or "")[:10] <= "2024-02-29"
    }
    assert stored_deals(query).keys() == wanted != set()


@pytest.mark.parametrize("include_archived", [False, True])
def test_twenty_five_thousand_deals_are_stored_once_each_with_equal_values(
    accept, run_job, look_up, query, include_archived
):
    with SandboxProcess(deals=25_000, archived_share=0.1, **FAST) as account:
        accept(filters=ScanFilters(("*",), include_archived))
        assert run_job(hubspot_url=account.url).success
        truth = {
            deal["id"]: deal
            for deal in account.control.iter_deals(archived=None if include_archived else False)
        }
    stored = stored_deals(query)
    assert len(stored) == len(truth) == (27_500 if include_archived else 25_000)
    assert stored.keys() == truth.keys()
    assert differing(stored, truth) == []
    assert query("SELECT count(*), count(DISTINCT id) FROM hubspot_deals_extraction.deals") == [
        (len(truth), len(truth))
    ]
    assert look_up().records_extracted == len(truth)


@pytest.mark.parametrize("deals", [0, 1, 100, 101])
def test_page_borders_lose_nothing(accept, run_job, look_up, query, deals):
    with SandboxProcess(deals=deals, archived_share=0, **FAST) as account:
        accept()
        assert run_job(hubspot_url=account.url).success
        assert stored_deals(query).keys() == {deal["id"] for deal in account.control.deals()}
    assert look_up().records_extracted == deals


def test_searching_goes_on_beyond_ten_thousand_deals(accept, run_job, query):
    span = DateRange(date(2023, 1, 1), date(2025, 12, 31))
    with SandboxProcess(deals=10_001, archived_share=0, same_timestamp=3_000, **FAST) as account:
        accept(filters=ScanFilters(("dealname", "amount"), date_range=span))
        assert run_job(hubspot_url=account.url).success
        wanted = {
            deal["id"]
            for deal in account.control.deals()
            if "2023-01-01" <= deal["properties"]["createdate"][:10] <= "2025-12-31"
        }
        assert stored_deals(query).keys() == wanted
    assert len(wanted) > 9_900


def test_a_thousand_properties_fit(accept, run_job, query):
    with SandboxProcess(deals=120, archived_share=0.1, properties=1_000, **FAST) as account:
        accept(filters=ScanFilters(("*",), include_archived=True))
        assert run_job(hubspot_url=account.url).success
        truth = {deal["id"]: deal for deal in account.control.deals()}
        stored = stored_deals(query)
    assert stored.keys() == truth.keys()
    assert differing(stored, truth) == []
    assert min(len(properties) for properties in stored.values()) > 1_000


def test_money_is_exact_and_values_that_do_not_fit_stay_raw(accept, run_job, query):
    odd = ["12345678901234567890.123456789012345678", "1e3", "1,000", "7;8", "", "-0.10"]
    with SandboxProcess(deals=0, archived_share=0, **FAST) as account:
        ids = account.control.create(
            *({"dealname": 'a\\b"\n\té😀', "amount": text} for text in odd)
        )
        accept(filters=ScanFilters(("dealname", "amount")))
        assert run_job(hubspot_url=account.url).success
    rows = {
        row[0]: row[1:]
        for row in query(
            "SELECT id, amount::text, properties ->> 'amount', dealname FROM hubspot_deals.deals"
        )
    }
    assert [rows[deal_id][0] for deal_id in ids] == [odd[0], "1000", None, None, None, "-0.1"]
    assert [rows[deal_id][1] for deal_id in ids] == odd
    assert {name for _, _, name in rows.values()} == {'a\\b"\n\té😀'}


def test_the_run_tells_what_it_did(accept, run_job, look_up):
    accept(filters=ScanFilters(("dealname", "no_such_property")))
    result = run_job()
    materialized = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in result.get_asset_materialization_events()
    }
    assert materialized.keys() == set(TABLES)
    assert materialized["deals"]["dagster/row_count"].value == 1_000
    assert "dealname" in materialized["deals"]["preview"].value
    assert "0000000" not in materialized["deals"]["preview"].value
    checks = result.get_asset_check_evaluations()
    assert {check.check_name for check in checks} == {
        "stored_is_what_was_read",
        "values_fit_their_types",
        "agrees_with_hubspot",
    }
    assert {check.metadata["scan_id"].value for check in checks} == {"scan-1"}
    assert all(check.passed for check in checks if check.severity is dg.AssetCheckSeverity.ERROR)
    assert look_up().metadata["unknownProperties"] == ["no_such_property"]
    assert look_up().metadata["requests"] > 10


def test_without_the_owners_scope_users_are_the_owners_of_the_deals(
    accept, run_job, look_up, query
):
    scopes = {"only-deals-0123456789": ["crm.objects.deals.read", "oauth"]}
    with SandboxProcess(deals=200, archived_share=0, tokens=scopes, **FAST) as account:
        accept(token=SecretStr("only-deals-0123456789"))
        assert run_job(hubspot_url=account.url).success
        wanted = {deal["properties"].get("hubspot_owner_id") for deal in account.control.deals()}
    assert {owner for (owner,) in query("SELECT id FROM hubspot_deals.users")} == wanted - {
        None,
        "",
    }
    assert "crm.objects.owners.read" in look_up().metadata["notes"][0]


@pytest.mark.parametrize(
    ("token", "scopes", "expected"),
    [
        ("not-known-0123456789", {"other-0123456789": None}, "rejected the access token"),
        ("no-deals-0123456789", {"no-deals-0123456789": ["oauth"]}, "crm.objects.deals.read"),
    ],
)
def test_a_token_that_cannot_read_deals_fails_the_scan_with_its_reason(
    accept, run_job, look_up, query, token, scopes, expected
):
    with SandboxProcess(deals=10, tokens=scopes, **FAST) as account:
        accept(token=SecretStr(token))
        result = run_job(hubspot_url=account.url)
    assert not result.success
    scan = look_up()
    assert scan.status is ScanStatus.FAILED
    assert expected in scan.error_message
    assert token not in json.dumps([str(event) for event in result.all_events])
    assert stored_deals(query) == {}


def test_a_rerun_of_a_completed_scan_replaces_it_only_when_it_commits(
    accept, run_job, look_up, query
):
    with SandboxProcess(deals=150, archived_share=0, **FAST) as account:
        accept()
        assert run_job(hubspot_url=account.url).success
        before = stored_deals(query)
        account.control.create({"dealname": "late"})
        account.control.add_fault(
            {"type": "status", "status": 401}, match={"kind": "list"}, after=2, times=None
        )
        assert not run_job(hubspot_url=account.url).success
        assert look_up().status is ScanStatus.COMPLETED
        assert stored_deals(query) == before
        account.control.clear_faults()
        assert run_job(hubspot_url=account.url).success
        assert stored_deals(query).keys() == {deal["id"] for deal in account.control.deals()}
    assert query("SELECT count(*) FROM hubspot_deals_extraction.deals") == [(151,)]


def test_a_failed_scan_goes_on_after_its_last_committed_chunk(accept, run_job, look_up, query):
    with SandboxProcess(deals=1_000, archived_share=0.1, **FAST) as account:
        accept(filters=ScanFilters(include_archived=True))
        account.control.add_fault(
            {"type": "status", "status": 401}, match={"kind": "list"}, after=6, times=None
        )
        assert not run_job(hubspot_url=account.url, chunk_rows=200).success
        assert look_up().status is ScanStatus.FAILED
        assert stored_deals(query) == {}
        (committed,) = query(
            "SELECT sum(row_count) FROM hubspot_deals.scan_chunks WHERE table_name = 'deals'"
        )[0]
        assert committed >= 200
        account.control.clear_faults()
        account.control.reset()
        assert run_job(hubspot_url=account.url, chunk_rows=200).success
        truth = {deal["id"] for deal in account.control.deals()}
        listed = sum(account.control.requests()["by_kind"]["list"].values())
    assert stored_deals(query).keys() == truth
    assert listed < 14, "committed pages were read again"


def test_what_an_earlier_run_noticed_is_in_the_report_of_the_last_one(accept, run_job, look_up):
    scopes = {"only-deals-0123456789": ["crm.objects.deals.read"]}
    with SandboxProcess(deals=0, archived_share=0, tokens=scopes, **FAST) as account:
        account.control.create({"dealname": "odd", "amount": "7;8"}, count=3)
        account.control.add_fault(
            {"type": "status", "status": 401}, match={"kind": "owners"}, times=None
        )
        accept(token=SecretStr("only-deals-0123456789"))
        assert not run_job(hubspot_url=account.url).success
        account.control.clear_faults()
        assert run_job(hubspot_url=account.url).success
    report = look_up().metadata
    assert report["unfitValues"]["amount"] == 3
    assert any("users holds only" in note for note in report["notes"])


def test_a_snapshot_that_does_not_add_up_is_not_served_and_read_anew(
    accept, run_job, look_up, query, settings, sandbox
):
    accept()
    # A row that turns up in a counted package after it was counted: nothing but a fault does this.
    double = """
        CREATE FUNCTION double() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO hubspot_deals_extraction.deals
            SELECT * FROM hubspot_deals_extraction.deals WHERE row_no = 1;
            RETURN NULL;
        END $$;
        CREATE TRIGGER double AFTER INSERT ON hubspot_deals.scan_chunks
        FOR EACH ROW WHEN (NEW.table_name = 'deals') EXECUTE FUNCTION double();
    """
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute(double)
    assert not run_job().success
    assert "do not add up" in look_up().error_message
    assert stored_deals(query) == {}
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute("DROP TRIGGER double ON hubspot_deals.scan_chunks")
    assert run_job().success
    assert stored_deals(query).keys() == {
        deal["id"] for deal in sandbox.control.deals(archived=False)
    }


def test_a_second_launch_of_a_scan_has_nothing_to_do(accept, run_job, look_up):
    accept()
    assert run_job(tags={LAUNCH_EPOCH_TAG: "0"}).success
    epoch = look_up().epoch
    late = run_job(tags={LAUNCH_EPOCH_TAG: "0"})
    assert not late.success
    assert look_up().epoch == epoch
    assert look_up().status is ScanStatus.COMPLETED
