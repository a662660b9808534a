"""Ending a run by hand on the real stack."""

import time

import httpx
import pytest

from hubspot_sandbox.testing import SandboxControl
from tests.e2e.test_main_job import body

SECONDS = 30
TERMINATE = "mutation ($run: String!) { terminateRun(runId: $run) { __typename } }"


@pytest.fixture
def api(stack):
    with httpx.Client(base_url=stack.urls["api"]) as client:
        yield client


@pytest.fixture
def stalled(stack, api):
    """Starts a scan whose reading stops at its third page, and returns its run's id."""
    control = SandboxControl(stack.urls["hubspot"])

    def start(scan_id):
        token = f"{scan_id}-token-0123456789"
        stall = {"type": "stall", "seconds": 25}
        control.add_fault(stall, match={"kind": "list", "query_contains": "after"}, times=None)
        assert api.post("/api/v1/scan/start", json=body(scan_id, token)).status_code == 202
        return wait_for(api, scan_id, "running")["metadata"]["runId"]

    yield start
    control.clear_faults()


def wait_for(api, scan_id, *statuses):
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        data = api.get(f"/api/v1/scan/{scan_id}/status").json()["data"]
        if data["status"] in statuses:
            return data
        time.sleep(0.1)
    pytest.fail(f"{scan_id} did not become {statuses}: {data}")


def test_a_run_that_is_terminated_in_dagster_cancels_its_scan(stack, api, stalled):
    run_id = stalled("terminated")
    answer = httpx.post(
        f"{stack.urls['dagster']}/graphql",
        json={"query": TERMINATE, "variables": {"run": run_id}},
        timeout=SECONDS,
    ).json()
    assert answer["data"]["terminateRun"]["__typename"] == "TerminateRunSuccess"
    # Not crashed on the way, which a caller would take for the end.
    seen = wait_for(api, "terminated", "cancelled", "crashed", "failed")
    assert seen["status"] == "cancelled"
