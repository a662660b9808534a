"""Processes that are killed in the middle of a scan, on the real stack: it goes on by itself."""

import time
from contextlib import suppress

import httpx
import psutil
import pytest

from hubspot_sandbox.testing import SandboxControl
from tests.e2e.conftest import SANDBOX_DEALS
from tests.e2e.test_main_job import body

SECONDS = 60
STALL_SECONDS = 6


@pytest.fixture
def api(stack):
    with httpx.Client(base_url=stack.urls["api"], timeout=SECONDS) as client:
        yield client


@pytest.fixture
def control(stack):
    control = SandboxControl(stack.urls["hubspot"])
    yield control
    control.clear_faults()


def start_and_stall(api, control, scan_id):
    """Start a scan, and return its run's id when it waits for its second page of deals."""
    stall = {"type": "stall", "seconds": STALL_SECONDS}
    control.add_fault(stall, match={"kind": "list", "query_contains": "after"})
    token = f"{scan_id}-token-0123456789"
    assert api.post("/api/v1/scan/start", json=body(scan_id, token)).status_code == 202
    run_id = wait_for(api, scan_id, "running")["metadata"]["runId"]
    deadline = time.monotonic() + SECONDS
    while not any(rule["struck"] for rule in control.faults()):
        assert time.monotonic() < deadline, "the scan never read a second page"
        time.sleep(0.05)
    return run_id


def wait_for(api, scan_id, *statuses):
    """Wait as a caller does, who asks again while the API is being started again."""
    deadline = time.monotonic() + SECONDS
    data = None
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            answer = api.get(f"/api/v1/scan/{scan_id}/status")
            data = answer.json().get("data") or data
            if data and data["status"] in statuses:
                return data
        time.sleep(0.1)
    pytest.fail(f"{scan_id} did not become {statuses}: {data}")


def check_exact(api, scan_id):
    answer = api.get(f"/api/v1/results/{scan_id}/result", params={"tableName": "deals"})
    assert answer.json()["data"]["pagination"]["total"] == SANDBOX_DEALS


def test_a_scan_whose_worker_is_killed_is_resumed_by_itself(stack, api, control):
    run_id = start_and_stall(api, control, "worker-killed")

    for process in psutil.Process(stack.pids["run_host"]).children(recursive=True):
        process.kill()

    assert wait_for(api, "worker-killed", "resuming", "crashed", "failed")["status"] == "resuming"
    ended = wait_for(api, "worker-killed", "completed", "crashed", "failed")
    assert ended["status"] == "completed"
    assert ended["metadata"]["runId"] != run_id
    check_exact(api, "worker-killed")


@pytest.mark.parametrize("name", ["run_host", "code_server", "sync_server", "daemon", "api"])
def test_a_scan_goes_on_while_a_killed_part_is_started_again(stack, api, control, name):
    scan_id = f"{name.replace('_', '-')}-killed"
    run_id = start_and_stall(api, control, scan_id)
    killed = stack.pids[name]

    psutil.Process(killed).kill()

    ended = wait_for(api, scan_id, "completed", "crashed", "failed")
    assert (ended["status"], ended["metadata"]["runId"]) == ("completed", run_id)
    assert stack.pids[name] != killed
    assert f"The {name} process was killed by signal 9: it is started again" in (
        stack.output.read_text()
    )
    check_exact(api, scan_id)
