"""Connections over HTTP: real PostgreSQL, real planning processes, the sandbox as HubSpot."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from api.main import create_app
from api.settings import ApiSettings
from api.testing import serve
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


def test_concurrent_creations_of_one_account_leave_one(serving):
    with (
        SandboxProcess(deals=10, **FAST) as account,
        serving(account.url) as client,
        ThreadPoolExecutor(3) as callers,
    ):
        bodies = [body_of(f"c{number}", check=True) for number in range(3)]
        statuses = list(callers.map(lambda body: client.post(PATH, json=body).status_code, bodies))

    assert sorted(statuses) == [201, 409, 409]
