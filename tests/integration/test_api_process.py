"""The REST facade as the process that it is: how it starts, ends, and what its log says."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from hubspot_deals.local.ports import free_ports
from tests.pace import within

CHECKOUT = Path(__file__).parents[2]
KEYS = "k1:" + base64.b64encode(bytes(32)).decode()
TOKEN = "canary-token-0123456789"


@pytest.fixture
def start_api(tmp_path):
    """Starts the process with these settings and returns it with its address and log file."""
    processes = []

    def start(**settings):
        (port,) = free_ports(1)
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "uvicorn",
                    "api.main:create_app",
                    "--factory",
                    "--http",
                    "api.edge.protocol:BoundedProtocol",
                    "--port",
                    str(port),
                ],
                cwd=CHECKOUT,
                env=environment(**settings),
                stdout=output,
                stderr=output,
            )
        processes.append(process)
        return process, f"http://127.0.0.1:{port}", log

    yield start
    for process in processes:
        process.kill()
        process.wait()


def environment(**settings):
    variables = os.environ.items()  # noqa: TID251 - to start a program with
    inherited = {name: text for name, text in variables if not name.startswith("HUBSPOT_DEALS_")}
    given = {"auth_mode": "open"} | settings
    return inherited | {f"HUBSPOT_DEALS_{name.upper()}": text for name, text in given.items()}


def wait_until_it_answers(process, url, log):
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/api/v1/health", trust_env=False)
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def wait_for_line(text, log):
    deadline = time.monotonic() + 20
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "HUBSPOT_DEALS_DATABASE_URL"),
        ({"database_url": "postgresql://"}, "HUBSPOT_DEALS_ENCRYPTION_KEYS"),
        ({"database_url": "postgresql://", "encryption_keys": TOKEN}, "ENCRYPTION_KEYS"),
        (
            {"database_url": "postgresql://", "encryption_keys": KEYS, "max_body_bytes": TOKEN},
            "HUBSPOT_DEALS_MAX_BODY_BYTES",
        ),
        (
            {"database_url": f"postgresql://host/name?{TOKEN}", "encryption_keys": KEYS},
            "HUBSPOT_DEALS_DATABASE_URL",
        ),
    ],
)
def test_a_setting_that_is_missing_or_wrong_is_named_and_not_shown(start_api, settings, named):
    process, _, log = start_api(**settings)

    assert process.wait(30) != 0
    assert named in log.read_text()
    assert TOKEN not in log.read_text()


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_the_log_has_a_line_for_each_request_and_never_a_token(start_api, database_url, log_format):
    process, url, log = start_api(
        database_url=database_url,
        encryption_keys=KEYS,
        log_format=log_format,
        dagster_url="http://127.0.0.1:1",
    )
    assert wait_until_it_answers(process, url, log).status_code == 200
    body = {
        "config": {
            "scanId": "scan-1",
            "organizationId": "org-1",
            "type": ["user"],
            "auth": {"accessToken": TOKEN},
        }
    }
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Request-ID": "the-request"}
    with httpx.Client(base_url=url, trust_env=False, headers=headers) as client:
        started = client.post("/api/v1/scan/start", json=body, params={"token": TOKEN})
        refused = client.post("/api/v1/scan/start", content=f'{{"t": "{TOKEN}"')
        client.get(f"/api/v1/scan/list?organizationId={TOKEN}%00")
        client.get("/api/v1/scan/line%0Abreak/status")
    wait_for_line("left to the sensor", log)
    process.send_signal(signal.SIGTERM)
    process.wait(20)

    assert (started.status_code, refused.status_code) == (202, 400)
    text = log.read_text()
    assert TOKEN not in text
    assert "the-request" in text
    assert "left to the sensor" in text
    if log_format == "json":
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        (line,) = [line for line in lines if line.get("status") == 202]
        assert line["path"] == "/api/v1/scan/start"
        assert line["request_id"] == "the-request"


def test_the_process_ends_quickly_when_it_is_told_to(start_api, database_url):
    process, url, log = start_api(database_url=database_url, encryption_keys=KEYS)
    wait_until_it_answers(process, url, log)

    began = time.monotonic()
    process.send_signal(signal.SIGTERM)

    process.wait(10)
    assert time.monotonic() - began < within(5)
    assert "Traceback" not in log.read_text()
