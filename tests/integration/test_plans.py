"""A plan says what the run that follows does: REST, planning processes, the sandbox, Dagster."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date

import psutil
import pytest
from click.testing import CliRunner
from pydantic import HttpUrl, SecretStr

from api.dagster.testing import InMemoryDagsterGateway
from api.main import create_app
from api.settings import ApiSettings
from api.testing import serve
from hubspot_deals.cli.main import cli
from hubspot_deals.contract import DateRange, ScanFilters
from hubspot_deals.planning import plan as plan_module
from hubspot_deals.planning.plan import plan_scan
from hubspot_sandbox.testing import GOOD_TOKEN, SandboxProcess
from tests.conftest import FAST, TEST_KEYS

PLAN, VALIDATE = "/api/v1/scan/plan", "/api/v1/auth/validate"
DEALS, OWNERS = "crm.objects.deals.read", "crm.objects.owners.read"
YEAR = DateRange(date(2024, 1, 1), date(2024, 12, 31))
FILTERS = {
    "full": ScanFilters(),
    "archived": ScanFilters(include_archived=True),
    "filtered": ScanFilters(date_range=YEAR),
    "filtered archived": ScanFilters(include_archived=True, date_range=YEAR),
    "all properties": ScanFilters(properties=("*",)),
    "nothing inside": ScanFilters(date_range=DateRange(date(2039, 1, 1), None)),
}
ALL = tuple(FILTERS)
SIZES = [
    (0, "pro", ALL),
    (150, "pro", ALL),
    (3_000, "pro", ("full", "archived", "filtered")),
    (12_000, "pro", ("full", "filtered archived")),
    (25_000, "addon", ("full",)),
]


def body_of(token=GOOD_TOKEN, **filters):
    config = {"scanId": "planned", "organizationId": "org-1", "type": ["user"]}
    return {"config": config | {"auth": {"accessToken": token}, "filters": filters}}


def rows_of(plan):
    return {table["name"]: table["rows"] for table in plan["tables"]}


@pytest.fixture
def serving(settings, monkeypatch):
    """Serves the API against a sandbox; plans know HubSpot's address from the environment."""

    def serving(url):
        monkeypatch.setenv("HUBSPOT_DEALS_HUBSPOT_URL", url)
        monkeypatch.setenv("HUBSPOT_DEALS_RETRY_SECONDS", "1")
        api = ApiSettings(database_url=settings.database_url, encryption_keys=TEST_KEYS)
        return serve(create_app(api, gateway=InMemoryDagsterGateway()))

    return serving


@pytest.fixture
def client(serving, sandbox):
    with serving(sandbox.url) as client:
        yield client


@pytest.mark.parametrize(("deals", "tier", "kinds"), SIZES, ids=[str(size[0]) for size in SIZES])
def test_a_plan_agrees_with_the_run_that_follows(
    accept, run_job, look_up, settings, deals, tier, kinds
):
    with SandboxProcess(deals=deals, tier=tier, search_lag_seconds=0) as account:
        of_hubspot = settings.model_copy(
            update={"hubspot_url": HttpUrl(account.url), "searches_per_second": 5.0}
        )
        for kind in kinds:
            plan = plan_scan(SecretStr(GOOD_TOKEN), FILTERS[kind], of_hubspot)
            scan_id = kind.replace(" ", "-")
            accept(scan_id, FILTERS[kind])
            assert run_job(scan_id, hubspot_url=account.url, searches_per_second=5.0).success
            report = look_up(scan_id).metadata

            assert rows_of(plan) == report["tables"], kind
            planned, sent = plan["requests"]["total"], report["requests"] - report["retries"]
            assert abs(planned - sent) <= 0.05 * sent, f"{kind}: {planned} planned, {sent} sent"
            if sent <= 20:
                assert planned == sent, kind
            share = planned / plan["dailyQuota"]["limit"] * 100
            assert plan["dailyShare"] == pytest.approx(share, abs=0.001)


