"""Secrets that can be told from anything else are put wherever secrets go, and looked for after.

A whole stack is used, failed at and killed; then everything that it wrote is read: every row of the
database, every log, what Dagster tells, and every answer.
"""

import base64
import itertools
import json
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import psutil
import psycopg
import pytest
from psycopg import sql

from hubspot_deals.redaction import HIDDEN
from hubspot_sandbox.testing import SandboxProcess
from tests.conftest import FAST
from tests.e2e.conftest import running_stack
from tests.integration.test_tracing import collector, spans

TOKENS = {
    # HubSpot's own form, and one that nothing but its place gives away.
    "good": "pat-na1-CANARY0a-0000-4000-8000-000000000001",
    "plain": "CANARYplaintoken9e7d41",
    "refused": "pat-eu1-CANARY0b-refused-4000-8000-0000000002",
    "echoed": "CANARYechoed-token-77c1",
    "broken": "CANARYbroken-token-1d22",
}
REQUESTS = 200
SECONDS = 90


class EchoingHubSpot(BaseHTTPRequestHandler):
    """Stands before the sandbox, and is as careless with some tokens as a server can be."""

    protocol_version = "HTTP/1.1"
    sandbox = ""

    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        payload = self.rfile.read(length)
        sent = self.headers.get("Authorization", "")
        if "refused" in sent or "echoed" in sent:
            status = 401 if "refused" in sent else 400
            text = f"The token {sent} ({sent.partition(' ')[2]}) of {self.path} is not good"
            self.answer(status, json.dumps({"status": "error", "message": text}).encode())
        elif "broken" in sent and "/objects/deals" in self.path:
            self.answer(200, f"<html>{dict(self.headers)}</html>".encode())
        else:
            self.pass_on(payload)

    do_POST = do_GET  # noqa: N815 - as http.server calls it

    def pass_on(self, payload):
        address = urlsplit(self.sandbox)
        connection = HTTPConnection(address.hostname, address.port, timeout=SECONDS)
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        connection.request(self.command, self.path, payload, headers)
        answer = connection.getresponse()
        self.answer(answer.status, answer.read(), dict(answer.getheaders()))
        connection.close()

    def answer(self, status, content, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Keep quiet."""


@contextmanager
def echoing_hubspot():
    with SandboxProcess(deals=1_500, **FAST) as sandbox:
        kind = type("Chosen", (EchoingHubSpot,), {"sandbox": sandbox.url})
        with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()


@pytest.fixture(scope="module")
def used():
    """A stack after 200 requests, with failures and crashes; its answers and its folder."""
    with (
        tempfile.TemporaryDirectory(prefix="hubspot-deals-canary-") as parent,
        echoing_hubspot() as hubspot,
    ):
        folder = Path(parent)
        folder.chmod(0o755)
        with (
            collector() as (traces_endpoint, traces),
            running_stack(
                folder,
                hubspot,
                HUBSPOT_DEALS_TRACES_ENDPOINT=traces_endpoint,
                HUBSPOT_DEALS_LOG_FORMAT="json",
            ) as stack,
            httpx.Client(base_url=stack.urls["api"], timeout=SECONDS) as api,
        ):
            use = Use(api, stack)
            use.everything()
            yield stack, use.answers, traces


class Use:
    """Two hundred requests, most of which fail."""

    def __init__(self, api, stack):
        self.api, self.stack = api, stack
        self.answers = []
        self.started = []
        self.numbers, self.turns = itertools.count(), itertools.count()

    def everything(self):
        while len(self.answers) < REQUESTS:
            for name, token in TOKENS.items():
                self.start(f"{name}-{next(self.numbers)}", token)
                self.misuse(token)
            if len(self.answers) > REQUESTS // 2 and "killed" not in self.__dict__:
                self.killed = True
                self.kill_everything()
        self.wait_for_ends()
        for scan_id in self.started:
            for path in ("scan/{}/status", "results/{}/result", "results/{}/tables", "health"):
                self.ask("GET", "/api/v1/" + path.format(scan_id))
        for path in ("/health", "/stats", "/metrics", "/api/v1/pipeline/info", "/openapi.json"):
            self.ask("GET", path)

    def ask(self, method, path, **options):
        for _ in range(100):
            try:
                answer = self.api.request(method, path, **options)
            except httpx.TransportError:
                time.sleep(0.2)  # the API has just been killed
                continue
            self.answers.append(answer)
            return answer
        pytest.fail("the API stays away")

    def start(self, scan_id, token):
        auth = {"accessToken": token, "tenantUrl": "https://app.hubspot.com"}
        config = {"scanId": scan_id, "organizationId": "org-1", "type": ["user"], "auth": auth}
        headers = {"X-Request-ID": f"asked-for-{scan_id}"}
        answer = self.ask("POST", "/api/v1/scan/start", json={"config": config}, headers=headers)
        if answer.status_code == 202:
            self.started.append(scan_id)
            if len(self.started) % 4 == 2:
                auth = {"Authorization": f"Bearer {token}"}
                self.ask("POST", f"/api/v1/scan/{scan_id}/cancel", headers=auth)

    def misuse(self, token):
        """Put a token where it has to be, where it must not be, and in pieces."""
        auth = {"Authorization": f"Bearer {token}"}
        config = {"scanId": "x", "organizationId": "o", "type": ["user"]}
        ask = self.ask
        if next(self.turns) % 3 == 0:  # each is a process of its own
            ask(
                "POST",
                "/api/v1/scan/plan",
                json={"config": config | {"auth": {"accessToken": token}}},
            )
            ask("POST", "/api/v1/auth/validate", json={"auth": {"accessToken": token}})
        ask("POST", "/api/v1/scan/start", json={"config": config | {"accessToken": token}})
        ask(
            "POST",
            "/api/v1/scan/start",
            json={"config": config | {"auth": {"accessToken": [token]}}},
        )
        ask(
            "POST",
            "/api/v1/scan/start",
            json={"config": config | {"auth": {"accessToken": token[:9]}}},
        )
        ask("POST", "/api/v1/scan/start", content=f'{{"accessToken": "{token}"'.encode())
        ask("POST", "/api/v1/scan/start", content=f"accessToken={token}".encode())
        ask("GET", f"/api/v1/scan/list?access_token={quote(token)}", headers=auth)
        ask("GET", "/api/v1/scan/nothing/status", headers=auth | {"X-Api-Key": token})

    def kill_everything(self):
        """Kill the workers, and then each part; what holds a token holds it in its last words."""
        with suppress(psutil.NoSuchProcess):
            for worker in psutil.Process(self.stack.pids["run_host"]).children(recursive=True):
                worker.kill()
        for name in ("api", "run_host", "code_server"):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(self.stack.pids[name]).kill()

    def wait_for_ends(self):
        deadline = time.monotonic() + SECONDS
        for scan_id in self.started:
            while time.monotonic() < deadline:
                data = self.api.get(f"/api/v1/scan/{scan_id}/status").json()["data"]
                if data["status"] in {"completed", "failed", "cancelled", "crashed"}:
                    break
                time.sleep(0.2)


@pytest.fixture(scope="module")
def secrets(used):
    """Each secret in the spellings in which it might have been written."""
    stack, _, _ = used
    keys = (stack.data_dir / "encryption-keys").read_text().strip()
    password = urlsplit(stack.urls["database"]).password
    plain = [
        *TOKENS.values(),
        *([password] if password else []),
        *(entry.partition(":")[2] for entry in keys.split(",")),
    ]
    spelt = {
        spelling
        for secret in plain
        for spelling in (
            secret,
            quote(secret, safe=""),
            secret.encode().hex(),
            base64.b64encode(secret.encode()).decode().rstrip("=")[:-2],
        )
    }
    raw_keys = [base64.b64decode(entry.partition(":")[2]) for entry in keys.split(",")]
    return sorted(spelt | {key.hex() for key in raw_keys} | {"CANARY"})


def hits(text, secrets):
    return [secret for secret in secrets if secret in text]


def test_the_use_was_as_mixed_as_it_should_be(used):
    _, answers, _ = used
    statuses = {answer.status_code for answer in answers}
    assert len(answers) >= REQUESTS
    assert {200, 202, 400, 404} <= statuses
    outcomes = {
        answer.json()["data"]["status"]
        for answer in answers
        if answer.url.path.endswith("/status") and answer.status_code == 200
    }
    assert {"completed", "failed", "cancelled"} <= outcomes


def test_hubspot_did_quote_tokens_where_its_texts_are_kept(used):
    _, answers, _ = used
    marks = (HIDDEN, "[access token]")
    assert [answer for answer in answers if any(mark in answer.text for mark in marks)]


def test_no_span_holds_a_secret(used, secrets):
    _, _, traces = used
    assert {"POST /scan/start", "scan run"} <= set(spans(traces))
    assert [what for sent in traces if (what := hits(sent.decode("latin-1"), secrets))] == []


def test_the_lines_of_a_run_lead_back_to_its_request(used):
    stack, _, _ = used
    lines = []
    for log in (stack.data_dir / "logs").glob("*.log"):
        lines += [json.loads(line) for line in log.read_text().splitlines() if line[:2] == '{"']
    asked = {line["request_id"] for line in lines if line.get("path") == "/api/v1/scan/start"}
    ended = [line for line in lines if line["message"] == "run ended"]
    assert len(ended) >= 5
    for line in ended:
        assert line["request_id"] == f"asked-for-{line['scan_id']}"
        assert line["request_id"] in asked
        assert line["run_id"]
        assert line["outcome"]


def test_no_answer_holds_a_secret(used, secrets):
    _, answers, _ = used
    found = {
        (str(answer.url.path), answer.status_code): hits(answer.text + str(answer.headers), secrets)
        for answer in answers
    }
    assert {place: what for place, what in found.items() if what} == {}


def test_no_row_of_the_database_holds_a_secret(used, secrets):
    stack, _, _ = used
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
                    found[f"{schema}.{table}"] = what
    assert rows > 1_000
    assert {"scans", "event_logs", "runs", "credentials"} <= {table for _, table in tables}
    assert found == {}


def test_no_file_of_the_stack_holds_a_secret(used, secrets):
    """Logs, Dagster's folder with what runs printed, even PostgreSQL's own files."""
    stack, _, _ = used
    meant = {stack.data_dir / "encryption-keys", stack.data_dir / "stack.json"}
    found, files = {}, 0
    for file in [stack.output, *stack.data_dir.rglob("*")]:
        with suppress(FileNotFoundError):
            if file.is_file() and file not in meant:
                files += 1
                if what := hits(file.read_bytes().decode("latin-1"), secrets):
                    found[str(file.relative_to(stack.data_dir.parent))] = what
    assert files > 50
    assert found == {}


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
LOGS = """query Logs($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }"""
KEYS = """query Keys($run: ID!) { runOrError(runId: $run) { ... on Run { eventConnection { events {
    ... on LogsCapturedEvent { logKey fileKey stepKeys } } } } } }"""


def test_dagster_tells_no_secret(used, secrets):
    stack, _, _ = used

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
