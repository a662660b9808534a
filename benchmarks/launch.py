"""What starting a scan costs: Dagster's stock launcher and ours, side by side in one run.

Run it as `python benchmarks/launch.py`. Both stacks are up at the same time and take turns, so that
whatever else the machine does meets both. It takes about five minutes on an idle machine.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from hubspot_sandbox.testing import SandboxControl

ROOT = Path(__file__).parents[1]
STOCK = ROOT / "benchmarks" / "stock_launcher.yaml"
READY_SECONDS, SCAN_SECONDS = 180, 900
POLL_SECONDS, SAMPLE_SECONDS = 0.05, 0.2
# A few dozen deals of the account's three years.
FEW = {"dateRange": {"startDate": "2024-03-01", "endDate": "2024-03-01"}}
OVER = {"completed", "failed", "crashed", "cancelled"}


@dataclass
class Bench:
    """One running stack."""

    name: str
    facts: dict[str, Any]
    client: httpx.Client
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))

    @property
    def control(self) -> SandboxControl:
        return SandboxControl(self.facts["urls"]["hubspot"])

    def start(self, **filters: object) -> str:
        scan_id = f"{self.name}-{next(self.numbers)}"
        config = {
            "scanId": scan_id,
            "organizationId": "bench",
            "type": ["user"],
            "auth": {"accessToken": f"{scan_id}-token-0123456789"},
            "filters": filters,
        }
        answer = self.client.post("/api/v1/scan/start", json={"config": config})
        answer.raise_for_status()
        return scan_id

    def wait(self, scan_ids: list[str]) -> None:
        """Return when all have completed."""
        deadline = time.monotonic() + SCAN_SECONDS
        waiting = list(scan_ids)
        while waiting:
            if time.monotonic() > deadline:
                raise TimeoutError(waiting)
            data = self.client.get(f"/api/v1/scan/{waiting[0]}/status").json()["data"]
            if data["status"] not in OVER:
                time.sleep(POLL_SECONDS)
            elif data["status"] == "completed":
                waiting.pop(0)
            else:
                raise RuntimeError(data)

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
def running_stack(name: str, folder: Path, deals: int, latency_ms: int) -> Iterator[Bench]:
    """Start a stack the way a user does, and end it with Ctrl-C."""
    options = ["--api-port", "0", "--dagster-port", "0", "--data-dir", str(folder / name)]
    options += ["--sandbox", "--sandbox-deals", str(deals), "--sandbox-latency-ms", str(latency_ms)]
    if name == "stock":
        options += ["--dagster-yaml", str(STOCK)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # noqa: TID251 - to start a program with
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


def measure_start(bench: Bench) -> tuple[float, float]:
    """Seconds from POST to the first HubSpot request, and to the end, of one scan."""
    bench.control.reset()
    began = time.time()
    scan_id = bench.start(**FEW)
    bench.wait([scan_id])
    ended = time.time()
    first = min(entry["at"] for entry in bench.control.requests()["last"])
    return first - began, ended - began


def measure_burst(bench: Bench, scans: int) -> float:
    """Runs a minute when so many scans are posted at once."""
    began = time.monotonic()
    bench.wait([bench.start(**FEW) for _ in range(scans)])
    return 60 * scans / (time.monotonic() - began)


@dataclass
class Usage:
    """What workers used while scans were running together."""

    unique: list[float] = field(default_factory=list)
    proportional: list[float] = field(default_factory=list)
    connections: dict[int, list[int]] = field(default_factory=dict)
    most_sessions: int = 0

    def sample(self, bench: Bench, port: int) -> None:
        for process in bench.workers():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
                memory = process.memory_full_info()
                to_postgres = [
                    connection
                    for connection in process.net_connections("tcp")
                    if connection.raddr and connection.raddr.port == port
                ]
                if to_postgres:
                    self.unique.append(memory.uss / 1e6)
                    self.proportional.append(memory.pss / 1e6)
                    self.connections.setdefault(process.pid, []).append(len(to_postgres))

    def report(self, name: str) -> str:
        counts = [count for counts in self.connections.values() for count in counts]
        return (
            f"{name}: {len(self.connections)} workers, unique memory median "
            f"{statistics.median(self.unique):.0f} MB, highest {max(self.unique):.0f} MB, "
            f"PSS median {statistics.median(self.proportional):.0f} MB; connections of a worker "
            f"mean {statistics.mean(counts):.1f}, median {statistics.median(counts):.0f}, "
            f"highest {max(counts)}; sessions of the whole stack at most {self.most_sessions}"
        )


def measure_usage(bench: Bench, scans: int) -> Usage:
    """Run full scans together and look at their workers."""
    import psycopg  # noqa: PLC0415 - only here

    usage, done = Usage(), threading.Event()
    port = urlsplit(bench.facts["urls"]["database"]).port or 5432

    def watch() -> None:
        query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        with psycopg.connect(bench.facts["urls"]["database"], autocommit=True) as connection:
            while not done.wait(SAMPLE_SECONDS):
                usage.sample(bench, port)
                (sessions,) = connection.execute(query).fetchone() or (0,)
                usage.most_sessions = max(usage.most_sessions, sessions)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        bench.wait([bench.start() for _ in range(scans)])
    finally:
        done.set()
        watcher.join()
    return usage


def report_starts(benches: list[Bench], rounds: int) -> None:
    """Let the stacks take turns."""
    seconds: dict[str, list[tuple[float, float]]] = {bench.name: [] for bench in benches}
    for number in range(rounds + 1):
        for bench in benches:
            measured = measure_start(bench)
            if number:  # the first one finds caches cold
                seconds[bench.name].append(measured)
    medians = {}
    for name, values in seconds.items():
        firsts, ends = ([value[place] for value in values] for place in (0, 1))
        medians[name] = statistics.median(firsts)
        click.echo(
            f"{name}: POST to first HubSpot request {medians[name]:.2f} s (median of {rounds}; "
            f"{min(firsts):.2f} to {max(firsts):.2f}), to the end {statistics.median(ends):.2f} s"
        )
    if len(medians) > 1:
        click.echo(f"first request, ours / stock: {medians['ours'] / medians['stock']:.2f}")


@click.command()
@click.option("--rounds", default=9, show_default=True, help="Single scans of each launcher.")
@click.option("--burst", default=30, show_default=True, help="Scans posted at once.")
@click.option("--together", default=8, show_default=True, help="Scans whose memory is measured.")
@click.option("--deals", default=20_000, show_default=True)
@click.option("--latency-ms", default=0, show_default=True)
@click.option("--only", type=click.Choice(["stock", "ours"]), help="Leave the other one out.")
def main(  # noqa: PLR0913, PLR0917 - one parameter per option
    rounds: int, burst: int, together: int, deals: int, latency_ms: int, only: str | None
) -> None:
    """Measure both launchers."""
    names = [only] if only else ["stock", "ours"]
    with ExitStack() as stack:
        # PostgreSQL's own user, under root, has to pass.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hubspot-deals-")))
        folder.chmod(0o711)
        benches = [
            stack.enter_context(running_stack(name, folder, deals, latency_ms)) for name in names
        ]
        report_starts(benches, rounds)
        rates = {bench.name: measure_burst(bench, burst) for bench in benches} if burst else {}
        for name, rate in rates.items():
            click.echo(f"{name}: burst of {burst} scans, {rate:.1f} runs a minute")
        if len(rates) > 1:
            click.echo(f"runs a minute, ours / stock: {rates['ours'] / rates['stock']:.1f}")
        for bench in benches if together else []:
            click.echo(measure_usage(bench, together).report(f"{bench.name}, {together} together"))


if __name__ == "__main__":
    main()
