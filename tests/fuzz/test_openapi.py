"""Schemathesis sends what the OpenAPI document allows, and what it does not: `make fuzz`.

No answer may be a fault of the service or a 422, or differ from what the document says of it.
"""

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import HttpUrl, SecretStr

from api.dagster.testing import InMemoryDagsterGateway
from api.main import create_app
from api.settings import ApiSettings
from api.testing import serve
from tests.conftest import TEST_KEYS
from tests.fuzz.scans import OF_EACH
from tests.integration.test_api_control import FACTS, put_scan

CHECKOUT = Path(__file__).parents[2]
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
# Each of these starts a process that asks HubSpot.
SLOW = "/(scan/plan|auth/validate)$"
# One process for each mount, side by side: threads of one meet a fault of Python 3.11's compiler.
PARTS = (
    ("--include-path-regex=^/api/v1/", f"--exclude-path-regex={SLOW}", "--max-examples=650"),
    (f"--exclude-path-regex=^/api/v1/|{SLOW}", "--max-examples=650"),
    (f"--include-path-regex={SLOW}", "--max-examples=10", "--max-time=90"),
)
LEAST_REQUESTS = 20_000


@pytest.fixture
def client(database_url, database, sandbox, monkeypatch):
    """The API on a database with scans in every state."""
    # Plans are made by processes of their own.
    monkeypatch.setenv("HUBSPOT_DEALS_HUBSPOT_URL", sandbox.url)
    for status in FACTS:
        for number in range(OF_EACH):
            put_scan(database, status, f"{status}-{number}")
    settings = ApiSettings(
        database_url=SecretStr(database_url),
        encryption_keys=TEST_KEYS,
        hubspot_url=HttpUrl(sandbox.url),
        rate_limits="off",
        log_format="json",
    )
    with serve(create_app(settings, gateway=InMemoryDagsterGateway())) as client:
        logging.getLogger("api").setLevel(logging.WARNING)
        yield client


def fuzz(client, seed, *options):
    """Run Schemathesis to its end; return its output and whether it found nothing."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{client.base_url}/openapi.json",
            f"--checks={','.join(CHECKS)}",
            "--continue-on-failure",
            f"--seed={seed}",
            "--no-color",
            "--no-shrink",
            "--generation-database=none",
            "--suppress-health-check=all",
            "--request-timeout=60",
            *options,
        ],
        cwd=CHECKOUT,
        env=os.environ  # noqa: TID251 - to start a program with
        | {"SCHEMATHESIS_HOOKS": "tests.fuzz.hooks", "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr, done.returncode == 0


def test_every_answer_is_one_that_the_document_describes(client, request):
    seed = request.config.getoption("randomly_seed", 1)
    with ThreadPoolExecutor(len(PARTS)) as side_by_side:
        ends = list(side_by_side.map(lambda options: fuzz(client, seed, *options), PARTS))

    print(*(output for output, _ in ends), sep="\n")
    assert all(is_clean for _, is_clean in ends)
    assert client.get("/stats").json()["total_requests"] >= LEAST_REQUESTS
