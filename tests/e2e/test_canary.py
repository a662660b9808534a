"""Secrets that can be told from anything else are put wherever secrets go, and looked for after.

A whole stack is used, failed at and killed; then everything that it wrote is read: every row of the
database, every log, what Dagster tells, and every answer.
"""

import base64
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import psycopg
import pytest
from psycopg import sql

from hubspot_deals.redaction import HIDDEN
from tests.e2e.canaries import (
    COLLECTOR,
    ENVIRONMENT,
    JWT_SECRET,
    OF_CONNECTIONS,
    OTHER_SECRET,
    PLANTED,
    PROXY,
    QUERY,
    REQUESTS,
    RING,
    TOKENS,
    USERINFO,
    VERB_FIRST,
)
from tests.e2e.canary import SECONDS, echoing_hubspot, secret_fields, telling_receiver
from tests.e2e.canary_use import Use
from tests.e2e.conftest import running_stack
from tests.integration.test_tracing import collector, every_span, spans


@pytest.fixture(scope="module")
def used():
    """A stack after 200 requests, with failures and crashes; and what was done with it."""
    with (
        tempfile.TemporaryDirectory(prefix="hubspot-deals-canary-") as parent,
        echoing_hubspot() as hubspot,
        telling_receiver() as receiver,
        collector() as (traces_endpoint, traces),
    ):
        folder = Path(parent)
        folder.chmod(0o755)
        variables = ENVIRONMENT | {"HUBSPOT_DEALS_TRACES_ENDPOINT": traces_endpoint}
        with (
            running_stack(folder, hubspot, **variables) as stack,
            httpx.Client(base_url=stack.urls["api"], timeout=SECONDS) as api,
        ):
            use = Use(api, stack, receiver)
            use.everything()
            yield use, traces


@pytest.fixture(scope="module")
def secrets(used):
    """Each secret in the spellings in which it might have been written."""
    use, _ = used
    passwords = [
        file.read_text().strip().rpartition(":")[2]
        for file in use.stack.data_dir.glob("postgres*.pgpass")
    ]
    assert len(passwords) == 2
    plain = [
        *(*TOKENS.values(), *OF_CONNECTIONS.values(), *passwords, *use.made, *RING),
        *(VERB_FIRST, JWT_SECRET, OTHER_SECRET, PROXY, COLLECTOR, USERINFO),
    ]
    spelt = {spelling for secret in plain for spelling in spellings(secret)}
    keys = {base64.b64decode(key) for key in RING}
    return sorted(spelt | {key.hex() for key in keys} | {key.decode() for key in keys})


def spellings(secret):
    content = secret.encode()
    yield from (secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1])
    yield content.hex()
    # Wherever in a longer text it began: three ways to stand in base64, without the ends.
    for shift in range(3):
        yield base64.b64encode(b" " * shift + content).decode()[4 if shift else 0 : -4]


def test_every_secret_field_has_its_canary():
    assert secret_fields() == set(PLANTED)


def hits(text, secrets):
    return [secret for secret in secrets if secret in text]


def test_the_use_was_as_mixed_as_it_should_be(used):
    answers = used[0].answers
    statuses = {answer.status_code for answer in answers}
    assert len(answers) >= REQUESTS
    assert {200, 202, 400, 401, 404, 413, 429} <= statuses
    outcomes = {
        answer.json()["data"]["status"]
        for answer in answers
        if answer.url.path.endswith("/status") and answer.status_code == 200
    }
    assert {"completed", "failed", "cancelled"} <= outcomes


def test_hubspot_did_quote_tokens_where_its_texts_are_kept(used):
    answers = used[0].answers
    marks = (HIDDEN, "[access token]")
    assert [answer for answer in answers if any(mark in answer.text for mark in marks)]


def test_no_span_holds_a_secret(used, secrets):
    _, traces = used
    assert {"POST /scan/start", "scan run", "sync run"} <= set(spans(traces))
    assert [what for sent in traces if (what := hits(sent.decode("latin-1"), secrets))] == []


def test_the_lines_of_a_run_lead_back_to_its_request(used):
    stack = used[0].stack
    lines = []
    for log in (stack.data_dir / "logs").glob("*.log"):
        lines += [json.loads(line) for line in log.read_text().splitlines() if line[:2] == '{"']
    asked = {line["request_id"] for line in lines if line.get("path", "").endswith("/scan/start")}
    ended = [line for line in lines if line["message"] == "run ended"]
    of_scans = [line for line in ended if "scan_id" in line and line["scan_id"] != "verb-first"]
    assert len(of_scans) >= 5
    for line in of_scans:
        assert line["request_id"] == f"asked-for-{line['scan_id']}"
        assert line["request_id"] in asked
        assert line["run_id"]
        assert line["outcome"]
    sent = [
        line for line in lines if line["message"].startswith(f"webhook {used[0].webhook}: scan.")
    ]
    assert sent
    assert {line["request_id"] for line in sent} <= asked
    wished = [line for line in ended if line["request_id"] == "asked-for-a-sync"]
    assert [(line["connection_id"], line["outcome"]) for line in wished] == [("rest", "completed")]
    told = httpx.post(
        f"{stack.urls['dagster']}/graphql",
        json={"query": TAGS, "variables": {"run": wished[0]["run_id"]}},
        timeout=SECONDS,
    ).json()
    tags = {tag["key"]: tag["value"] for tag in told["data"]["runOrError"]["tags"]}
    assert tags["hubspot_deals/request_id"] == "asked-for-a-sync"
    assert tags["hubspot_deals/traceparent"]


