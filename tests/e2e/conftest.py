"""One running stack for the whole session, started and ended the way a user does."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

READY_SECONDS = 120
STOP_SECONDS = 60
SANDBOX_DEALS = 1_500


@dataclass(frozen=True)
class RunningStack:
    """What `stack.json` says, and the process that was started."""

    process: subprocess.Popen[str]
    data_dir: Path
    output: Path
    urls: dict[str, str]

    @property
    def pids(self) -> dict[str, int]:
        """The process ids as of now: a part that ended is started again."""
        facts = json.loads((self.data_dir / "stack.json").read_text())
        pids: dict[str, int] = facts["pids"]
        return pids

    def explain(self) -> str:
        """Return everything that the stack has printed and logged, for a failing test."""
        logs = sorted((self.data_dir / "logs").glob("*.log"))
        return "\n".join(f"--- {log}\n{log.read_text()}" for log in (self.output, *logs))


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hubspot_deals.cli", *arguments]


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment of a user who has set nothing."""
    kept = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 - to start a program with
        if not name.startswith(("HUBSPOT_DEALS_", "DAGSTER_", "COV_"))
    }
    # The checkout, from wherever the command is started.
    return kept | {"PYTHONPATH": str(Path(__file__).parents[2])} | variables


@pytest.fixture(scope="session")
def run_to_end() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `hubspot-deals` with these arguments and variables, and returns how it ended."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_line(*arguments),
            env=clean_environment(**variables),
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own user may pass through when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="hubspot-deals-e2e-") as parent:
        Path(parent).chmod(0o755)
        yield Path(parent)


@pytest.fixture(scope="session")
def stack(open_folder: Path) -> Iterator[RunningStack]:
    # All tests of the session together are one caller, and ask more often than people do.
    limits = {"HUBSPOT_DEALS_RATE_LIMIT_RESULTS": "100000/hour"}
    with running_stack(open_folder, **limits) as running:
        yield running


@contextmanager
def running_stack(
    folder: Path,
    hubspot_url: str | None = None,
    database_url: str | None = None,
    **variables: str,
) -> Iterator[RunningStack]:
    """Start a stack on a folder the way a user does, and end it with Ctrl-C."""
    data_dir, output = folder / "data", folder / "up.log"
    options = ["--api-port", "0", "--dagster-port", "0", "--data-dir", str(data_dir)]
    if hubspot_url is None:
        options += ["--sandbox", "--sandbox-deals", str(SANDBOX_DEALS)]
    else:
        options += ["--hubspot-url", hubspot_url]
    if database_url is not None:
        options += ["--database-url", database_url]
    with output.open("w") as log:
        process = subprocess.Popen(
            command_line("up", *options),
            env=clean_environment(**variables),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        facts = wait_for_stack(process, data_dir, output)
        yield RunningStack(process, data_dir, output, facts["urls"])
    finally:
        stop(process, data_dir, output)


def wait_for_stack(process: subprocess.Popen[str], data_dir: Path, output: Path) -> dict[str, Any]:
    """Return `stack.json` when it appears; fail at once when the process ends."""
    stack_file = data_dir / "stack.json"
    deadline = time.monotonic() + READY_SECONDS
    while not stack_file.exists():
        if process.poll() is not None:
            pytest.fail(f"`up` ended with {process.returncode}:\n{output.read_text()}")
        if time.monotonic() > deadline:
            pytest.fail(f"`up` was not ready after {READY_SECONDS} s:\n{output.read_text()}")
        time.sleep(0.05)
    facts: dict[str, Any] = json.loads(stack_file.read_text())
    return facts


def stop(process: subprocess.Popen[str], data_dir: Path, output: Path) -> None:
    """End the stack as Ctrl-C does, and check that nothing of it is left."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(STOP_SECONDS) == 0, output.read_text()
    left = [child for child in family if child.is_running()]
    assert left == []
    assert not (data_dir / "stack.json").exists()
