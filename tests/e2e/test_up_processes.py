"""How one child, its descendants and the guard end, with small programs in place of the stack."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hubspot_deals.local.processes import (
    Child,
    ChildEndedError,
    Command,
    NotReadyError,
    stop_together,
    wait_until_ready,
)
from hubspot_deals.local.stopping import StopRequestedError, StopSwitch

DEADLINE_SECONDS = 20
SLEEPER = "import time; print('started', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
PARENT = f"""
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}])
print("worker", worker.pid, "started", flush=True)
"""
CHILD_OF_SUPERVISOR = """
import sys
from pathlib import Path
from hubspot_deals.local.guard import Guard
from hubspot_deals.local.processes import Child, Command
folder = Path(sys.argv[1])
guard = Guard.start(folder / "stack.json", Path.cwd())
child = Child(Command("parent", [sys.executable, "-c", sys.argv[2]], {}, folder), folder / "p.log")
guard.note([child])
print(child.process.pid, guard.process.pid, flush=True)
sys.stdin.read()
guard.dismiss()
"""


def command(code: str, folder: Path, stop_seconds: float = 5.0) -> Command:
    return Command("trial", [sys.executable, "-c", code], {}, folder, stop_seconds=stop_seconds)


def started(code: str, folder: Path, stop_seconds: float = 5.0) -> Child:
    child = Child(command(code, folder, stop_seconds), folder / "trial.log")
    wait_until_ready({child: lambda: "started" in child.log_text()}, [], 20, lambda: None)
    return child


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_child_that_ends_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = Child(command("print('why'); raise SystemExit(3)", tmp_path), tmp_path / "trial.log")

    with pytest.raises(ChildEndedError, match=r"trial process ended with exit code 3(.|\n)*why"):
        wait_until_ready({child: lambda: False}, [child], DEADLINE_SECONDS, lambda: None)


def test_a_child_that_does_not_become_ready_is_reported(tmp_path: Path) -> None:
    child = started(SLEEPER, tmp_path)

    with pytest.raises(NotReadyError, match=str(child.log)):
        wait_until_ready({child: lambda: False}, [child], 0.1, lambda: None)
    stop_together([child])


def test_the_log_of_the_start_before_is_kept_beside(tmp_path: Path) -> None:
    for text in ("first", "second"):
        child = Child(command(f"print('{text}')", tmp_path), tmp_path / "trial.log")
        child.process.wait(DEADLINE_SECONDS)

    assert child.log_text() == "second\n"
    assert (tmp_path / "trial.previous.log").read_text() == "first\n"


def test_a_stubborn_child_is_killed_in_bounded_time(tmp_path: Path) -> None:
    child = started(STUBBORN, tmp_path, stop_seconds=0.2)

    stop_together([child])

    assert child.exit_code == -signal.SIGKILL


@pytest.mark.parametrize("afterwards", ["time.sleep(600)", ""], ids=["alive", "orphaned"])
def test_descendants_end_with_their_child(tmp_path: Path, afterwards: str) -> None:
    child = started(PARENT + afterwards, tmp_path)
    worker = psutil.Process(int(child.log_text().split()[1]))

    stop_together([child])

    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_a_killed_supervisor_takes_everything_with_it(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{}")
    arguments = [sys.executable, "-c", CHILD_OF_SUPERVISOR, str(tmp_path)]
    supervisor = subprocess.Popen(
        [*arguments, PARENT + "time.sleep(600)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with supervisor:
        assert supervisor.stdout is not None
        numbers = [int(word) for word in supervisor.stdout.readline().split()]
        log = tmp_path / "p.log"
        assert eventually(lambda: "started" in log.read_text())
        family = [psutil.Process(pid) for pid in (*numbers, int(log.read_text().split()[1]))]

        supervisor.kill()

    _, alive = psutil.wait_procs(family, timeout=DEADLINE_SECONDS)
    assert alive == []
    assert not (tmp_path / "stack.json").exists()


def test_a_stop_is_noted_and_raised_where_it_is_asked_for() -> None:
    with StopSwitch() as switch:
        switch.check()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopRequestedError):
            switch.check()
