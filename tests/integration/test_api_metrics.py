"""What Prometheus reads, and that the dashboard and the alerts ask for nothing else."""

import json
import re
import threading
import time
from datetime import date
from pathlib import Path

import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from hubspot_deals.contract import REQUEST_ID_TAG
from hubspot_deals.sync_contract import SyncSettings
from hubspot_deals.warehouse import signs
from hubspot_deals.warehouse.figures import RunFigures, add_run
from tests.integration.test_api_health import api as serve_api
from tests.integration.test_api_health import nowhere
from tests.pace import within

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"
NAME = re.compile(r"\b(?:hubspot_deals|process)_\w+")


def scrape(client):
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def start(client, scan_id, **headers):
    config = {"scanId": scan_id, "organizationId": "org-1", "type": ["user"]}
    config["auth"] = {"accessToken": "sandbox-token-0123456789"}
    answer = client.post("/api/v1/scan/start", json={"config": config}, headers=headers)
    assert answer.status_code == 202


def test_requests_are_counted_by_the_template_of_their_route(client):
    for scan_id in ("one", "two", "three"):
        client.get(f"/api/v1/scan/{scan_id}/status")
    client.get("/nothing/of/the/kind")
    client.head("/api/v1/health/live")
    client.request("PROPFIND", "/api/v1/health/live")
    found = scrape(client)

    requests = "hubspot_deals_api_requests_total"
    status = (("method", "GET"), ("route", "/scan/{scan_id}/status"))
    assert found[requests, *status, ("status", "404")] == 3
    assert found["hubspot_deals_api_request_seconds_count", *status] == 3
    assert found[requests, ("method", "GET"), ("route", "none"), ("status", "404")] == 1
    head = (("method", "HEAD"), ("route", "/health/live"), ("status", "200"))
    assert found[requests, *head] == 1
    assert [key for key in found if ("method", "other") in key]
    assert not [key for key in found if "one" in str(key) and "scan" in str(key[1:])]


def test_scans_and_secrets_are_counted_from_the_database(client):
    start(client, "scan-1")
    start(client, "scan-2")
    found = scrape(client)

    assert found["hubspot_deals_scans", ("status", "pending")] == 2
    assert found["hubspot_deals_scans", ("status", "failed")] == 0
    assert found["hubspot_deals_sealed_secrets", ("key_id", "k1"), ("table", "credentials")] == 2
    assert found["hubspot_deals_oldest_waiting_scan_seconds",] > 0
    assert (
        0
        < found["hubspot_deals_database_sessions",]
        < found["hubspot_deals_database_sessions_limit",]
    )
    assert found["hubspot_deals_api_pool_limit",] == 10
    assert found["hubspot_deals_api_download_files",] == 0


def test_connections_their_syncs_and_deliveries_are_counted(client, change):
    settings = json.dumps(SyncSettings(start_date=date(2026, 1, 1)).to_json())
    for name, is_enabled, age in (("fresh", True, 60), ("old", True, 7_000), ("off", False, 9_999)):
        change(
            "INSERT INTO hubspot_deals.connections (connection_id, organization_id, settings,"
            " is_enabled, fresh_as_of) VALUES (%s, 'org-1', %s, %s, now() - make_interval("
            "secs => %s))",
            *(name, settings, is_enabled, age),
        )
    for number, (outcome, hours) in enumerate(
        [("completed", 99), ("failed", 5), ("completed", 3), ("completed", 2), (None, 0)]
    ):
        change(
            "INSERT INTO hubspot_deals.sync_runs (connection_id, run_no, run_id, epoch, kind,"
            " outcome, started_at) VALUES ('fresh', %s, 'run', 1, 'changes', %s,"
            " now() - make_interval(hours => %s))",
            *(number, outcome, hours),
        )
    for status, hours in (("pending", None), ("dead", 1), ("delivered", 1), ("delivered", 30)):
        change(
            "WITH event AS (INSERT INTO hubspot_deals.webhook_events (organization_id, type, data)"
            " VALUES ('org-1', 'scan.completed', '{}') RETURNING event_id)"
            " INSERT INTO hubspot_deals.webhook_deliveries (webhook_id, event_id, status, ended_at)"
            " SELECT 'wh_1', event_id, %s, now() - make_interval(hours => %s) FROM event",
            *(status, hours),
        )
    found = scrape(client)

    def by(name, label):
        return {
            key[1][1]: value
            for key, value in found.items()
            if key[0] == name and key[1][0] == label
        }

    connections = by("hubspot_deals_connections", "status")
    assert connections | {"current": 2, "paused": 1} == connections
    assert sum(connections.values()) == 3
    assert 6_999 < found["hubspot_deals_stalest_connection_seconds",] < 7_100
    assert by("hubspot_deals_sync_runs", "outcome") == {
        "completed": 2,
        "failed": 1,
        "running": 1,
        "cancelled": 0,
        "crashed": 0,
    }
    assert by("hubspot_deals_webhook_deliveries", "status") == {
        "pending": 1,
        "dead": 1,
        "delivered": 1,
    }


