"""What the audit log says of changes and reads, on a real PostgreSQL."""

import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from api.access import trail
from api.main import create_app
from api.testing import serve
from hubspot_deals.warehouse.audit_log import (
    AuditEntry,
    AuditFilter,
    delete_old_entries,
    find_entries,
)
from tests.integration.access_cases import (
    MINE,
    add_completed_scan,
    add_key,
    add_what_is_mine,
    bearer,
    start_body,
)


def entries(database, count, **wanted):
    """The newest entries, once there are so many."""
    deadline = time.monotonic() + 10
    while len(found := find_entries(database, AuditFilter(**wanted), limit=1_000)) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_a_change_is_in_the_log_when_its_answer_comes(service, database):
    key, key_id = add_key(database, organizations=["org-1"], level="run")
    body = start_body("scan-1", "org-1")
    headers = bearer(key) | {"X-Request-ID": "request-1"}

    assert service.post("/api/v1/scan/start", json=body, headers=headers).status_code == 202

    (entry,) = find_entries(database, AuditFilter(), limit=10)
    assert entry == AuditEntry(
        at=entry.at,
        actor=f"key:{key_id}",
        action="start_scan",
        organization_id="org-1",
        object_id="scan-1",
        outcome="done",
        status=202,
        request_id="request-1",
    )
    assert abs(datetime.now(UTC) - entry.at) < timedelta(seconds=30)
    for path, outcome in (("pause", "done"), ("pause", "refused"), ("cancel", "done")):
        service.post(f"/api/v1/scan/scan-1/{path}", headers=headers)
        newest, *_ = find_entries(database, AuditFilter(), limit=1)
        assert (newest.action, newest.object_id) == (f"{path}_scan", "scan-1")
        assert (newest.organization_id, newest.outcome) == ("org-1", outcome)


def test_nothing_is_changed_that_cannot_be_written_down(service, database):
    key, _ = add_key(database, organizations=["org-1"], level="run")
    add_completed_scan(database, "scan-1")
    database.execute("ALTER TABLE hubspot_deals.audit_log RENAME TO elsewhere")

    removal = service.delete("/api/v1/scan/scan-1/remove", headers=bearer(key))
    start = service.post(
        "/api/v1/scan/start", json=start_body("scan-2", "org-1"), headers=bearer(key)
    )

    assert (removal.status_code, start.status_code) == (500, 500)
    database.execute("ALTER TABLE hubspot_deals.elsewhere RENAME TO audit_log")
    rows = database.execute("SELECT scan_id, removal FROM hubspot_deals.scans").fetchall()
    assert rows == [("scan-1", None)]


def test_a_change_whose_process_died_is_left_as_begun(service, database, monkeypatch):
    key, _ = add_key(database, organizations=["org-1"], level="run")

    async def die(*_):
        return

    monkeypatch.setattr(trail.AuditTrail, "end", die)
    body = start_body("scan-1", "org-1")
    service.post("/api/v1/scan/start", json=body, headers=bearer(key))

    (entry,) = find_entries(database, AuditFilter(), limit=10)
    assert (entry.outcome, entry.status) == ("begun", None)
    assert (entry.organization_id, entry.object_id) == ("org-1", "scan-1")