def test_a_plan_names_account_limits_properties_and_what_is_unknown(client, sandbox):
    answer = client.post(PLAN, json=body_of(properties=["amount", "no_such_property"]))

    assert answer.status_code == 200
    plan = answer.json()["data"]
    assert (plan["canScan"], plan["reason"], plan["notes"]) == (True, None, [])
    assert plan["portalId"] > 0
    assert {DEALS, OWNERS} <= set(plan["scopes"]["granted"])
    assert plan["scopes"]["missing"] == []
    assert plan["tier"]["requestsPerTenSeconds"] == FAST["burst"]
    assert plan["dailyQuota"]["limit"] == 625_000
    assert plan["dailyQuota"]["used"] > 0
    assert plan["properties"] == {
        "selected": ["amount", "no_such_property"],
        "unknown": ["no_such_property"],
    }
    assert plan["deals"] == {"live": 1_000, "archived": None, "total": 1_000, "basis": "counted"}
    assert plan["minutes"] > 0


@pytest.mark.parametrize(("tier", "name"), [("free", "Free or Starter"), ("pro", "Professional")])
def test_a_plan_tells_the_tier_by_its_limits(settings, tier, name):
    with SandboxProcess(deals=10, tier=tier) as account:
        there = settings.model_copy(update={"hubspot_url": HttpUrl(account.url)})
        plan = plan_scan(SecretStr(GOOD_TOKEN), ScanFilters(), there)
    assert plan["tier"]["name"] == name


def test_a_token_without_owners_is_told_what_users_will_be(client):
    plan = client.post(PLAN, json=body_of("pat-na1-noowners-0001")).json()["data"]

    assert plan["canScan"] is True
    assert plan["scopes"]["missing"] == [OWNERS]
    assert OWNERS not in plan["scopes"]["granted"]
    (users,) = [table for table in plan["tables"] if table["name"] == "users"]
    assert users["missingScope"] == OWNERS
    assert users["rows"] is None
    assert "only the owner ids found on deals" in users["consequence"]
    assert plan["requests"]["total"] > 0


def test_a_token_without_deals_is_told_so_and_nothing_more_is_foreseen(client, sandbox):
    token = "pat-na1-noscope-0001"
    plan = client.post(PLAN, json=body_of(token)).json()["data"]

    assert plan["canScan"] is False
    assert DEALS in plan["reason"]
    assert plan["scopes"] == {"granted": [], "missing": [DEALS, OWNERS]}
    assert all(table["consequence"] for table in plan["tables"])
    assert plan["deals"] is plan["properties"] is plan["requests"] is plan["minutes"] is None


@pytest.mark.parametrize("token", ["pat-na1-invalid-0001", "pat-na1-expired-0001"])
def test_a_rejected_token_is_a_fault_of_the_plans_request_and_an_answer_to_validate(client, token):
    answer = client.post(PLAN, json=body_of(token))

    assert answer.status_code == 400
    (reason,) = answer.json()["validation_errors"]["config"]["auth"]["accessToken"]
    assert "HubSpot rejected the access token" in reason
    assert token not in answer.text

    answer = client.post(VALIDATE, json={"auth": {"accessToken": token}})
    report = answer.json()["data"]
    assert answer.status_code == 200
    assert (report["valid"], report["canScan"], report["scopes"]) == (False, False, None)
    assert report["reason"].partition(":")[0] == reason.partition(":")[0]
    assert token not in answer.text


@pytest.mark.parametrize(
    ("token", "can_scan", "missing"),
    [
        (GOOD_TOKEN, True, []),
        ("pat-na1-noowners-0001", True, [OWNERS]),
        ("pat-na1-noscope-0001", False, [DEALS, OWNERS]),
    ],
)
def test_a_good_token_is_valid_and_shows_what_it_opens(client, token, can_scan, missing):
    report = client.post(VALIDATE, json={"auth": {"accessToken": token}}).json()["data"]

    assert (report["valid"], report["canScan"]) == (True, can_scan)
    assert report["scopes"]["missing"] == missing
    assert report["portalId"] > 0
    assert report["dailyQuota"]["limit"] == 625_000
    assert (report["reason"] is None) == can_scan


@pytest.mark.parametrize("path", [PLAN, VALIDATE])
def test_a_request_without_token_is_refused_before_anything_is_asked(client, path):
    answer = client.post(path, json={"config": {}})

    assert answer.status_code == 400
    assert "Access token is required" in answer.text


def test_hubspot_that_does_not_answer_is_a_503(serving):
    with serving("http://127.0.0.1:9") as client:
        answer = client.post(PLAN, json=body_of())
    assert answer.status_code == 503
    assert answer.json()["error_code"] == "HUBSPOT_UNAVAILABLE"


