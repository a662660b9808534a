"""Running stacks for benchmarks, started the way a user does, and what their workers use."""

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg

from hubspot_sandbox.testing import SandboxControl, SandboxProcess

ROOT = Path(__file__).parents[1]
STOCK = ROOT / "benchmarks" / "stock_launcher.yaml"
READY_SECONDS, SCAN_SECONDS = 180, 900
POLL_SECONDS, BURST_POLL_SECONDS, SAMPLE_SECONDS = 0.05, 0.25, 1.0
# Scans of one account would wait for its searches, five a second, and not for a launcher.
# Out of reach, but reported, so that the governor does not fall back to the common tier's.
_NO_LIMITS = {"burst": 100_000_000, "search_per_second": 100_000}
OVER = {"completed", "failed", "crashed", "cancelled"}
_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"


@dataclass
class Bench:
    """One running stack."""

    name: str
    facts: dict[str, Any]
    client: httpx.Client
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))

    @property
    def control(self) -> SandboxControl:
        """Its HubSpot account."""
        return SandboxControl(self.facts["urls"]["hubspot"])

    def start(self, **filters: object) -> str:
        """Post one scan, of an organization and account of its own, and return its id."""
        scan_id = f"{self.name}-{next(self.numbers)}"
        config = {
            "scanId": scan_id,
            "organizationId": scan_id,
            "type": ["user"],
            "auth": {"accessToken": f"{scan_id}-token-0123456789"},
            "filters": filters,
        }
        answer = self.client.post("/api/v1/scan/start", json={"config": config})
        answer.raise_for_status()
        return scan_id

    def start_together(self, scans: int, **filters: object) -> list[str]:
        """Post so many scans at once."""
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(lambda _: self.start(**filters), range(scans)))

    def wait(self, scan_ids: list[str], poll_seconds: float = POLL_SECONDS) -> int:
        """Return when all have completed, with the number of deals that they stored."""
        deadline = time.monotonic() + SCAN_SECONDS
        waiting, deals = list(scan_ids), 0
        while waiting:
            if time.monotonic() > deadline:
                raise TimeoutError(waiting)
            data = self.client.get(f"/api/v1/scan/{waiting[0]}/status").json()["data"]
            if data["status"] not in OVER:
                time.sleep(poll_seconds)
            elif data["status"] == "completed":
                waiting.pop(0)
                deals += data["metadata"]["tables"]["deals"]
            else:
                raise RuntimeError(data)
        return deals

    def workers(self) -> list[psutil.Process]:
        """Processes that carry a run out: children of whoever starts runs."""
        found = []
        for part in ("run_host", "code_server"):
            with suppress(KeyError, psutil.NoSuchProcess):
                found += psutil.Process(self.facts["pids"][part]).children()
        return [process for process in found if not _is_helper(process)]


def _is_helper(process: psutil.Process) -> bool:
    """Python's own helper of processes that are spawned."""
    with suppress(psutil.NoSuchProcess):
        return "resource_tracker" in " ".join(process.cmdline())
    return True


@contextmanager
def running_stack(name: str, folder: Path, deals: int) -> Iterator[Bench]:
    """Start a stack the way a user does, with an account of its own, and end it with Ctrl-C."""
    with SandboxProcess(deals=deals, **_NO_LIMITS) as sandbox:
        yield from _running(name, folder, sandbox.url)


def _running(name: str, folder: Path, hubspot_url: str) -> Iterator[Bench]:
    options = ["--api-port", "0", "--dagster-port", "0", "--data-dir", str(folder / name)]
    options += ["--hubspot-url", hubspot_url]
    if name == "stock":
        options += ["--dagster-yaml", str(STOCK)]
    own = {"PYTHONPATH": str(ROOT), "HUBSPOT_DEALS_SEARCHES_PER_SECOND": "1000"}
    own["HUBSPOT_DEALS_RATE_LIMITS"] = "off"
    environment = os.environ | own  # noqa: TID251 - to start a program with
    command = [sys.executable, "-m", "hubspot_deals.cli", "up", *options]
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        file = folder / name / "stack.json"
        deadline = time.monotonic() + READY_SECONDS
        while not file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / f"{name}.log").read_text())
            time.sleep(POLL_SECONDS)
        facts = json.loads(file.read_text())
        with httpx.Client(base_url=facts["urls"]["api"], timeout=60, trust_env=False) as client:
            yield Bench(name, facts, client)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@dataclass
class Usage:
    """What workers used while scans were running together; memory in MB."""

    unique: list[float] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    together: int = 0
    sessions: int = 0

    @property
    def unique_median(self) -> float:
        """Of all samples of all workers."""
        return statistics.median(self.unique)

    def sample(self, bench: Bench, port: int) -> None:
        """Look at every worker once."""
        working = 0
        for process in bench.workers():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
                unique = process.memory_full_info().uss / 1e6
                used = sum(
                    bool(connection.raddr) and connection.raddr.port == port
                    for connection in process.net_connections("tcp")
                )
                # One that has not begun yet is as small as it will never be again.
                if used:
                    working += 1
                    self.unique.append(unique)
                    self.connections.append(used)
        self.together = max(self.together, working)


@contextmanager
def watched(bench: Bench) -> Iterator[Usage]:
    """Look at the workers again and again meanwhile, and at PostgreSQL's sessions."""
    usage, done = Usage(), threading.Event()
    url = bench.facts["urls"]["database"]

    def watch() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not done.wait(SAMPLE_SECONDS):
                usage.sample(bench, urlsplit(url).port or 5432)
                (sessions,) = connection.execute(_SESSIONS).fetchone() or (0,)
                # Without the one that asks.
                usage.sessions = max(usage.sessions, sessions - 1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield usage
    finally:
        done.set()
        watcher.join()