def test_reads_are_in_the_log_soon_with_whose_they_were(service, database):
    add_completed_scan(database, "scan-1")
    add_completed_scan(database, "scan-2")
    add_completed_scan(database, "theirs", "org-2")
    key, key_id = add_key(database, organizations=["org-1"], level="read")
    admin, _ = add_key(database, organizations=None)

    service.get("/api/v1/results/scan-1/result?tableName=deals", headers=bearer(key))
    service.get("/api/v1/results/scan-1/diff/scan-2", headers=bearer(key))
    service.get("/api/v1/results/theirs/result", headers=bearer(key))
    service.post("/api/v1/scan/scan-1/cancel", headers=bearer(key))
    service.get("/api/v1/scan/list?organizationId=org-1", headers=bearer(key))
    service.get("/api/v1/scan/list?organizationId=org-2", headers=bearer(key))
    service.get("/api/v1/results/scan-1/download/csv?tableName=deals", headers=bearer(admin))
    # What is nobody's data does not fill the log.
    service.get("/api/v1/health", headers=bearer(key))
    service.get("/api/v1/pipeline/info", headers=bearer(key))

    found = entries(database, 8)
    told = [(e.action, e.object_id, e.organization_id, e.outcome, e.status) for e in found[::-1]]
    assert told == [
        ("get_result_page", "scan-1", "org-1", "done", 200),
        ("get_diff", "scan-1", "org-1", "done", 200),
        ("get_diff", "scan-2", "org-1", "done", 200),
        # Of a scan that this caller was told does not exist, the operator sees whose it is.
        ("get_result_page", "theirs", "org-2", "refused", 404),
        ("cancel_scan", "scan-1", "org-1", "refused", 403),
        ("list_scans", None, "org-1", "done", 200),
        ("list_scans", None, None, "refused", 403),
        ("download_table", "scan-1", "org-1", "done", 200),
    ]
    assert {e.actor for e in found[1:]} == {f"key:{key_id}"}
    assert len(entries(database, 4, object_id="scan-1")) == 4
    assert len(entries(database, 3, outcome="refused", organization_id=None)) == 3


def test_the_log_says_whose_connections_and_webhooks_were_touched(service, database):
    add_what_is_mine(database)
    # A scan of somebody else may have a connection's id.
    add_completed_scan(database, MINE["connection_id"], "org-2")
    key, _ = add_key(database, organizations=["org-1"])
    theirs, _ = add_key(database, organizations=["org-2"])
    connection = f"/api/v1/connections/{MINE['connection_id']}"
    webhook = f"/api/v1/webhooks/{MINE['webhook_id']}"

    service.post(f"{connection}/pause", headers=bearer(key))
    service.get(connection, headers=bearer(theirs))
    service.get(f"{webhook}/deliveries", headers=bearer(theirs))
    service.post(f"{webhook}/test", headers=bearer(key))
    entries(database, 4)
    service.delete(webhook, headers=bearer(key))
    service.delete(connection, headers=bearer(key))

    found = entries(database, 6)
    told = {(e.action, e.object_id, e.organization_id, e.outcome) for e in found}
    assert told == {
        ("pause_connection", MINE["connection_id"], "org-1", "done"),
        ("get_connection", MINE["connection_id"], "org-1", "refused"),
        ("list_deliveries", MINE["webhook_id"], "org-1", "refused"),
        ("test_webhook", MINE["webhook_id"], "org-1", "done"),
        ("delete_webhook", MINE["webhook_id"], "org-1", "done"),
        ("remove_connection", MINE["connection_id"], "org-1", "done"),
    }


def test_the_log_has_the_ids_that_the_service_chose(service, database):
    key, _ = add_key(database, organizations=["org-1"])
    made = {
        "webhooks": {"url": "https://1.1.1.1/hook"},
        "connections": {"auth": {"accessToken": "pat-na1-xxxxxxxx"}, "check": False},
    }
    for path, body in made.items():
        answer = service.post(
            f"/api/v1/{path}", json={"organizationId": "org-1", **body}, headers=bearer(key)
        )
        assert answer.status_code == 201, answer.text
        (entry,) = find_entries(database, AuditFilter(), limit=1)
        data = answer.json()["data"]
        assert entry.object_id == data.get("webhookId", data.get("connectionId"))
        assert (entry.organization_id, entry.status) == ("org-1", 201)