def test_what_runs_did_is_kept_after_they_are_gone(client, accept, run_job, change):
    accept()
    assert run_job().success
    accept("scan-2", token=SecretStr("refused-token-0123456789"))
    assert not run_job("scan-2", hubspot_url="http://127.0.0.1:9", retry_seconds=0.1).success
    change("DELETE FROM hubspot_deals.scans WHERE scan_id = 'scan-2'")
    found = scrape(client)

    assert found["hubspot_deals_runs_total", ("outcome", "completed")] == 1
    assert found["hubspot_deals_runs_total", ("outcome", "failed")] == 1
    assert found["hubspot_deals_run_seconds_count",] == 2
    assert found["hubspot_deals_run_seconds_bucket", ("le", "43200.0")] == 2
    assert found["hubspot_deals_deals_read_total",] == 1_000
    assert found["hubspot_deals_hubspot_requests_total",] > 5


def test_the_sums_of_runs_that_end_at_once_are_exact(database_url, client):
    def end_runs():
        with psycopg.connect(database_url, autocommit=True) as connection:
            for _ in range(25):
                add_run(connection, RunFigures("completed", 0.5, deals=4, requests=2))

    threads = [threading.Thread(target=end_runs) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = scrape(client)

    assert found["hubspot_deals_runs_total", ("outcome", "completed")] == 100
    assert found["hubspot_deals_deals_read_total",] == 400
    assert found["hubspot_deals_run_seconds_bucket", ("le", "1.0")] == 100
    assert found["hubspot_deals_run_seconds_sum",] == 50


def test_a_part_is_up_down_or_left_out(database_url, gateway, client):
    gateway.is_down = True
    found = scrape(client)
    up = {key[1][1]: value for key, value in found.items() if key[0] == "hubspot_deals_part_up"}
    assert up == {"database": 1, "dagster": 0, "hubspot": 0, "downloads": 1}


def test_a_scrape_without_a_database_tells_what_it_can():
    with serve_api(nowhere()) as client:
        began = time.monotonic()
        found = scrape(client)
        assert time.monotonic() - began < within(1)
    assert found["hubspot_deals_part_up", ("part", "database")] == 0
    assert not [key for key in found if key[0] == "hubspot_deals_scans"]


@pytest.fixture
def known(client, accept, run_job, settings):
    """The names of everything that an API shows once there was something to show."""
    accept()
    assert run_job().success
    signs.show(settings.database_url, dict.fromkeys((signs.SENSORS, signs.RUN_HOST)))
    client.get("/health")
    return {key[0] for key in scrape(client)}


def expressions():
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def test_dashboard_and_alerts_ask_only_for_what_there_is(known):
    asked = {(title, name) for title, text in expressions() for name in NAME.findall(text)}
    assert len(asked) > 25
    assert {(title, name) for title, name in asked if name not in known} == set()


def test_every_figure_is_explained_and_shown(known):
    shown = {name for _, text in expressions() for name in NAME.findall(text)}
    page = (MONITORING.parents[1] / "docs/monitoring.md").read_text()
    ours = {name for name in known if name.startswith("hubspot_deals") and "_created" not in name}
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}
    assert {name for name in bases if name not in page} == set()
    assert {name for name in bases if not any(one.startswith(name) for one in shown)} == set()


def test_alerts_have_what_an_alert_needs():
    (group,) = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    page = (MONITORING.parents[1] / "docs/monitoring.md").read_text()
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["alert"] in page, f"docs/monitoring.md does not say what to do: {rule['alert']}"


def test_panels_do_not_overlap():
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_a_run_is_found_from_the_request_that_led_to_it(client, gateway):
    start(client, "scan-1", **{"X-Request-ID": "asked-by-me"})
    deadline = time.monotonic() + 5
    while not gateway.runs:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert gateway.runs[0].origin == {REQUEST_ID_TAG: "asked-by-me"}
