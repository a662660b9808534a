"""Extracting anew under the id of a scan that has ended, over HTTP on a real PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.integration.test_api_control import FACTS, put_scan
from tests.integration.test_api_dialect import begin
from tests.integration.test_api_scans import wait_for

HAS_ENDED = {"completed", "failed", "cancelled", "crashed"}


@pytest.fixture
def put(database):
    """Puts a scan of `org-1` with five deals into a state, and returns its id."""
    return partial(put_scan, database)


def own(client, scan_id, **changes):
    """Start anew what `put` has put there."""
    return begin(client, scan_id, organizationId="org-1", **changes)


def state_of(client, scan_id):
    return client.get(f"/scan/status/{scan_id}").json()["state"]


@pytest.mark.parametrize("status", FACTS)
def test_what_has_ended_begins_anew_under_its_id_and_the_rest_goes_on(
    client, put, gateway, database, status
):
    scan_id = put(status)

    answer = own(client, scan_id)

    if status in HAS_ENDED:
        assert answer.status_code == 202
        assert state_of(client, scan_id) == "pending"
        wait_for(lambda: gateway.runs)
        (epoch,) = database.execute("SELECT epoch FROM hubspot_deals.scans").fetchone()
        assert (gateway.runs[0].scan_id, gateway.runs[0].epoch) == (scan_id, epoch)
    else:
        assert answer.status_code == 409
        body = answer.json()
        assert body["message"].startswith("Extraction already in progress")
        assert (body["error_code"], body["conflicting_field"]) == ("CONFLICT", "config.scanId")
        assert state_of(client, scan_id) == status
        assert gateway.runs == []


@pytest.mark.parametrize("status", FACTS)
def test_under_the_other_mount_a_taken_id_stays_taken(client, put, status):
    answer = begin(client, put(status), mount="/api/v1", organizationId="org-1")

    assert (answer.status_code, answer.json()["error_code"]) == (409, "SCAN_EXISTS")


def test_a_scan_of_another_organization_is_not_touched(client, put):
    answer = begin(client, put("completed"), organizationId="org-2")

    assert answer.status_code == 409
    assert answer.json()["message"] == "A scan with ID 'is-completed' already exists"
    assert state_of(client, "is-completed") == "completed"


def test_the_result_is_served_while_the_scan_is_extracted_anew_and_when_that_fails(
    client, put, database
):
    before = client.get(f"/scan/result/{put('completed')}").json()
    own(client, "is-completed")

    anew = client.get("/scan/result/is-completed").json()
    assert (anew["data"], anew["snapshot"]) == (before["data"], before["snapshot"])
    assert (anew["status"], anew["completed_at"]) == ("pending", None)
    page = client.get("/api/v1/results/is-completed/result?tableName=deals").json()["data"]
    assert page["records"] == before["data"]
    assert client.get("/scan/download/is-completed/csv").status_code == 200
    (seen,) = database.execute("SELECT count(*) FROM hubspot_deals.deals").fetchone()
    assert seen == 5
    shown = client.get("/scan/is-completed/status").json()["data"]
    assert shown["recordsExtracted"] == 0
    assert shown["config"]["filters"]["dateRange"]["startDate"] == "2024-01-01"
    assert shown["metadata"]["served"]["snapshot"] == 1
    assert shown["metadata"]["served"]["config"] == {"type": ["user"]}

    client.post("/scan/cancel/is-completed")
    assert client.get("/scan/result/is-completed").json()["data"] == before["data"]
    own(client, "is-completed")
    shown = client.get("/scan/is-completed/status").json()["data"]
    assert shown["metadata"]["served"]["config"] == {"type": ["user"]}


def test_a_scan_without_results_after_a_cleanup_begins_anew_without_any(client, put, database):
    database.execute(
        "UPDATE hubspot_deals.scans SET results_removed_at = now() WHERE scan_id = %s",
        (put("completed"),),
    )
    assert client.get("/scan/result/is-completed").status_code == 404

    assert own(client, "is-completed").status_code == 202

    assert client.get("/scan/result/is-completed").json()["data"] == []
    assert "served" not in client.get("/scan/is-completed/status").json()["data"]["metadata"]


@pytest.mark.parametrize("removal", ["results", "scan"])
def test_a_scan_whose_rows_are_being_removed_cannot_begin_anew(client, put, database, removal):
    database.execute(
        "UPDATE hubspot_deals.scans SET results_removed_at = now(), removal = %s"
        " WHERE scan_id = %s",
        (removal, put("completed")),
    )

    answer = own(client, "is-completed")

    assert (answer.status_code, answer.json()["code"]) == (409, "SCAN_EXISTS")


def test_of_many_restarts_at_once_one_wins(client, put, gateway):
    scan_id = put("completed")
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: own(client, scan_id), range(8)))

    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
    wait_for(lambda: gateway.runs)
    assert len(gateway.runs) == 1


def test_the_token_of_a_restart_takes_the_place_of_the_earlier_one(client, database):
    begin(client)
    sealed = "SELECT nonce, ciphertext, account FROM hubspot_deals.credentials"
    (before,) = database.execute(sealed).fetchall()
    client.post("/scan/cancel/weekly-sync-001")

    begin(client, auth={"accessToken": "another-token-0123456789"})

    (after,) = database.execute(sealed).fetchall()
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_a_key_brings_its_first_answer_also_after_a_restart_with_another_key(client, gateway):
    first = begin(client, headers={"Idempotency-Key": "k-1"})
    client.post("/scan/cancel/weekly-sync-001")
    assert begin(client, headers={"Idempotency-Key": "k-1"}).content == first.content
    assert state_of(client, "weekly-sync-001") == "cancelled"

    second = begin(client, headers={"Idempotency-Key": "k-2"})

    assert second.json()["timestamp"] > first.json()["timestamp"]
    assert state_of(client, "weekly-sync-001") == "pending"
    assert begin(client, headers={"Idempotency-Key": "k-1"}).content == first.content
    assert begin(client, headers={"Idempotency-Key": "k-2"}).content == second.content
    for key in ("k-1", "k-2"):
        other = begin(client, "another-scan", headers={"Idempotency-Key": key})
        assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
        assert other.json()["conflicting_field"] == "Idempotency-Key"
    wait_for(lambda: len(gateway.runs) == 2)


def test_a_restart_cannot_take_a_key_of_another_scan(client):
    begin(client, "one", headers={"Idempotency-Key": "k-1"})
    begin(client, "two")
    client.post("/scan/cancel/two")

    answer = begin(client, "two", headers={"Idempotency-Key": "k-1"})

    assert (answer.status_code, answer.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert state_of(client, "two") == "cancelled"
