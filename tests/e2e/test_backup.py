"""A backup taken while a scan runs, restored into a new PostgreSQL: the scan goes on from there."""

import subprocess
import time
from contextlib import closing
from pathlib import Path

import httpx
import psycopg
import pytest

from hubspot_deals.local.server_files import ServerAccount, programs_folder
from hubspot_deals.local.throwaway import throwaway_postgres
from hubspot_sandbox.testing import SandboxProcess
from tests.conftest import FAST
from tests.e2e.conftest import RunningStack, running_stack
from tests.faults.truth import assert_equal, true_deals

DEALS = 6_000
TUNING = {"HUBSPOT_DEALS_CHUNK_ROWS": "200", "HUBSPOT_DEALS_SEARCHES_PER_SECOND": "1000"}
SECONDS = 120
CHUNKS = (
    "SELECT load_id FROM hubspot_deals.scan_chunks JOIN hubspot_deals.scans USING (scan_id)"
    " WHERE scan_id = %s ORDER BY 1"
)
ROWS = "SELECT row_no, id, properties FROM hubspot_deals.deals WHERE scan_id = %s ORDER BY row_no"


def rows(url, statement, *values):
    with closing(psycopg.connect(url)) as connection:
        return connection.execute(statement, values).fetchall()


def start(stack, scan_id):
    config = {
        "scanId": scan_id,
        "organizationId": "org-1",
        "type": ["user"],
        "auth": {"accessToken": "token-of-the-backup-test-0123456789"},
    }
    answer = httpx.post(
        f"{stack.urls['api']}/api/v1/scan/start", json={"config": config}, trust_env=False
    )
    assert answer.status_code == 202, answer.text


def status(stack, scan_id):
    url = f"{stack.urls['api']}/api/v1/scan/{scan_id}/status"
    return httpx.get(url, trust_env=False).json()["data"]


def wait(stack: RunningStack, condition):
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, stack.explain()
        time.sleep(0.1)
    return found


def wait_completed(stack, scan_id):
    def ended():
        data = status(stack, scan_id)
        assert data["status"] not in {"failed", "crashed", "cancelled"}, data
        return data if data["status"] == "completed" else None

    return wait(stack, ended)


def run(program, *arguments):
    """Run one of PostgreSQL's programs as docs/backup.md does."""
    programs = programs_folder(ServerAccount.of_this_process())
    result = subprocess.run(
        [programs / program, *arguments], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.fixture(scope="module")
def account():
    with SandboxProcess(deals=DEALS, latency_ms="40-60", **FAST) as account:
        yield account


def test_a_scan_goes_on_from_a_backup_and_nothing_is_lost(account, open_folder: Path):
    before, after = open_folder / "before", open_folder / "after"
    before.mkdir()
    after.mkdir()
    dump = open_folder / "backup.dump"
    with running_stack(before, account.url, **TUNING) as stack:
        start(stack, "ended-before")
        wait_completed(stack, "ended-before")
        served = rows(stack.urls["database"], ROWS, "ended-before")
        start(stack, "under-way")
        wait(stack, lambda: len(rows(stack.urls["database"], CHUNKS, "under-way")) >= 6)
        run("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={stack.urls['database']}")
        old_run = status(stack, "under-way")["metadata"]["runId"]
        keys = (stack.data_dir / "encryption-keys").read_text().strip()

    with throwaway_postgres() as server:
        run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={server.url}", str(dump))
        saved = rows(server.url, CHUNKS, "under-way")
        assert len(saved) >= 6
        with running_stack(
            after, account.url, server.url, HUBSPOT_DEALS_ENCRYPTION_KEYS=keys, **TUNING
        ) as stack:
            assert wait_completed(stack, "under-way")["metadata"]["runId"] != old_run
            # Every chunk of the backup counts; only what came after it was read again.
            assert set(saved) < set(rows(server.url, CHUNKS, "under-way"))
            stored = rows(server.url, ROWS, "under-way")
            truth = true_deals(account, archived=False)
            assert len(stored) == len(truth) == DEALS
            assert_equal({deal_id: values for _, deal_id, values in stored}, truth)
            assert rows(server.url, ROWS, "ended-before") == served
            assert_new_scans_run(stack, old_run)


def assert_new_scans_run(stack, old_run):
    """Numbers go on where they were, and Dagster does not wait for the run that nobody works on."""
    start(stack, "started-after")
    wait_completed(stack, "started-after")
    numbers = rows(
        stack.urls["database"], "SELECT count(*), count(DISTINCT seq) FROM hubspot_deals.scans"
    )
    assert numbers == [(3, 3)]
    ended = "SELECT status FROM dagster.runs WHERE run_id = %s"
    wait(
        stack,
        lambda: rows(stack.urls["database"], ended, old_run) in ([("FAILURE",)], [("CANCELED",)]),
    )
