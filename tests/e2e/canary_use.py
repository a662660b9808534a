"""Uses a running stack in good ways and bad ones, with a secret wherever one can be put."""

import itertools
import json
import subprocess
import time
from contextlib import suppress
from urllib.parse import quote

import httpx
import jwt
import psutil
import pytest

from tests.e2e.canaries import (
    JWT_SECRET,
    OF_CONNECTIONS,
    OTHER_SECRET,
    QUERY,
    REQUESTS,
    RING,
    TOKENS,
    USERINFO,
    VERB_FIRST,
)
from tests.e2e.canary import SECONDS
from tests.e2e.conftest import clean_environment, command_line


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