def test_a_day_that_is_used_up_is_a_503_that_says_until_when(serving, sandbox):
    with SandboxProcess(deals=10, daily=1) as account, serving(account.url) as client:
        client.post(VALIDATE, json={"auth": {"accessToken": GOOD_TOKEN}})
        answer = client.post(PLAN, json=body_of())
    assert answer.status_code == 503
    assert "daily limit" in answer.json()["message"]
    assert int(answer.headers["Retry-After"]) > 0


def test_something_else_than_hubspot_is_a_502(serving):
    with SandboxProcess(deals=10) as account, serving(f"{account.url}/elsewhere") as client:
        answer = client.post(PLAN, json=body_of())
    assert answer.status_code == 502
    assert answer.json()["error_code"] == "HUBSPOT_REFUSED"


def test_a_planning_process_that_fails_is_a_500_without_token(client, monkeypatch, capfd):
    monkeypatch.setenv("HUBSPOT_DEALS_HUBSPOT_SHARE", "nonsense")

    answer = client.post(PLAN, json=body_of())

    assert answer.status_code == 500
    assert answer.json()["error_code"] == "PLANNING_FAILED"
    assert GOOD_TOKEN not in answer.text + "".join(capfd.readouterr())


def test_a_plan_stores_nothing_and_shows_the_token_to_nobody(serving, query, capfd):
    before, token = stored(query), "pat-na1-canary-for-plans"
    with (
        SandboxProcess(deals=10, latency_ms=200) as account,
        serving(account.url) as client,
        ThreadPoolExecutor(1) as caller,
    ):
        planning = caller.submit(client.post, PLAN, json=body_of(token))
        shown = []
        while not planning.done():
            for child in psutil.Process().children():
                with suppress(psutil.Error):
                    shown.append(f"{child.cmdline()} {child.environ()}")
        assert planning.result().status_code == 200

    assert any("hubspot_deals.planning" in text for text in shown)
    assert token not in "".join(shown) + "".join(capfd.readouterr())
    assert stored(query) == before


def stored(query):
    """How many rows each table of the database has."""
    tables = query(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = "
        "'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')"
    )
    # That somebody has asked is written down, and counted.
    noted = {("hubspot_deals", "audit_log"), ("hubspot_deals", "rate_limits")}
    return {
        table: query(f'SELECT count(*) FROM "{table[0]}"."{table[1]}"')
        for table in tables
        if table not in noted
    }


def test_the_command_line_shows_the_plan(client, monkeypatch):
    monkeypatch.setenv("HUBSPOT_DEALS_API_URL", str(client.base_url))
    monkeypatch.setenv("HUBSPOT_DEALS_ACCESS_TOKEN", GOOD_TOKEN)
    options = ["--include-archived", "--property", "amount", "--property", "no_such_property"]

    shown = CliRunner().invoke(cli, ["plan", *options])
    assert shown.exit_code == 0
    assert "1,100" in shown.output
    assert "no_such_property" in shown.output
    assert "of a day's" in shown.output

    document = json.loads(CliRunner().invoke(cli, ["plan", *options, "--json"]).output)
    assert document["deals"] == {
        "live": 1_000,
        "archived": 100,
        "total": 1_100,
        "basis": "counted",
    }


def test_the_command_line_fails_where_no_scan_is_possible(client, monkeypatch):
    monkeypatch.setenv("HUBSPOT_DEALS_API_URL", str(client.base_url))
    monkeypatch.setenv("HUBSPOT_DEALS_ACCESS_TOKEN", "pat-na1-noscope-0001")

    failed = CliRunner().invoke(cli, ["plan"])

    assert failed.exit_code == 1
    assert "No scan is possible" in failed.output
    assert DEALS in failed.output


def test_archived_deals_that_take_too_long_to_count_are_a_least_number(settings, monkeypatch):
    # Half a minute of counting would be a long test.
    monkeypatch.setattr(plan_module, "_WALK_SECONDS", -1.0)
    with SandboxProcess(deals=1_500) as account:
        there = settings.model_copy(update={"hubspot_url": HttpUrl(account.url)})
        plan = plan_scan(SecretStr(GOOD_TOKEN), FILTERS["archived"], there)

    assert plan["deals"] == {"live": 1_500, "archived": 100, "total": 1_600, "basis": "atLeast"}
    assert plan["requests"]["basis"] == "atLeast"
