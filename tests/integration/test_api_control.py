"""Pausing, resuming, cancelling and removing scans over HTTP, on a real PostgreSQL."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from api.dagster.testing import InMemoryDagsterGateway
from api.main import create_app
from api.scans.background import Background
from api.scans.remover import ScanRemover
from api.settings import ApiSettings
from api.testing import serve
from hubspot_deals.warehouse.removal import mark_scan_for_removal
from hubspot_deals.warehouse.states import LEASE_LOCK_CLASS
from tests.conftest import TEST_KEYS
from tests.integration.test_api_scans import start, status_of, wait_for

ENDED = "started_at = now(), ended_at = now()"
FACTS = {
    "pending": "run_id = NULL",
    "running": "started_at = now(), worker_epoch = epoch, heartbeat_at = now() + interval '1 h'",
    "paused": "started_at = now(), requested = 'pause'",
    "resuming": "started_at = now(), resuming_since = now()",
    "crashed": "started_at = now(), auto_resume_limit = 0",
    "completed": f"outcome = 'completed', generation = 1, {ENDED}",
    "failed": f"outcome = 'failed', {ENDED}",
    "cancelled": f"outcome = 'cancelled', {ENDED}",
}
ALLOWED = {
    "cancel": (200, {"pending", "running", "paused", "resuming", "crashed"}),
    "pause": (200, {"pending", "running", "resuming"}),
    "resume": (202, {"paused", "crashed"}),
    "remove": (200, {"completed", "failed", "cancelled", "crashed"}),
}


@pytest.fixture
def put(database):
    """Puts a scan with five deals into a state, and returns its id."""
    return partial(put_scan, database)


def put_scan(database, status, scan_id=None):
    scan_id = scan_id or f"is-{status}"
    (seq,) = database.execute(
        "INSERT INTO hubspot_deals.scans (scan_id, organization_id, config, request_hash,"
        " records_extracted) VALUES (%s, 'org-1', %s, '', 5) RETURNING seq",
        (scan_id, Jsonb({"type": ["user"]})),
    ).fetchone()
    database.execute(f"UPDATE hubspot_deals.scans SET {FACTS[status]} WHERE seq = %s", (seq,))
    if status == "running":
        database.execute("SELECT pg_advisory_lock(%s, %s)", (LEASE_LOCK_CLASS, seq))
    add_deals(database, scan_id, 5)
    return scan_id


def add_deals(database, scan_id, count):
    """Store deals in one committed chunk."""
    load_id = f"load-of-{scan_id}"
    database.execute(
        "INSERT INTO hubspot_deals.scan_tables VALUES (%s, 1, 'deals', %s, %s, '{id}')",
        (scan_id, count, count),
    )
    database.execute(
        "INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no,"
        " load_id, first_row, row_count, epoch) VALUES (%s, 1, 'deals', 1, %s, 1, %s, 1)",
        (scan_id, load_id, count),
    )
    database.execute(
        "INSERT INTO hubspot_deals_extraction.deals (scan_id, row_no, _dlt_load_id, id, archived,"
        " properties) SELECT %s, n, %s, n, false, '{}' FROM generate_series(1, %s) n",
        (scan_id, load_id, count),
    )


def tell(client, verb, scan_id):
    method = "DELETE" if verb == "remove" else "POST"
    return client.request(method, f"/api/v1/scan/{scan_id}/{verb}")


def stored_deals(database):
    rows = database.execute(
        "SELECT scan_id, count(*) FROM hubspot_deals_extraction.deals GROUP BY 1"
    )
    return dict(rows.fetchall())


def test_every_state_shows_as_its_status(client, put):
    assert {status: status_of(client, put(status))["status"] for status in FACTS} == {
        status: status for status in FACTS
    }


@pytest.mark.parametrize("verb", ALLOWED)
def test_a_scan_does_what_its_status_allows_and_refuses_the_rest(client, put, verb):
    code, allowed = ALLOWED[verb]

    answers = {status: tell(client, verb, put(status)) for status in FACTS}

    assert {status: answer.status_code for status, answer in answers.items()} == {
        status: code if status in allowed else 400 for status in FACTS
    }
    for status in set(FACTS) - allowed:
        body = answers[status].json()
        assert (body["success"], body["error_code"]) == (False, "SCAN_STATE")
        assert body["message"] == body["error"]
        assert f"its status is {status}. It can be" in body["message"]
        assert status_of(client, f"is-{status}")["status"] == status


@pytest.mark.parametrize(
    ("verb", "status", "message", "data"),
    [
        ("cancel", "pending", "Scan cancelled successfully", {"status": "cancelled"}),
        ("pause", "running", "Scan paused successfully", {"status": "paused"}),
        ("remove", "completed", "Scan removed successfully", {"recordsDeleted": 5}),
    ],
)
def test_a_change_is_confirmed_with_the_documented_body(client, put, verb, status, message, data):
    scan_id = put(status)

    answer = tell(client, verb, scan_id)

    assert answer.json() == {
        "success": True,
        "message": message,
        "data": {"scanId": scan_id, **data},
    }


@pytest.mark.parametrize("verb", ALLOWED)
@pytest.mark.parametrize("scan_id", ["nobody", "nul%00byte", "newline%0A", "%F0%9F%98%80"])
def test_an_unknown_scan_cannot_be_told_anything(client, verb, scan_id):
    answer = tell(client, verb, scan_id)

    assert answer.status_code == 404
    assert answer.json()["error_code"] == "SCAN_NOT_FOUND"


def test_only_one_of_many_equal_wishes_is_granted(client, put):
    for verb, status in {"cancel": "pending", "pause": "running", "remove": "failed"}.items():
        scan_id = put(status, f"contested-{verb}")
        with ThreadPoolExecutor(8) as callers:
            answers = callers.map(lambda _, told=(client, verb, scan_id): tell(*told), range(8))
            codes = sorted(answer.status_code for answer in answers)
        assert codes == [200] + [404 if verb == "remove" else 400] * 7, verb


def test_a_scan_that_many_pause_resume_and_cancel_at_once_ends_cancelled(client, put):
    scan_id = put("pending")
    verbs = ["pause", "resume", "pause", "resume", "cancel", "pause", "resume"] * 3

    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda verb: (verb, tell(client, verb, scan_id)), verbs))

    granted = [verb for verb, answer in answers if answer.status_code < 300]
    assert {answer.status_code for _, answer in answers} <= {200, 202, 400}
    assert granted.count("cancel") == 1
    assert granted.count("pause") - granted.count("resume") in {0, 1}
    assert status_of(client, scan_id)["status"] == "cancelled"


def run_id_of(database):
    return database.execute("SELECT run_id FROM hubspot_deals.scans").fetchone()[0]


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_the_run_of_a_scan_that_stops_is_terminated(client, gateway, database, verb):
    start(client)
    wait_for(lambda: run_id_of(database))

    assert tell(client, verb, "scan-1").status_code == 200

    wait_for(lambda: gateway.run_statuses == {gateway.runs[0].run_id: "CANCELED"})


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_a_scan_stops_even_while_dagster_is_down(client, gateway, database, verb):
    start(client)
    wait_for(lambda: run_id_of(database))
    gateway.is_down = True

    assert tell(client, verb, "scan-1").status_code == 200
    assert status_of(client)["status"] in {"cancelled", "paused"}


def test_a_resumed_scan_is_launched_under_its_new_epoch(client, gateway, database):
    start(client)
    wait_for(lambda: run_id_of(database))
    tell(client, "pause", "scan-1")

    answer = tell(client, "resume", "scan-1")

    assert answer.status_code == 202
    assert answer.json()["data"] == {"scanId": "scan-1", "status": "resuming"}
    assert "background" in answer.json()["message"]
    wait_for(lambda: len(gateway.runs) == 2 and run_id_of(database) == gateway.runs[1].run_id)
    assert [run.epoch for run in gateway.runs] == [0, 2]
    shown = status_of(client)
    assert (shown["status"], shown["metadata"]["runStatus"]) == ("resuming", "QUEUED")


def test_a_resumed_scan_that_dagster_cannot_launch_is_left_to_the_sensor(
    client, gateway, database, put
):
    gateway.is_down = True

    assert tell(client, "resume", put("crashed")).status_code == 202

    claim = "SELECT launch_claimed_until FROM hubspot_deals.scans"
    wait_for(lambda: database.execute(claim).fetchone()[0] is None)
    assert status_of(client, "is-crashed")["status"] == "resuming"


class BlockedGateway(InMemoryDagsterGateway):
    """Finishes no first launch before the test opens it."""

    def __init__(self):
        super().__init__()
        self.opened = threading.Event()

    async def launch_run(self, scan_id, organization_id, **options):
        if options["epoch"] == 0:
            await asyncio.to_thread(self.opened.wait, 10)
        return await super().launch_run(scan_id, organization_id, **options)


def test_a_launch_that_is_overtaken_by_a_pause_does_not_become_the_scans_run(
    database_url, database
):
    settings = ApiSettings(database_url=SecretStr(database_url), encryption_keys=TEST_KEYS)
    gateway = BlockedGateway()
    with serve(create_app(settings, gateway=gateway)) as client:
        start(client)
        tell(client, "pause", "scan-1")
        gateway.opened.set()
        wait_for(lambda: len(gateway.runs) == 1)
        assert tell(client, "resume", "scan-1").status_code == 202
        wait_for(lambda: len(gateway.runs) == 2)
        wait_for(lambda: run_id_of(database) is not None)

    assert run_id_of(database) == gateway.runs[1].run_id


def test_a_removed_scan_is_gone_with_its_rows_and_its_id_is_free(client, database, put):
    put("completed", "kept")
    scan_id = put("completed", "gone")

    assert tell(client, "remove", scan_id).status_code == 200

    assert stored_deals(database) == {"kept": 5}
    assert_hidden(client, scan_id)
    assert start(client, scan_id).status_code == 202


def test_a_scan_whose_removal_takes_long_is_hidden_and_its_id_taken(client, database, put):
    put("completed", "kept")
    scan_id = put("completed", "gone")
    database.execute(
        "UPDATE hubspot_deals.scans SET removal = 'scan', results_removed_at = now()"
        " WHERE scan_id = 'gone'"
    )

    assert_hidden(client, scan_id)
    assert start(client, scan_id).status_code == 409
    assert {tell(client, verb, scan_id).status_code for verb in ALLOWED} == {404}


def assert_hidden(client, scan_id):
    """Only the scan that was kept shows anywhere."""
    for path in (
        f"scan/{scan_id}/status",
        f"results/{scan_id}/tables",
        f"results/{scan_id}/result",
    ):
        assert client.get(f"/api/v1/{path}").status_code == 404, path
    page = client.get("/api/v1/scan/list").json()["data"]
    assert [scan["scanId"] for scan in page["scans"]] == ["kept"]
    assert page["pagination"]["total"] == 1
    counts = client.get("/api/v1/stats").json()["data"]
    assert (counts["total_jobs"], counts["total_records_extracted"]) == (1, 5)


def remove(database_url, scan_id, *, wait_seconds):
    """Mark a scan and remove it as the service does; returns how long that was waited for."""

    async def remove():
        background = Background()
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as own:
            marked = await mark_scan_for_removal(own, scan_id)
        began = time.monotonic()
        remover = ScanRemover(SecretStr(database_url), background)
        await remover.remove([marked], wait_seconds=wait_seconds)
        seconds = time.monotonic() - began
        await background.close()
        return seconds

    return asyncio.run(remove())


def test_a_removal_that_takes_long_is_not_waited_for_and_goes_on(database_url, database, put):
    scan_id = put("completed")
    with psycopg.connect(database_url) as reader:
        reader.execute("LOCK TABLE hubspot_deals_extraction.deals")
        threading.Timer(1, reader.rollback).start()

        assert 0.2 <= remove(database_url, scan_id, wait_seconds=0.2) < 0.9

    assert stored_deals(database) == {}
    assert database.execute("SELECT count(*) FROM hubspot_deals.scans").fetchone() == (0,)


def test_a_removal_that_fails_is_left_to_the_sensor(database_url, database, put, caplog):
    scan_id = put("completed")
    database.execute("ALTER TABLE hubspot_deals_extraction.deals RENAME TO hidden")

    remove(database_url, scan_id, wait_seconds=10)

    assert "Removal left to the sensor" in caplog.text
    assert database.execute("SELECT removal FROM hubspot_deals.scans").fetchone() == ("scan",)
