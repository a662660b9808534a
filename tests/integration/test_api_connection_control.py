"""Changing, steering, following and removing connections over HTTP, on a real PostgreSQL."""

import json
import time

import pytest

from hubspot_deals.sync_contract import SYNC_LOCATION
from hubspot_deals.warehouse.syncs.connections import list_connections
from tests.integration.test_api_connections import PATH, body_of, create


def add_run(
    database, connection_id, run_no=1, *, outcome=None, epoch=0, kind="changes", error=None
):
    """What a worker leaves behind, or is leaving behind right now."""
    ended = None if outcome is None else "now"
    database.execute(
        "INSERT INTO hubspot_deals.sync_runs (connection_id, run_no, run_id, epoch, kind, ended_at,"
        " outcome, error_message, counts) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            connection_id,
            run_no,
            f"run-{run_no}",
            epoch,
            kind,
            ended,
            outcome,
            error,
            json.dumps({"created": run_no}),
        ),
    )
    if outcome is None:
        database.execute(
            "UPDATE hubspot_deals.connections SET heartbeat_at = now(), run_no = %s"
            " WHERE connection_id = %s",
            (run_no, connection_id),
        )


def fresh(database, connection_id, age):
    database.execute(
        "UPDATE hubspot_deals.connections SET fresh_as_of = now() - %s::interval"
        " WHERE connection_id = %s",
        (age, connection_id),
    )


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_change_keeps_what_it_does_not_name(client):
    before = create(client, settings={"properties": ["amount"], "quotaShare": 0.5})

    answer = client.patch(f"{PATH}/acme", json={"settings": {"refreshHours": 6}, "name": "New"})
    null = client.patch(f"{PATH}/acme", json={"settings": {"properties": None}}).json()["data"]

    after = answer.json()["data"]
    assert after["settings"] == before["settings"] | {"refreshHours": 6}
    assert (after["name"], after["organizationId"]) == ("New", "org-1")
    assert null["settings"] == after["settings"] | {"properties": None}


def test_partitions_are_free_until_the_first_run_and_then_only_grow_into_the_past(client, database):
    create(client, settings={"startDate": "2024-06-01"})
    change = {"cadence": "daily", "timeZone": "Europe/Berlin", "startDate": "2024-07-01"}
    assert client.patch(f"{PATH}/acme", json={"settings": change}).status_code == 200
    add_run(database, "acme", outcome="completed")

    same = client.patch(f"{PATH}/acme", json={"settings": change})
    earlier = client.patch(f"{PATH}/acme", json={"settings": {"startDate": "2024-01-01"}})
    refused = [
        client.patch(f"{PATH}/acme", json={"settings": settings, "name": "changed"})
        for settings in (
            {"cadence": "hourly"},
            {"timeZone": "UTC"},
            {"startDate": "2024-01-02"},
        )
    ]

    assert (same.status_code, earlier.status_code) == (200, 200)
    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (409, "CONNECTION_PARTITIONS")
        assert answer.json()["conflicting_field"] == "settings"
    shown = client.get(f"{PATH}/acme").json()["data"]
    assert shown["settings"] | change | {"startDate": "2024-01-01"} == shown["settings"]
    assert shown["name"] == ""


def test_a_change_of_the_start_is_checked_with_the_settings_that_stay(client):
    create(client, settings={"cadence": "daily", "startDate": "2008-01-01"})

    answer = client.patch(f"{PATH}/acme", json={"settings": {"cadence": "hourly"}})

    assert answer.status_code == 400
    assert "ten years ago" in answer.json()["errors"]["settings.startDate"]


@pytest.mark.parametrize("by", ["pause", "patch", "remove"])
def test_what_stops_a_connection_fences_its_run_out_and_terminates_it(
    client, database, gateway, by
):
    create(client)
    add_run(database, "acme")
    gateway.run_statuses["run-1"] = "STARTED"
    assert client.get(f"{PATH}/acme").json()["data"]["runId"] == "run-1"

    if by == "pause":
        data = client.post(f"{PATH}/acme/pause").json()["data"]
        assert data == {"connectionId": "acme", "status": "paused"}
    elif by == "patch":
        client.patch(f"{PATH}/acme", json={"enabled": False})
    else:
        client.delete(f"{PATH}/acme")

    assert database.execute("SELECT epoch FROM hubspot_deals.connections").fetchone() == (1,)
    outcome = database.execute("SELECT outcome, ended_at IS NULL FROM hubspot_deals.sync_runs")
    assert outcome.fetchone() == ("cancelled", False)
    until(lambda: gateway.run_statuses["run-1"] == "CANCELED")


