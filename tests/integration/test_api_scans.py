"""Starting and following scans over HTTP, on a real PostgreSQL."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from api.dagster.testing import InMemoryDagsterGateway
from api.main import create_app
from api.settings import ApiSettings
from api.testing import serve
from hubspot_deals.warehouse.credentials import KeyRing, SealedToken
from tests.conftest import TEST_KEYS

TOKEN = "canary-token-0123456789"


def scan(scan_id="scan-1", organization_id="org-1", **filters):
    return {
        "config": {
            "scanId": scan_id,
            "organizationId": organization_id,
            "type": ["user"],
            "auth": {"accessToken": TOKEN},
            "filters": filters,
        }
    }


def start(client, *arguments, headers=None, **filters):
    return client.post("/api/v1/scan/start", json=scan(*arguments, **filters), headers=headers)


def status_of(client, scan_id="scan-1"):
    return client.get(f"/api/v1/scan/{scan_id}/status").json()["data"]


def wait_for(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_start_is_accepted_with_the_documented_body(client):
    answer = start(client)

    assert answer.status_code == 202
    body = answer.json()
    assert body.pop("timestamp").endswith("Z")
    assert body == {
        "success": True,
        "message": "Scan initialization accepted and is now processing in the background.",
        "scanId": "scan-1",
        "status": "started",
        "data": {"scanId": "scan-1", "status": "pending"},
    }


def test_an_accepted_scan_is_launched_with_epoch_zero_and_its_run_is_recorded(
    client, gateway, database
):
    start(client)

    wait_for(lambda: database.execute("SELECT run_id FROM hubspot_deals.scans").fetchone()[0])
    (run,) = gateway.runs
    assert (run.scan_id, run.organization_id, run.epoch) == ("scan-1", "org-1", 0)
    assert status_of(client)["metadata"] == {
        "runId": run.run_id,
        "runStatus": "QUEUED",
        "attempts": [],
    }


def test_a_scan_that_dagster_cannot_launch_stays_accepted_and_is_left_to_the_sensor(
    client, gateway, database
):
    gateway.is_down = True

    assert start(client).status_code == 202

    claim = "SELECT launch_claimed_until FROM hubspot_deals.scans"
    wait_for(lambda: database.execute(claim).fetchone()[0] is None)
    assert status_of(client)["status"] == "pending"


def test_a_pending_scan_has_a_status_even_while_dagster_is_down(client, gateway, database):
    start(client)
    wait_for(lambda: database.execute("SELECT run_id FROM hubspot_deals.scans").fetchone()[0])
    gateway.is_down = True

    assert status_of(client)["status"] == "pending"


def test_a_scan_whose_run_died_before_it_began_goes_on_waiting(client, gateway, database):
    start(client)
    wait_for(lambda: database.execute("SELECT run_id FROM hubspot_deals.scans").fetchone()[0])
    gateway.run_statuses[gateway.runs[0].run_id] = "FAILURE"

    shown = status_of(client)

    assert (shown["status"], shown["errorMessage"]) == ("pending", None)
    assert shown["metadata"]["runStatus"] == "FAILURE"


@pytest.mark.parametrize("limit", [0, 7])
def test_how_often_a_scan_is_resumed_by_itself_is_a_setting(database_url, database, limit):
    settings = ApiSettings(
        database_url=SecretStr(database_url), encryption_keys=TEST_KEYS, auto_resumes=limit
    )
    with serve(create_app(settings, gateway=InMemoryDagsterGateway())) as client:
        start(client)

    stored = database.execute("SELECT auto_resume_limit FROM hubspot_deals.scans").fetchone()
    assert stored == (limit,)


def test_the_stored_token_is_sealed_and_bound_to_its_scan(client, database):
    start(client)

    row = database.execute(
        "SELECT key_id, nonce, ciphertext FROM hubspot_deals.credentials"
    ).fetchone()
    keys = KeyRing.parse(TEST_KEYS)
    assert keys.open(SealedToken(*row), bound_to="scan-1").get_secret_value() == TOKEN
    assert TOKEN.encode() not in row[2]
    stored = database.execute("SELECT to_jsonb(s)::text FROM hubspot_deals.scans s").fetchone()[0]
    assert TOKEN not in stored


def test_a_taken_id_is_a_conflict_with_the_documented_text(client):
    start(client)

    answer = start(client, "scan-1", "another-organization")

    assert answer.status_code == 409
    assert answer.json()["message"] == "A scan with ID 'scan-1' already exists"
    assert answer.json()["error"] == answer.json()["message"]


def test_the_same_key_and_request_get_the_same_answer_and_one_run(client, gateway):
    first = start(client, headers={"Idempotency-Key": "k-1"})
    again = start(client, headers={"Idempotency-Key": "k-1"})

    assert (again.status_code, again.content) == (first.status_code, first.content)
    wait_for(lambda: gateway.runs)
    assert len(gateway.runs) == 1


def test_the_same_key_with_another_token_is_still_the_same_request(client):
    start(client, headers={"Idempotency-Key": "k-1"})
    body = scan()
    body["config"]["auth"]["accessToken"] = "another-token-0123456789"

    answer = client.post("/api/v1/scan/start", json=body, headers={"Idempotency-Key": "k-1"})

    assert answer.status_code == 202


def test_the_same_key_with_another_request_is_a_conflict(client):
    start(client, headers={"Idempotency-Key": "k-1"})

    answer = start(client, headers={"Idempotency-Key": "k-1"}, includeArchived=True)

    assert answer.status_code == 409
    assert "Idempotency-Key" in answer.json()["message"]


def test_keys_of_two_organizations_do_not_meet(client):
    start(client, "scan-1", "org-1", headers={"Idempotency-Key": "k-1"})

    answer = start(client, "scan-2", "org-2", headers={"Idempotency-Key": "k-1"})

    assert answer.status_code == 202


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "café"])
def test_an_unusable_idempotency_key_is_named(client, key):
    answer = start(client, headers={"Idempotency-Key": key.encode()})

    assert answer.status_code == 400
    assert "Idempotency-Key must be" in str(answer.json()["validation_errors"])


def test_a_status_has_every_documented_field_and_no_credential(client):
    start(client, properties=["dealname", "dealname", "amount"])

    shown = status_of(client)

    assert set(shown) == {
        "scanId",
        "organizationId",
        "type",
        "status",
        "startTime",
        "endTime",
        "lastHeartbeat",
        "resumeAt",
        "recordsExtracted",
        "duration",
        "errorMessage",
        "metadata",
        "config",
        "checkpointInfo",
    }
    assert shown["type"] == "user"
    assert shown["config"] == {
        "scanId": "scan-1",
        "organizationId": "org-1",
        "type": ["user"],
        "filters": {"properties": ["dealname", "amount"], "includeArchived": False},
    }
    assert shown["checkpointInfo"] == {
        "latestCheckpoint": {},
        "progress": None,
        "lastCheckpointAt": None,
    }


def test_a_status_shows_the_last_committed_chunk(client, database):
    start(client)
    database.execute(
        "UPDATE hubspot_deals.scans SET started_at = now(), records_expected = 8,"
        " records_extracted = 3, auto_resume_limit = 0"
    )
    database.execute(
        "INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no,"
        " load_id, first_row, row_count, checkpoint, epoch, committed_at) VALUES"
        " ('scan-1', 1, 'deals', 1, 'a', 1, 2, '{\"after\": 2}', 1, '2024-01-15 10:00:00Z'),"
        " ('scan-1', 1, 'deals', 2, 'b', 3, 1, '{\"after\": 3}', 1, '2024-01-15 10:05:00Z')"
    )

    shown = status_of(client)

    assert shown["status"] == "crashed"
    assert shown["checkpointInfo"] == {
        "latestCheckpoint": {"after": 3},
        "progress": 37.5,
        "lastCheckpointAt": "2024-01-15T10:05:00.000Z",
    }


@pytest.mark.parametrize(
    "path",
    [
        "scan/nobody/status",
        "results/nobody/tables",
        "results/nobody/result",
        "scan/nul%00byte/status",
        "scan/newline%0A/status",
        "results/%F0%9F%98%80/tables",
    ],
)
def test_an_unknown_id_is_not_found(client, path):
    answer = client.get(f"/api/v1/{path}")

    assert answer.status_code == 404
    assert answer.json()["message"].startswith("No scan found with ID: ")


def test_a_very_long_unknown_id_is_not_echoed_whole(client):
    answer = client.get(f"/api/v1/scan/{'x' * 5_000}/status")

    assert answer.status_code == 404
    assert len(answer.content) < 2_000


@pytest.mark.parametrize("scan_id", ["list", "start", "status", "result", "tables", "health"])
def test_a_scan_may_be_named_like_a_verb(client, scan_id):
    assert start(client, scan_id).status_code == 202

    assert status_of(client, scan_id)["scanId"] == scan_id
    assert client.get(f"/api/v1/results/{scan_id}/tables").status_code == 400


def test_ids_and_organizations_of_the_greatest_length_work(client, gateway):
    answer = start(client, "s" * 255, "ö" * 255)

    assert answer.status_code == 202
    assert status_of(client, "s" * 255)["organizationId"] == "ö" * 255
    wait_for(lambda: gateway.runs)


def test_of_many_starts_with_one_id_exactly_one_is_accepted(client, gateway):
    with ThreadPoolExecutor(12) as callers:
        answers = list(callers.map(lambda _: start(client), range(12)))

    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 11
    wait_for(lambda: gateway.runs)
    assert len(gateway.runs) == 1


def test_of_many_starts_with_one_key_every_one_is_accepted_and_one_run_launched(client, gateway):
    with ThreadPoolExecutor(12) as callers:
        headers = {"Idempotency-Key": "k-1"}
        answers = list(callers.map(lambda _: start(client, headers=headers), range(12)))

    assert {answer.status_code for answer in answers} == {202}
    assert {answer.content for answer in answers} == {answers[0].content}
    wait_for(lambda: gateway.runs)
    assert len(gateway.runs) == 1


class BlockedGateway(InMemoryDagsterGateway):
    """Launches nothing before the test opens it."""

    def __init__(self):
        super().__init__()
        self.opened = threading.Event()

    async def launch_run(self, scan_id, organization_id, **options):
        await asyncio.to_thread(self.opened.wait, 10)
        return await super().launch_run(scan_id, organization_id, **options)


def test_an_answer_does_not_wait_for_the_launch_but_the_end_of_the_service_does(
    database_url, database
):
    settings = ApiSettings(database_url=SecretStr(database_url), encryption_keys=TEST_KEYS)
    gateway = BlockedGateway()
    with serve(create_app(settings, gateway=gateway)) as client:
        assert start(client).status_code == 202
        assert not gateway.runs
        # The service begins to end at the end of this block, before the gateway is opened.
        threading.Timer(0.3, gateway.opened.set).start()

    assert database.execute("SELECT run_id FROM hubspot_deals.scans").fetchone()[0]