def test_a_sync_is_part_of_the_trace_of_who_asked_for_it(used):
    _, traces = used
    found = spans(traces)
    asked = found["POST /connections/{connection_id}/sync"]
    wished = [one for one in every_span(traces) if one.name == "sync run"]
    assert asked.span_id in {one.parent_span_id for one in wished}


def test_no_command_line_or_output_holds_a_secret(used, secrets):
    use, _ = used
    assert len(use.lines) > 100
    assert use.shown
    assert [what for text in use.lines + use.shown if (what := hits(text, secrets))] == []


def test_no_answer_holds_a_secret(used, secrets):
    answers = used[0].answers
    found = {
        (str(answer.url.path), answer.status_code): hits(answer.text + str(answer.headers), secrets)
        for answer in answers
    }
    assert {place: what for place, what in found.items() if what} == {}


def test_no_row_of_the_database_holds_a_secret(used, secrets):
    stack = used[0].stack
    found, rows = {}, 0
    with psycopg.connect(stack.urls["database"]) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information_)'"
        ).fetchall()
        for schema, table in tables:
            query = sql.SQL("SELECT t::text FROM {}.{} t").format(
                *map(sql.Identifier, (schema, table))
            )
            for (row,) in connection.execute(query):
                rows += 1
                if what := hits(row, secrets):
                    found.setdefault(f"{schema}.{table}", set()).update(what)
    assert rows > 1_000
    assert {"scans", "event_logs", "runs", "credentials"} <= {table for _, table in tables}
    assert found == {}


def test_no_file_of_the_stack_holds_a_secret(used, secrets):
    """Logs, Dagster's folder with what runs printed, even PostgreSQL's own files."""
    stack = used[0].stack
    meant = set(stack.data_dir.glob("postgres*.pgpass"))
    found, files = {}, 0
    for file in [stack.output, *stack.data_dir.rglob("*")]:
        with suppress(FileNotFoundError):
            if file.is_file() and file not in meant:
                files += 1
                if what := hits(file.read_bytes().decode("latin-1"), secrets):
                    found[str(file.relative_to(stack.data_dir.parent))] = what
    assert files > 50
    assert found == {}


def test_no_log_holds_what_a_webhooks_address_holds(used):
    """An address is shown to whoever may read the webhook; no log line has it."""
    stack = used[0].stack
    assert used[0].receiver.paths
    logs = [stack.output, *(stack.data_dir / "logs").glob("*")]
    assert [log.name for log in logs if QUERY in log.read_text()] == []


RUNS = """
{ runsOrError(limit: 500) { ... on Runs { results {
    runId status runConfigYaml tags { key value }
    eventConnection(limit: 1000) { events {
      __typename
      ... on MessageEvent { message }
      ... on ExecutionStepFailureEvent {
        error { message stack causes { message stack } } failureMetadata { description } }
      ... on RunFailureEvent { error { message stack causes { message stack } } }
      ... on EngineEvent { error { message stack causes { message stack } } }
    } }
} } }
  workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
    ... on RepositoryLocation { repositories {
      allTopLevelResourceDetails { name configuredValues { key value } } } }
    ... on PythonError { message stack } } } } }
  instance { info daemonHealth { allDaemonStatuses {
    daemonType lastHeartbeatErrors { message stack } } } }
}
"""
TAGS = "query Tags($run: ID!) { runOrError(runId: $run) { ... on Run { tags { key value } } } }"
LOGS = """query Logs($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }"""
KEYS = """query Keys($run: ID!) { runOrError(runId: $run) { ... on Run { eventConnection { events {
    ... on LogsCapturedEvent { logKey fileKey stepKeys } } } } } }"""


def test_dagster_tells_no_secret(used, secrets):
    stack = used[0].stack

    def ask(query, **variables):
        answer = httpx.post(
            f"{stack.urls['dagster']}/graphql",
            json={"query": query, "variables": variables},
            timeout=SECONDS,
        ).json()
        assert "errors" not in answer, answer
        return answer["data"]

    told = ask(RUNS)
    runs = told["runsOrError"]["results"]
    assert len(runs) >= 5
    assert {"SUCCESS", "FAILURE"} <= {run["status"] for run in runs}
    texts = [json.dumps(told)]
    for run in runs:
        for event in ask(KEYS, run=run["runId"])["runOrError"]["eventConnection"]["events"]:
            if event.get("fileKey"):
                key = [run["runId"], "compute_logs", event["fileKey"]]
                texts.append(json.dumps(ask(LOGS, key=key)))
    assert len(texts) > 5
    assert {text[:200]: hits(text, secrets) for text in texts if hits(text, secrets)} == {}
