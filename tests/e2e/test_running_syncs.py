"""Connections kept current by a running stack: made, loaded, killed, wished for, backfilled."""

import time
from datetime import UTC, datetime, timedelta

import httpx
import psutil
import psycopg
import pytest

from hubspot_deals.launcher.folder import LauncherFolder
from hubspot_sandbox.testing import GOOD_TOKEN, SandboxControl

SECONDS = 240
_RUNS = """query($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}) { ... on Runs {
    results { runId status jobName tags { key value } } } } }"""
_BACKFILL = """mutation($params: LaunchBackfillParams!) {
    launchPartitionBackfill(backfillParams: $params) { __typename } }"""
TABLES = (
    "deals_current",
    "deal_changes",
    "owners",
    "pipelines",
    "pipeline_stages",
    "deal_stage_history",
    "deal_associations",
    "deal_tombstones",
)


@pytest.fixture(scope="module")
def api(stack):
    with httpx.Client(base_url=f"{stack.urls['api']}/api/v1", timeout=30) as client:
        yield client


@pytest.fixture
def ask(stack):
    """Asks Dagster over GraphQL."""

    def ask(query, **variables):
        answer = httpx.post(
            f"{stack.urls['dagster']}/graphql",
            json={"query": query, "variables": variables},
            timeout=30,
        ).json()
        assert "errors" not in answer, answer
        return answer["data"]

    return ask


@pytest.fixture
def sync_runs(stack):
    """Returns (kind, outcome, Dagster's run id) of a connection's runs."""

    def sync_runs(connection_id):
        with psycopg.connect(stack.urls["database"]) as database:
            return database.execute(
                "SELECT kind, outcome, run_id FROM hubspot_deals.sync_runs"
                " WHERE connection_id = %s ORDER BY run_no",
                (connection_id,),
            ).fetchall()

    return sync_runs


def wait_until(stack, condition):
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, stack.explain()[-20_000:]
        time.sleep(0.2)
    return found


def days_ago(days):
    return (datetime.now(UTC) - timedelta(days=days)).date().isoformat()


def connect(api, connection_id, organization_id):
    answer = api.post(
        "/connections",
        json={
            "connectionId": connection_id,
            "organizationId": organization_id,
            "auth": {"accessToken": GOOD_TOKEN},
            "settings": {"cadence": "daily", "startDate": days_ago(3)},
        },
    )
    assert answer.status_code == 201, answer.text


def test_a_new_connection_is_loaded_wished_for_and_backfilled(stack, api, ask, sync_runs):
    connect(api, "e2e", "org-syncs")
    # Nobody restarts anything: its code location is loaded anew, and a sensor finds it due.
    wait_until(
        stack, lambda: [run[:2] for run in sync_runs("e2e")] == [("first_load", "completed")]
    )

    assert api.post("/connections/e2e/sync").status_code == 202
    wait_until(stack, lambda: ("changes", "completed") in [run[:2] for run in sync_runs("e2e")])

    # As Dagster's UI does it: no tag of ours, all tables in one run.
    params = {
        "assetSelection": [{"path": ["e2e", name]} for name in TABLES],
        "partitionNames": [days_ago(3), days_ago(2)],
    }
    done = ask(_BACKFILL, params=params)
    assert done["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess"
    wait_until(stack, lambda: sync_runs("e2e")[-1][:2] == ("backfill", "completed"))
    assert len(sync_runs("e2e")) == 3


def test_a_sync_whose_worker_is_killed_is_launched_again(stack, api, ask, sync_runs):
    control = SandboxControl(stack.urls["hubspot"])
    control.add_fault(
        {"type": "stall", "seconds": 30}, match={"kind": "list", "query_contains": "after"}
    )
    try:
        connect(api, "killed", "org-killed")
        ((_, _, run_id),) = wait_until(stack, lambda: sync_runs("killed"))
        folder = LauncherFolder.below(stack.data_dir / "dagster_home")
        psutil.Process(wait_until(stack, lambda: folder.find_worker(run_id))).kill()
    finally:
        control.clear_faults()
    wait_until(
        stack,
        lambda: (
            [run[:2] for run in sync_runs("killed")]
            == [("first_load", "crashed"), ("first_load", "completed")]
        ),
    )
    assert sync_runs("killed")[1][2] != run_id
