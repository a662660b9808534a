"""Secrets that can be told from anything else are put wherever secrets go, and looked for after.

A whole stack is used, failed at and killed; then everything that it wrote is read: every row of the
database, every log, what Dagster tells, and every answer.
"""

import base64
import itertools
import json
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import jwt
import psutil
import psycopg
import pytest
from psycopg import sql

from hubspot_deals.redaction import HIDDEN
from tests.e2e.canary import SECONDS, echoing_hubspot, secret_fields, telling_receiver
from tests.e2e.conftest import clean_environment, command_line, running_stack
from tests.integration.test_tracing import collector, every_span, spans

TOKENS = {
    # HubSpot's own form, and one that nothing but its place gives away.
    "good": "pat-na1-CANARY0a-0000-4000-8000-000000000001",
    "plain": "CANARYplaintoken9e7d41",
    "refused": "pat-eu1-CANARY0b-refused-4000-8000-0000000002",
    "echoed": "CANARYechoed-token-77c1",
    "broken": "CANARYbroken-token-1d22",
}
OF_CONNECTIONS = {
    name: f"pat-na1-CANARY{number}c-{name}-4000-8000-00000000000{number}"
    for number, name in enumerate(("rest", "patched", "unfit", "cli", "environment"))
}
VERB_FIRST = "pat-eu1-CANARY1f-verb-first-4000-8000-0000000001"
JWT_SECRET = "CANARY-jwt-q7Zx93kLm2Rb8Tn5Vw1Yc6Hd4Gf0Js"
OTHER_SECRET = "CANARY-forger-a8Dk20cNs7Tb4Ye1Uw9Xh3Mj5Pv6"
RING = [
    base64.b64encode(f"CANARY-ring-{name}-0123456789abcdef"[:32].encode()).decode()
    for name in ("old", "new")
]
PROXY = "CANARYproxypass55e1"
COLLECTOR = "CANARYcollector-key-83d0"
USERINFO, QUERY = "CANARYuserinfo-90aa", "CANARYquery-of-hook-44b2"
REQUESTS = 200

PLANTED = {
    "AuthCreate.access_token": "each of TOKENS, of OF_CONNECTIONS, and VERB_FIRST",
    "ApiSettings.jwt_secret": "JWT_SECRET",
    "CommandLineSettings.access_token": "OF_CONNECTIONS['cli']",
    "CommandLineSettings.api_key": "the API key that the command line made",
    "ConnectionEnvironment.access_token": "OF_CONNECTIONS['environment']",
    "WebhookWithSecret.secret": "the secrets of creation and rotation",
    **{
        f"{model}.encryption_keys": "RING"
        for model in (
            "ApiSettings",
            "PipelineSettings",
            "PipelineSettingsResource",
            "RotationSettings",
        )
    },
    **{
        f"{model}.database_url": "the password of the stack's PostgreSQL"
        for model in (
            "ApiSettings",
            "CommandLineSettings",
            "MigrationSettings",
            "PipelineSettings",
            "PipelineSettingsResource",
            "RotationSettings",
            "StorageSettings",
        )
    },
    "StorageSettings.dagster_storage_url": "the same password",
}
"""Where a secret can be given, and which one is: a field that is new belongs here too."""

ENVIRONMENT = {
    "HUBSPOT_DEALS_LOG_FORMAT": "json",
    "HUBSPOT_DEALS_AUTH_MODE": "required",
    "HUBSPOT_DEALS_JWT_SECRET": JWT_SECRET,
    "HUBSPOT_DEALS_JWT_ISSUER": "https://issuer.example.com",
    "HUBSPOT_DEALS_JWT_AUDIENCE": "deals",
    "HUBSPOT_DEALS_RATE_LIMIT_SCANS": "1000/hour",
    "HUBSPOT_DEALS_RATE_LIMIT_RESULTS": "100000/hour",
    "HUBSPOT_DEALS_WEBHOOK_ALLOW_HTTP": "true",
    "HUBSPOT_DEALS_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "HUBSPOT_DEALS_ENCRYPTION_KEYS": f"k1:{RING[0]},k2:{RING[1]}",
    "HUBSPOT_DEALS_ACCESS_TOKEN": OF_CONNECTIONS["environment"],
    "HUBSPOT_DEALS_ORGANIZATION_ID": "org-environment",
    "HTTPS_PROXY": f"http://proxy-user:{PROXY}@127.0.0.1:9",
    "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={COLLECTOR}",
}


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