def test_who_is_nobody_is_noted_by_address_and_cannot_fill_the_log(service, database):
    add_completed_scan(database, "scan-1")
    key, key_id = add_key(database, organizations=None, revoked=True)
    for headers in [bearer(key), bearer("pat-na1-CANARY0123"), {}] * 50:
        answer = service.get("/api/v1/scan/scan-1/status", headers=headers)
        assert answer.status_code == 401
    service.get("/nowhere", headers=bearer(key))
    valid, _ = add_key(database, organizations=None)
    service.get("/api/v1/scan/scan-1/status", headers=bearer(valid))

    entry, *_ = entries(database, 2)[::-1]
    assert (entry.actor, entry.action, entry.object_id, entry.organization_id) == (
        "address:127.0.0.1",
        "get_scan_status",
        "scan-1",
        "org-1",
    )
    assert (entry.outcome, entry.status) == ("refused", 401)
    rows = database.execute("SELECT a::text FROM hubspot_deals.audit_log a").fetchall()
    assert len(rows) == 2
    assert not any(key_id in row or "CANARY" in row for (row,) in rows)


def test_a_secret_in_a_path_or_a_request_id_is_not_written_nor_said(service, database, caplog):
    key, key_id = add_key(database, organizations=None)
    secret = key.rpartition("_")[2]
    headers = bearer(key) | {"X-Request-ID": key}

    answer = service.get(f"/api/v1/scan/{key}/status", headers=headers)

    assert answer.status_code == 404
    assert secret not in answer.text + str(answer.headers)
    (entry,) = entries(database, 1)
    assert entry.object_id == f"hsd_{key_id}_[hidden]"
    assert secret not in str(entry)


def test_what_waits_is_written_when_the_process_ends(api_settings, gateway, database):
    settings = api_settings.model_copy(update={"auth_mode": "required"})
    key, _ = add_key(database, organizations=None, level="read")
    with serve(create_app(settings, gateway=gateway)) as client:
        for _ in range(1_200):
            client.get("/api/v1/scan/none/status", headers=bearer(key))

    found = find_entries(database, AuditFilter(), limit=2_000)
    assert len(found) == 1_200
    assert {(e.action, e.object_id, e.status) for e in found} == {("get_scan_status", "none", 404)}


@pytest.mark.parametrize("scan_id", ["a%00b", "%F0%9F%92%A9", "x" * 3_000, "..%2f..%2fetc"])
def test_any_id_can_be_written_down(service, database, scan_id):
    key, _ = add_key(database, organizations=None, level="read")
    service.get(f"/api/v1/scan/{scan_id}/status", headers=bearer(key))
    service.get("/api/v1/scan/after/status", headers=bearer(key))

    assert entries(database, 1, object_id="after")


def test_reads_outlive_a_database_that_is_away_for_a_moment(service, database, postgres):
    key, _ = add_key(database, organizations=None, level="read")
    service.get("/api/v1/scan/first/status", headers=bearer(key))
    with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'hubspot_deals_api'"
        )
    entries(database, 1, object_id="first")


def test_old_entries_are_deleted(database, settings):
    for days in (10, 400):
        database.execute(
            "INSERT INTO hubspot_deals.audit_log (at, actor, action, outcome)"
            " VALUES (now() - make_interval(days => %s), 'a', 'b', 'done')",
            (days,),
        )

    assert delete_old_entries(database, days_old=settings.audit_days) == 1
    assert len(find_entries(database, AuditFilter(), limit=10)) == 1


def test_no_entry_holds_a_credential(service, database):
    key, _ = add_key(database, organizations=None)
    body = start_body("scan-1", "org-1")
    service.post("/api/v1/scan/start", json=body, headers={"X-API-Key": key})
    service.get(f"/api/v1/scan/list?key={key}", headers={"X-API-Key": key})
    entries(database, 2)

    secret = key.rpartition("_")[2]
    tables = ("api_keys", "audit_log")
    for table in tables:
        rows = database.execute(f"SELECT t::text FROM hubspot_deals.{table} t").fetchall()
        assert rows
        assert not any(secret in row or "pat-na1" in row for (row,) in rows)
