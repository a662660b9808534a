"""The main job through its front door: from one POST to paged rows, and what it leaves behind."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from hubspot_deals.local.server_files import psql_program
from hubspot_sandbox.testing import SandboxControl
from tests.e2e.conftest import RunningStack, running_stack

CANARY = "canary-token-7f3a9c51e2"
REFUSED_CANARY = "invalid-canary-token-7f3a9c51e2"
SCAN_SECONDS = 90
RUNS = """
{ runsOrError { ... on Runs { results {
    runId status runConfigYaml tags { key value } assets { key { path } }
} } } }
"""
EVENTS = """
query ($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
    ... on MessageEvent { message }
    ... on ExecutionStepFailureEvent { error { message stack causes { message stack } } }
    ... on RunFailureEvent { error { message stack causes { message stack } } }
    ... on MaterializationEvent { metadataEntries { label ... on MarkdownMetadataEntry { mdStr } } }
} } } }
"""


def body(scan_id, token=CANARY, **filters):
    return {
        "config": {
            "scanId": scan_id,
            "organizationId": "org-e2e",
            "type": ["user"],
            "auth": {"accessToken": token},
            "filters": filters,
        }
    }


def wait_until_ended(api, scan_id):
    deadline = time.monotonic() + SCAN_SECONDS
    while time.monotonic() < deadline:
        data = api.get(f"/api/v1/scan/{scan_id}/status").json()["data"]
        if data["status"] not in {"pending", "running"}:
            return data
        time.sleep(0.2)
    pytest.fail(f"{scan_id} has not ended: {data}")


def all_rows(api, scan_id, table, limit=500):
    rows, offset = [], 0
    while True:
        page = api.get(
            f"/api/v1/results/{scan_id}/result",
            params={"tableName": table, "limit": limit, "offset": offset},
        ).json()["data"]
        rows += page["records"]
        if not page["pagination"]["hasMore"]:
            assert len(rows) == page["pagination"]["total"]
            return rows
        offset += limit


@pytest.fixture(scope="module")
def kept():
    """A stack that ran a good, an archived and a refused scan, ended, and was started again."""
    with tempfile.TemporaryDirectory(prefix="hubspot-deals-e2e-") as parent:
        folder = Path(parent)
        folder.chmod(0o755)
        with running_stack(folder) as first, httpx.Client(base_url=first.urls["api"]) as api:
            answers = [
                api.post(
                    "/api/v1/scan/start", json=body("good", properties=["dealname", "amount"])
                ),
                api.post("/api/v1/scan/start", json=body("archived", includeArchived=True)),
                api.post("/api/v1/scan/start", json=body("refused", REFUSED_CANARY)),
                api.post("/api/v1/scan/start", json=body("good")),
                api.post("/api/v1/scan/start", json=body("bad id!", limit=CANARY)),
                api.post("/api/v1/scan/start", content=f'{{"token": "{CANARY}"'),
            ]
            ended = {name: wait_until_ended(api, name) for name in ("good", "archived", "refused")}
            rows = {name: all_rows(api, name, "deals") for name in ("good", "archived")}
            truth = {deal["id"]: deal for deal in SandboxControl(first.urls["hubspot"]).deals()}
        with running_stack(folder) as again:
            yield Kept(again, answers, ended, rows, truth)


class Kept:
    def __init__(self, stack, answers, ended, rows, truth):
        self.stack: RunningStack = stack
        self.answers = answers
        self.ended = ended
        self.rows = rows
        self.truth = truth

    def graphql(self, query, **variables):
        answer = httpx.post(
            f"{self.stack.urls['dagster']}/graphql",
            json={"query": query, "variables": variables},
            timeout=30,
        ).json()
        assert "errors" not in answer, answer
        return answer["data"]


def test_starts_are_answered_as_documented(kept):
    assert [answer.status_code for answer in kept.answers] == [202, 202, 202, 409, 400, 400]


def test_paged_rows_are_exactly_the_deals_of_the_account(kept):
    live = {deal_id for deal_id, deal in kept.truth.items() if not deal["archived"]}
    assert {row["id"] for row in kept.rows["good"]} == live
    assert len(kept.rows["good"]) == len(live)
    for row in kept.rows["good"]:
        sent = kept.truth[row["id"]]["properties"]
        assert row == {"id": row["id"]} | {name: sent.get(name) for name in ("dealname", "amount")}


def test_archived_deals_are_told_apart(kept):
    assert {row["id"]: row["archived"] for row in kept.rows["archived"]} == {
        deal_id: deal["archived"] for deal_id, deal in kept.truth.items()
    }


def test_a_refused_token_fails_the_scan_within_seconds_and_says_why(kept):
    refused = kept.ended["refused"]
    assert refused["status"] == "failed"
    assert "rejected the access token" in refused["errorMessage"]
    assert refused["duration"] < 10


def test_a_restart_keeps_scans_and_results(kept):
    with httpx.Client(base_url=kept.stack.urls["api"]) as api:
        for name in ("good", "archived", "refused"):
            now = api.get(f"/api/v1/scan/{name}/status").json()["data"]
            assert now == kept.ended[name]
        assert all_rows(api, "good", "deals", limit=1000) == kept.rows["good"]


def test_dagster_shows_each_scan_as_a_partition_of_every_table(kept):
    answer = kept.graphql(
        "{ assetNodes { assetKey { path } dependencyKeys { path } partitionKeys } }"
    )
    nodes = {node["assetKey"]["path"][-1]: node for node in answer["assetNodes"]}
    for table in ("deals", "users", "pipelines", "pipeline_stages", "deal_properties"):
        assert set(nodes[table]["partitionKeys"]) >= {"good", "archived", "refused"}
        assert nodes[table]["dependencyKeys"] == [{"path": ["hubspot_account"]}]


def test_the_token_is_nowhere_in_clear(kept):
    """The canary is looked for in everything that the product writes or says."""
    runs = kept.graphql(RUNS)["runsOrError"]["results"]
    assert len(runs) == 3
    said = [answer.text for answer in kept.answers]
    said += [str(runs), *(str(kept.graphql(EVENTS, run=run["runId"])) for run in runs)]
    assert any("rejected the access token" in text for text in said), "the failure was not read"
    with httpx.Client(base_url=kept.stack.urls["api"]) as api:
        said += [api.get(f"/api/v1/scan/{name}/status").text for name in kept.ended]
        said += [api.get("/api/v1/scan/list").text]
    said.append(dump(kept.stack.urls["database"]))
    assert "COPY hubspot_deals.credentials" in said[-1]
    files = [file for file in kept.stack.data_dir.rglob("*") if is_readable_text(file)]
    assert {"api.log", "code_server.log"} <= {file.name for file in files}
    assert any("compute_logs" in str(file) for file in files), "no compute logs were found"
    said += [file.read_text(errors="replace") for file in files]
    assert [text[:200] for text in said if "canary-token" in text] == []


def dump(url):
    """All rows and definitions of the database, Dagster's included."""
    program = psql_program().with_name("pg_dump")
    return subprocess.run([program, url], capture_output=True, text=True, check=True).stdout


def is_readable_text(file):
    """Everything but PostgreSQL's own files, whose content the dump shows."""
    return file.is_file() and "postgres" not in file.parts and os.access(file, os.R_OK)