def test_pausing_and_resuming_twice_changes_nothing_more(client, database):
    create(client)
    add_run(database, "acme")

    said = [
        client.post(f"{PATH}/acme/{verb}").json()["data"]["status"]
        for verb in ("pause", "pause", "resume", "resume")
    ]

    assert said == ["paused", "paused", "waiting", "waiting"]
    assert database.execute("SELECT epoch FROM hubspot_deals.connections").fetchone() == (1,)


def test_a_removed_connection_is_hidden_its_token_gone_and_its_id_taken(client, database, settings):
    create(client)
    add_run(database, "acme", outcome="completed")

    answer = client.delete(f"{PATH}/acme")

    assert answer.json()["data"] == {"connectionId": "acme"}
    assert list_connections(settings.database_url) == []
    assert database.execute("SELECT * FROM hubspot_deals.connection_credentials").fetchall() == []
    assert client.get(PATH).json()["data"]["connections"] == []
    again = client.post(PATH, json=body_of("acme"))
    assert (again.status_code, again.json()["code"]) == (409, "CONNECTION_EXISTS")
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("GET", "/runs"),
        ("POST", "/sync"),
        ("POST", "/pause"),
        ("POST", "/resume"),
    ):
        gone = client.request(method, f"{PATH}/acme{path}", json={} if method == "PATCH" else None)
        assert (gone.status_code, gone.json()["code"]) == (404, "CONNECTION_NOT_FOUND")
        assert gone.json()["resource_id"] == "acme"


