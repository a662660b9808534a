"""Connections over HTTP: real PostgreSQL, real planning processes, the sandbox as HubSpot."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from api.main import create_app
from api.settings import ApiSettings
from api.testing import serve
from hubspot_deals.sync_contract import SYNC_LOCATION
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.syncs.connections import get_token, list_connections
from hubspot_sandbox.testing import GOOD_TOKEN, SandboxProcess
from tests.conftest import FAST, TEST_KEYS

PATH = "/api/v1/connections"


def body_of(connection_id=None, organization="org-1", token=GOOD_TOKEN, *, check=False, **more):
    body = {"organizationId": organization, "auth": {"accessToken": token}, "check": check, **more}
    return body if connection_id is None else body | {"connectionId": connection_id}


def create(client, connection_id="acme", **more):
    answer = client.post(PATH, json=body_of(connection_id, **more))
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]


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


@pytest.fixture
def serving(settings, monkeypatch, gateway):
    """Serves the API against a sandbox; checks know HubSpot's address from the environment."""

    def serving(url):
        monkeypatch.setenv("HUBSPOT_DEALS_HUBSPOT_URL", url)
        monkeypatch.setenv("HUBSPOT_DEALS_RETRY_SECONDS", "1")
        api = ApiSettings(database_url=settings.database_url, encryption_keys=TEST_KEYS)
        return serve(create_app(api, gateway=gateway))

    return serving


@pytest.fixture
def checking(serving, sandbox):
    with serving(sandbox.url) as client:
        yield client


def test_a_connection_is_checked_stored_and_shown(checking, settings, database):
    answer = checking.post(PATH, json=body_of("acme", check=True, name="ACME"))

    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"{PATH}/acme"
    created = answer.json()["data"]
    assert created.pop("warnings") == []
    assert created["portalId"] > 0
    assert (created["status"], created["enabled"], created["freshAsOf"]) == ("waiting", True, None)
    assert created["settings"] | {"startDate": ""} == {
        "cadence": "hourly",
        "timeZone": "UTC",
        "startDate": "",
        "objects": ["owners", "pipelines", "stage_history", "associations"],
        "properties": None,
        "refreshHours": 24,
        "reconcileHours": 168,
        "quotaShare": 1.0,
    }
    assert checking.get(answer.headers["Location"]).json()["data"] == created
    (stored,) = list_connections(settings.database_url)
    assert (stored.connection_id, stored.portal_id) == ("acme", created["portalId"])
    token = get_token(database, "acme", KeyRing.parse(TEST_KEYS))
    assert token == SecretStr(GOOD_TOKEN)


@pytest.mark.parametrize("token", ["pat-na1-invalid-0001", "pat-na1-noscope-0001"])
def test_a_token_that_cannot_read_deals_is_a_fault_of_the_request(checking, database, token):
    answer = checking.post(PATH, json=body_of("acme", token=token, check=True))

    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["auth.accessToken"]
    assert token not in answer.text
    assert database.execute("SELECT count(*) FROM hubspot_deals.connections").fetchone() == (0,)


def test_a_token_that_lacks_a_lesser_scope_is_accepted_with_a_warning(checking):
    answer = checking.post(PATH, json=body_of(token="pat-na1-noowners-0001", check=True))

    assert answer.status_code == 201
    assert answer.json()["data"]["warnings"] == [
        "The token lacks the scope crm.objects.owners.read"
    ]


def test_an_account_is_connected_once_in_an_organization(checking):
    first = checking.post(PATH, json=body_of("first", check=True))
    again = checking.post(PATH, json=body_of("again", check=True))
    elsewhere = checking.post(PATH, json=body_of("other", organization="org-2", check=True))
    checking.delete(f"{PATH}/first")
    anew = checking.post(PATH, json=body_of("anew", check=True))

    assert [first.status_code, again.status_code, elsewhere.status_code] == [201, 409, 201]
    assert again.json()["code"] == "CONNECTION_EXISTS"
    assert str(first.json()["data"]["portalId"]) in again.json()["message"]
    assert anew.status_code == 201


def test_hubspot_that_does_not_answer_is_a_503_and_can_be_left_unasked(serving):
    with serving("http://127.0.0.1:9") as client:
        refused = client.post(PATH, json=body_of("acme", check=True))
        accepted = client.post(PATH, json=body_of("acme", check=False))
        taken = client.post(PATH, json=body_of("acme", check=True))

    assert (refused.status_code, refused.json()["code"]) == (503, "HUBSPOT_UNAVAILABLE")
    assert (taken.status_code, taken.json()["code"]) == (409, "CONNECTION_EXISTS")
    assert accepted.status_code == 201
    assert accepted.json()["data"]["portalId"] is None
    assert accepted.json()["data"]["warnings"] == ["HubSpot was not asked about the access token"]


def test_a_new_token_has_to_be_of_the_same_account(checking, serving, database):
    checking.post(PATH, json=body_of("acme", check=True))
    renewed = {"auth": {"accessToken": "pat-na1-renewed-0001"}}
    assert checking.patch(f"{PATH}/acme", json=renewed).status_code == 200
    assert get_token(database, "acme", KeyRing.parse(TEST_KEYS)).get_secret_value() == (
        "pat-na1-renewed-0001"
    )

    database.execute("UPDATE hubspot_deals.connections SET portal_id = 7")
    other = checking.patch(f"{PATH}/acme", json={"auth": {"accessToken": GOOD_TOKEN}})

    assert (other.status_code, other.json()["code"]) == (409, "CONNECTION_ACCOUNT")
    assert get_token(database, "acme", KeyRing.parse(TEST_KEYS)).get_secret_value() == (
        "pat-na1-renewed-0001"
    )


