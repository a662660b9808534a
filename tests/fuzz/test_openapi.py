"""Schemathesis sends what the OpenAPI document allows, and what it does not: `make fuzz`.

No answer may be a fault of the service or a 422, or differ from what the document says of it.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import HttpUrl, SecretStr

from api.dagster.testing import InMemoryDagsterGateway
from api.main import build_app, create_app
from api.settings import ApiSettings
from api.testing import serve
from tests.conftest import TEST_KEYS
from tests.fuzz.things import ORGANIZATION, add_kept
from tests.integration.access_cases import add_key

CHECKOUT = Path(__file__).parents[2]
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
# Its probes without a credential would be too many requests themselves.
LIMITED = "--exclude-checks=ignored_auth"
# Each of these starts a process that asks HubSpot.
SLOW = "/(scan/plan|auth/validate)$"
SCANS = "^/api/v1/(scan|results)/"
# It removes the results that others read, so it comes last.
WIPING = "/maintenance/cleanup$"
LEAST_REQUESTS = 20_000


@dataclass(frozen=True)
class Part:
    """One run of Schemathesis: about which operations, as whom, against which of the servers."""

    name: str
    caller: str
    options: tuple[str, ...]
    server: str = "unlimited"


# Processes side by side: threads of one meet a fault of Python 3.11's compiler.
PARTS = (
    Part("what asks HubSpot", "admin", (f"--include-path-regex={SLOW}", "-n10")),
    Part(
        "scans and results",
        "admin",
        (f"--include-path-regex={SCANS}", f"--exclude-path-regex={SLOW}", "-n170"),
    ),
    Part(
        "the rest of /api/v1",
        "admin",
        (
            "--include-path-regex=^/api/v1/",
            f"--exclude-path-regex={SCANS}|{SLOW}|{WIPING}",
            "-n170",
        ),
    ),
    Part("at the root", "admin", (f"--exclude-path-regex=^/api/v1/|{SLOW}", "-n170")),
    Part("made-up credentials", "nobody", ("-n5",)),
    Part("may only read", "reader", ("-n5", f"--exclude-path-regex={SLOW}")),
    Part("of another organization", "stranger", ("-n5", f"--exclude-path-regex={SLOW}")),
    Part("beyond its limits", "admin", ("-n5", f"--exclude-path-regex={SLOW}", LIMITED), "limited"),
    Part("cleaning up", "admin", (f"--include-path-regex={WIPING}", "-n170")),
)
AT_ONCE = 3


@pytest.fixture
def servers(database_url, database, sandbox, monkeypatch):
    """The API, once without rate limits and once with low ones, on a database with all there is."""
    # Plans are made by processes of their own.
    monkeypatch.setenv("HUBSPOT_DEALS_HUBSPOT_URL", sandbox.url)
    monkeypatch.setenv("FUZZ_DATABASE_URL", database_url)
    add_kept(database)
    settings = ApiSettings(
        database_url=SecretStr(database_url),
        encryption_keys=TEST_KEYS,
        hubspot_url=HttpUrl(sandbox.url),
        auth_mode="required",
        rate_limits="off",
        webhook_concurrency=0,
        log_format="json",
    )
    low = {f"rate_limit_{name}": "9/hour" for name in ("scans", "results", "maintenance", "health")}
    limited = settings.model_copy(update={"rate_limits": "on", **low})
    apps = {
        "unlimited": create_app(settings, gateway=InMemoryDagsterGateway()),
        "limited": create_app(limited, gateway=InMemoryDagsterGateway()),
    }
    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(serve(app)).base_url for name, app in apps.items()}
        logging.getLogger("api").setLevel(logging.WARNING)
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        yield urls


@pytest.fixture
def callers(database):
    """The header with which each of them says who it is."""
    keys = {
        "admin": add_key(database, organizations=None),
        "reader": add_key(database, organizations=[ORGANIZATION], level="read"),
        "stranger": add_key(database, organizations=["org-2"]),
    }
    given = "--generation-with-security-parameters=false"
    return {"nobody": ()} | {
        name: (f"--header=X-API-Key: {key}", given) for name, (key, _) in keys.items()
    }


def fuzz(url, seed, counts, *options):
    """Run Schemathesis to its end; return its output and whether it found nothing."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{url}/openapi.json",
            f"--checks={','.join(CHECKS)}",
            "--continue-on-failure",
            f"--seed={seed}",
            "--no-color",
            "--no-shrink",
            "--warnings=off",
            "--generation-database=none",
            "--suppress-health-check=all",
            "--request-timeout=60",
            *options,
        ],
        cwd=CHECKOUT,
        env=os.environ  # noqa: TID251 - to start a program with
        | {
            "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
            "PYTHONPATH": str(CHECKOUT),
            "FUZZ_COUNTS": str(counts),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr, done.returncode == 0


def add_up(files):
    """Return how often each operation gave each status, by method and path."""
    answers = defaultdict(Counter)
    for file in files:
        for method, path, status, count in json.loads(file.read_text()):
            answers[method, path][status] += count
    return answers


def share_of_successes(counted):
    return sum(n for status, n in counted.items() if status < 300) / max(counted.total(), 1)


def show(answers, operations, seed, seconds):
    for method, path in operations:
        counted = answers[method, path]
        codes = "  ".join(f"{status}: {n}" for status, n in sorted(counted.items()))
        share = share_of_successes(counted)
        print(f"{counted.total():6} {share:4.0%} 2xx  {method:6} {path}  {codes}")
    codes = sum(answers.values(), Counter())
    print(
        f"{codes.total()} requests, {len(operations)} operations, seed {seed}, {seconds:.0f} s:",
        dict(sorted(codes.items())),
    )


def test_every_answer_is_one_that_the_document_describes(servers, callers, request, tmp_path):
    seed = request.config.getoption("randomly_seed", 1)
    began = time.monotonic()

    def run(part):
        counts = tmp_path / f"{part.name.replace('/', '-')}.json"
        options = (*callers[part.caller], *part.options)
        output, is_clean = fuzz(servers[part.server], seed, counts, *options)
        took = time.monotonic() - began
        print(f"== {part.name}, {took:.0f} s: {'clean' if is_clean else output}", flush=True)
        return is_clean, counts

    with ThreadPoolExecutor(AT_ONCE) as side_by_side:
        ends = dict(zip(PARTS, side_by_side.map(run, PARTS), strict=True))

    paths = build_app().openapi()["paths"]
    operations = [(method.upper(), path) for path in paths for method in paths[path]]
    answers = add_up(counts for _, counts in ends.values())
    show(answers, operations, seed, time.monotonic() - began)
    assert all(is_clean for is_clean, _ in ends.values())
    codes = sum(answers.values(), Counter())
    assert 422 not in codes
    assert {401, 403, 404, 429} <= set(codes)
    assert codes.total() >= LEAST_REQUESTS
    allowed = add_up(
        counts
        for part, (_, counts) in ends.items()
        if part.caller == "admin" and part.server == "unlimited"
    )
    vain = {one for one in operations if not share_of_successes(allowed[one])}
    assert not vain, "operations that never did what they are for"