class Use:
    """Two hundred requests, most of which fail."""

    def __init__(self, api, stack, receiver):
        self.api, self.stack = api, stack
        self.receiver_url, self.receiver = receiver
        self.made, self.shown, self.lines = [], [], []
        self.answers = []
        self.started = []
        self.numbers, self.turns = itertools.count(), itertools.count()

    def everything(self):
        key = json.loads(
            self.run(
                "keys", "create", "--name=all", "--all-organizations", "--level=admin", "--json"
            )
        )["key"]
        self.made.append(key)
        self.api.headers["X-API-Key"] = key
        self.subscribe()
        self.connect(key)
        while len(self.answers) < REQUESTS // 2:
            for name, token in TOKENS.items():
                self.start(f"{name}-{next(self.numbers)}", token)
                self.misuse(token)
            self.lines += [" ".join(line) for line in command_lines()]
            if len(self.answers) > REQUESTS // 4 and "killed" not in self.__dict__:
                self.killed = True
                self.kill_everything()
        self.start_verb_first()
        self.call_with_tokens(key)
        self.sync_now()
        self.rotate()
        self.wait_for_ends()
        for scan_id in self.started:
            for path in ("scan/{}/status", "results/{}/result", "results/{}/tables", "health"):
                self.ask("GET", "/api/v1/" + path.format(scan_id))
        for path in ("/health", "/stats", "/metrics", "/api/v1/pipeline/info", "/openapi.json"):
            self.ask("GET", path)

    def run(self, *arguments, **variables):
        """Run a command to its good end, and return what it printed."""
        names = {"HUBSPOT_DEALS_DATA_DIR": str(self.stack.data_dir)}
        done = subprocess.run(
            command_line(*arguments),
            env=clean_environment(**(names | variables)),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if arguments[0] != "keys" or arguments[1] != "create":
            self.lines += [done.stdout, done.stderr]
        return done.stdout

    def subscribe(self):
        """Have webhooks sent to who tells their secret, under URLs that hold one."""
        url = f"{self.receiver_url}/hook?token={QUERY}"
        body = {"organizationId": "org-1", "url": url}
        with_user = url.replace("://", f"://user:{USERINFO}@")
        assert self.ask("POST", "/api/v1/webhooks", json=body | {"url": with_user}).is_client_error
        answer = self.api.post("/api/v1/webhooks", json=body)
        assert answer.status_code == 201, answer.text
        self.webhook = answer.json()["data"]["webhookId"]
        path = f"/api/v1/webhooks/{self.webhook}"
        rotated = self.api.post(f"{path}/rotate-secret", json={})
        for one in (answer, rotated):
            # Shown this once; the rest of these answers is looked at like all others.
            secret = one.json()["data"]["secret"]
            self.made += [secret, secret.removeprefix("whsec_")]
            self.receiver.told.append(secret)
            self.shown.append(one.text.replace(secret, ""))
        self.ask("POST", f"{path}/test")

    def connect(self, key):
        for name in ("rest", "unfit"):
            body = {
                "connectionId": name,
                "organizationId": f"org-{name}",
                "auth": {"accessToken": OF_CONNECTIONS[name]},
            }
            unfit = {"settings": {"cadence": "never"}} if name == "unfit" else {}
            self.ask("POST", "/api/v1/connections", json=body | unfit)
        change = {"auth": {"accessToken": OF_CONNECTIONS["patched"]}}
        answer = self.ask("PATCH", "/api/v1/connections/rest", json=change)
        assert answer.status_code == 200, answer.text
        self.run(
            *("connection", "create", "--connection-id=cli", "--organization=org-cli"),
            HUBSPOT_DEALS_ACCESS_TOKEN=OF_CONNECTIONS["cli"],
            HUBSPOT_DEALS_API_KEY=key,
        )

    def start_verb_first(self):
        auth = {"accessToken": VERB_FIRST, "tennantUrl": "https://app.hubspot.com"}
        config = {"scanId": "verb-first", "organizationId": "org-1", "type": ["user"]}
        body = {"config": config | {"auth": auth}}
        taken = [
            self.ask("POST", path, json=body).status_code
            for path in ("/scan/start", "/api/v1/scan/start")
        ]
        assert 202 in taken, taken

    def call_with_tokens(self, key):
        """Call with JWTs, good and forged, and with a key wherever none belongs."""
        claims = {
            "iss": "https://issuer.example.com",
            "aud": "deals",
            "sub": "somebody",
            "exp": int(time.time()) + 600,
            "organizations": "*",
            "level": "read",
        }
        good, forged = (jwt.encode(claims, one, "HS256") for one in (JWT_SECRET, OTHER_SECRET))
        self.made += [good, forged]
        secrets, path = (good, forged, key), "/api/v1/scan/list"
        own = self.api.headers.pop("X-API-Key")
        answered = [
            self.ask("GET", path, headers={"Authorization": f"Bearer {one}"}).status_code
            for one in secrets
        ]
        assert answered == [200, 401, 200]
        for one in secrets:
            for form in (f"Basic {one}", one, f"Bearer {one} {one}", f"Token token={one}"):
                self.ask("GET", path, headers={"Authorization": form})
            self.ask("GET", path, params={"api_key": one})
            self.ask("GET", path, headers={"Cookie": f"session={one}"})
            self.ask("GET", f"/api/v1/scan/{one}/status")
            self.api.headers["X-API-Key"] = own
            self.ask("GET", f"/api/v1/scan/{one}/status")
            self.ask("GET", path, params={"limit": one, "api_key": one})
            self.ask("POST", "/api/v1/scan/start", json={"config": one, one: one})
            self.ask("POST", "/api/v1/scan/start", content=(one * 20_000).encode())
            self.api.headers.pop("X-API-Key")
        self.api.headers["X-API-Key"] = own
        for _ in range(12):
            self.ask("POST", "/api/v1/maintenance/detect-crashed", params={"token": TOKENS["good"]})
        for _ in range(70):
            self.ask("GET", "/api/v1/stats", params={"token": TOKENS["good"]})

    def sync_now(self):
        headers = {"X-Request-ID": "asked-for-a-sync"}
        answer = self.ask("POST", "/api/v1/connections/rest/sync", headers=headers)
        assert answer.status_code == 202, answer.text
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            runs = self.api.get("/api/v1/connections/rest/runs").json()["data"]["runs"]
            if [one for one in runs if one["kind"] == "changes" and one["outcome"]]:
                break
            time.sleep(0.3)

    def rotate(self):
        """Seal everything anew while scans run; both keys are known to all."""
        told = self.run(
            *("keys", "rotate"), HUBSPOT_DEALS_ENCRYPTION_KEYS=f"k2:{RING[1]},k1:{RING[0]}"
        )
        assert "sealed anew with 'k2'" in told

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
                self.ask("POST", f"/api/v1/scan/{scan_id}/cancel", params={"token": token})

    def misuse(self, token):
        """Put a token where it has to be, where it must not be, and in pieces."""
        auth = {"Authorization": f"Bearer {token}"}
        config = {"scanId": "x", "organizationId": "o", "type": ["user"]}
        ask = self.ask
        if next(self.turns) % 9 == 0:  # each is a process of its own
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


def command_lines():
    """Return the command line of every process, as each user of the machine sees it."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            yield process.cmdline()


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
                    found[f"{schema}.{table}"] = what
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