def test_an_id_is_made_of_the_name_and_is_taken_once(client):
    made = create(client, None, name="ACME EMEA, 2nd")["connectionId"]
    of_digits = create(client, None, name="42")["connectionId"]
    taken = client.post(PATH, json=body_of(made, organization="org-2"))

    assert made.startswith("acme_emea_2nd_")
    assert of_digits.startswith("c_42_")
    assert (taken.status_code, taken.json()["code"]) == (409, "CONNECTION_EXISTS")


def test_a_repeated_creation_with_its_key_is_the_same_creation(client):
    headers = {"Idempotency-Key": "key-1"}
    body = body_of(name="ACME")

    with ThreadPoolExecutor(4) as callers:
        answers = list(
            callers.map(lambda _: client.post(PATH, json=body, headers=headers), range(8))
        )
    with_new_token = client.post(
        PATH, json=body_of(name="ACME", token="pat-na1-renewed-0001"), headers=headers
    )
    other = client.post(PATH, json=body_of(name="Other"), headers=headers)

    assert {answer.status_code for answer in [*answers, with_new_token]} == {201}
    assert len({answer.json()["data"]["connectionId"] for answer in answers}) == 1
    assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert client.get(PATH).json()["data"]["pagination"]["total"] == 1


def test_no_answer_and_no_log_line_has_the_token(serving, sandbox, capfd):
    token = "pat-na1-canary-for-connections"
    with serving(sandbox.url) as client:
        texts = [
            client.post(PATH, json=body_of("acme", token=token, check=True)).text,
            client.patch(f"{PATH}/acme", json={"auth": {"accessToken": token}}).text,
            client.get(f"{PATH}/acme").text,
            client.get(PATH).text,
            client.post(PATH, json=body_of("acme", token=token, check=True)).text,
            client.post(PATH, json=body_of("acme", token=f"{token} x", sync=token)).text,
            client.delete(f"{PATH}/acme").text,
        ]

    assert token not in "".join(texts) + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("part", "path", "fault"),
    [
        ({"connectionId": "Acme"}, "connectionId", "Connection ID must be 1-63 characters"),
        ({"connectionId": "acme\n"}, "connectionId", "Connection ID must be"),
        ({"connectionId": "a" * 64}, "connectionId", "Connection ID must be"),
        ({"organizationId": None}, "organizationId", "Organization ID must be a string"),
        ({"name": "a\x00b"}, "name", "Name must be"),
        ({"auth": {}}, "auth.accessToken", "Access token is required"),
        ({"enabled": "no"}, "enabled", "Enabled must be true or false"),
        ({"cadence": "daily"}, "cadence", "Unknown field"),
        ({"settings": {"cadence": "weekly"}}, "settings.cadence", "Cadence must be one of"),
        ({"settings": {"timeZone": "Mars/Olympus"}}, "settings.timeZone", "Time zone must be"),
        ({"settings": {"timeZone": "../etc"}}, "settings.timeZone", "Time zone must be"),
        ({"settings": {"startDate": "2024-02-30"}}, "settings.startDate", "Date does not exist"),
        ({"settings": {"startDate": "2999-01-01"}}, "settings.startDate", "Start date must not"),
        ({"settings": {"startDate": "2006-01-01"}}, "settings.startDate", "Start date must not"),
        ({"settings": {"objects": ["contacts"]}}, "settings.objects", "Objects must be some of"),
        ({"settings": {"properties": ["*", "amount"]}}, "settings.properties", '"*" means every'),
        ({"settings": {"refreshHours": 0}}, "settings.refreshHours", "must be at least 1"),
        ({"settings": {"reconcileHours": 1.5}}, "settings.reconcileHours", "whole number"),
        ({"settings": {"quotaShare": 0}}, "settings.quotaShare", "must be more than 0"),
        ({"settings": {"quotaShare": 2}}, "settings.quotaShare", "must be at most 1"),
        ({"settings": {"quotaShare": "1"}}, "settings.quotaShare", "must be a number"),
        ({"settings": {"timezone": "UTC"}}, "settings.timezone", "Unknown field"),
    ],
)
def test_faults_are_named_at_their_place(client, part, path, fault):
    answer = client.post(PATH, json=body_of() | part)

    assert answer.status_code == 400
    errors = answer.json()["errors"]
    assert list(errors) == [path], errors
    assert fault in errors[path]


def test_a_daily_connection_may_begin_long_ago(client):
    settings = {"cadence": "daily", "startDate": "2006-01-01", "timeZone": "America/New_York"}
    assert create(client, settings=settings)["settings"]["startDate"] == "2006-01-01"


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


def test_concurrent_creations_of_one_account_leave_one(serving):
    with (
        SandboxProcess(deals=10, **FAST) as account,
        serving(account.url) as client,
        ThreadPoolExecutor(3) as callers,
    ):
        bodies = [body_of(f"c{number}", check=True) for number in range(3)]
        statuses = list(callers.map(lambda body: client.post(PATH, json=body).status_code, bodies))

    assert sorted(statuses) == [201, 409, 409]