@pytest.mark.parametrize("connection_id", ["Acme", "a-b", "a" * 64, "%00", "acme%0A"])
def test_an_id_that_no_connection_can_have_is_not_found(client, connection_id):
    answer = client.get(f"{PATH}/{connection_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "CONNECTION_NOT_FOUND")


def test_a_sync_is_wished_for_once_and_says_whether_a_run_is_at_work(client, database):
    create(client)

    first = client.post(f"{PATH}/acme/sync")
    second = client.post(f"{PATH}/acme/sync").json()["data"]
    add_run(database, "acme")
    during = client.post(f"{PATH}/acme/sync").json()
    client.post(f"{PATH}/acme/pause")
    paused = client.post(f"{PATH}/acme/sync")

    assert first.status_code == 202
    assert first.json()["data"]["syncing"] is False
    assert second["syncWantedAt"] == first.json()["data"]["syncWantedAt"] is not None
    assert (during["data"]["syncing"], during["data"]["status"]) == (True, "loading")
    assert "another one follows" in during["message"]
    assert (paused.status_code, paused.json()["code"]) == (409, "CONNECTION_PAUSED")
    assert client.get(f"{PATH}/acme").json()["data"]["syncWantedAt"] is None


def test_a_status_follows_from_what_is_recorded(client, database):
    create(client)

    def status():
        return client.get(f"{PATH}/acme").json()["data"]["status"]

    assert status() == "waiting"
    add_run(database, "acme", 1)
    assert status() == "loading"
    database.execute("UPDATE hubspot_deals.connections SET heartbeat_at = now() - interval '1 min'")
    assert status() == "waiting"
    database.execute("UPDATE hubspot_deals.sync_runs SET ended_at = now(), outcome = 'completed'")
    fresh(database, "acme", "1 hour")
    assert status() == "current"
    fresh(database, "acme", "121 minutes")
    assert status() == "behind"
    add_run(database, "acme", 2, outcome="failed", error="the token was revoked")
    shown = client.get(f"{PATH}/acme").json()["data"]
    assert (shown["status"], shown["errorMessage"]) == ("failing", "the token was revoked")
    assert shown["secondsOld"] == pytest.approx(7260, abs=30)
    add_run(database, "acme", 3, outcome="cancelled")
    assert status() == "failing"
    add_run(database, "acme", 4, outcome="completed")
    fresh(database, "acme", "1 minute")
    assert status() == "current"
    client.post(f"{PATH}/acme/pause")
    assert status() == "paused"


def test_runs_are_newest_first_and_pages_add_up(client, database):
    create(client)
    for number in range(1, 6):
        add_run(database, "acme", number, outcome="completed")

    answer, numbers = client.get(f"{PATH}/acme/runs?limit=2"), []
    while True:
        page = answer.json()["data"]
        numbers += [run["runNo"] for run in page["runs"]]
        if "next" not in answer.links:
            break
        add_run(database, "acme", 100 + len(numbers), outcome="completed")
        answer = client.get(answer.links["next"]["url"])

    assert numbers == [5, 4, 3, 2, 1]
    assert page["connectionId"] == "acme"
    run = page["runs"][0]
    assert (run["runId"], run["kind"], run["outcome"]) == ("run-1", "changes", "completed")
    assert (run["counts"], run["duration"]) == ({"created": 1}, 0.0)
    foreign = client.get(f"{PATH}?cursor={page['pagination']['nextCursor'] or 'x'}")
    assert foreign.status_code == 400


def test_a_list_is_one_organizations_newest_first_and_pages_add_up(client):
    for number in range(5):
        create(client, f"own_{number}")
        create(client, f"other_{number}", organization="org-2")

    answer, ids = client.get(f"{PATH}?organizationId=org-1&limit=2"), []
    while True:
        ids += [shown["connectionId"] for shown in answer.json()["data"]["connections"]]
        if "next" not in answer.links:
            break
        create(client, f"later_{len(ids)}")
        client.delete(f"{PATH}/{ids[-1]}")
        answer = client.get(answer.links["next"]["url"])

    assert ids == [f"own_{number}" for number in range(4, -1, -1)]
    cursor = client.get(f"{PATH}?organizationId=org-1&limit=1").json()["data"]["pagination"]
    other = client.get(f"{PATH}?organizationId=org-2&cursor={cursor['nextCursor']}")
    assert (other.status_code, list(other.json()["errors"])) == (400, ["cursor"])


def test_statistics_tell_how_current_connections_are(client, database):
    for number, age in enumerate(("1 minute", "3 hours", "10 days")):
        create(client, f"c{number}")
        fresh(database, f"c{number}", age)
    create(client, "c3", organization="org-2")
    client.post(f"{PATH}/c2/pause")

    every = client.get("/api/v1/stats").json()["connections"]
    own = client.get("/api/v1/stats?organizationId=org-2").json()["connections"]

    assert every["total"] == 4
    assert every["status_breakdown"] == {"current": 1, "behind": 1, "paused": 1, "waiting": 1}
    assert every["stalest_connection"] == "c1"
    assert every["most_seconds_old"] == pytest.approx(3 * 3600, abs=30)
    assert own == {
        "total": 1,
        "status_breakdown": {"waiting": 1},
        "most_seconds_old": None,
        "stalest_connection": None,
    }


def test_many_changes_make_few_reloads_and_pauses_none(client, gateway):
    for number in range(30):
        create(client, f"c{number}")
    until(lambda: gateway.reloads)
    time.sleep(1.5)
    assert 1 <= len(gateway.reloads) <= 3
    assert set(gateway.reloads) == {SYNC_LOCATION}
    before = len(gateway.reloads)

    client.post(f"{PATH}/c0/pause")
    client.patch(f"{PATH}/c0", json={"enabled": True})
    time.sleep(1.5)
    assert len(gateway.reloads) == before
    client.delete(f"{PATH}/c0")
    until(lambda: len(gateway.reloads) == before + 1)


def test_a_dagster_that_is_down_is_told_when_it_is_back(client, gateway):
    gateway.is_down = True
    create(client)
    time.sleep(1.3)
    assert gateway.reloads == []
    gateway.is_down = False
    until(lambda: gateway.reloads == [SYNC_LOCATION])
