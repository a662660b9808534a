"""What the supervisor does when a child ends, with small programs in place of the stack."""

import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest

from hubspot_deals.local.folder import DataFolder
from hubspot_deals.local.guard import Guard
from hubspot_deals.local.postgres import EmbeddedPostgres
from hubspot_deals.local.processes import ChildEndedError, Command
from hubspot_deals.local.restarts import MOST_ENDS, Restarts
from hubspot_deals.local.stack import Stack
from hubspot_deals.local.supervisor import Supervisor

DEADLINE_SECONDS = 20
SLEEPER = "import time; print('started', flush=True); time.sleep(600)"
PARENT = f"""
import subprocess, sys, time
run = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}])
print("run", run.pid, flush=True)
time.sleep(600)
"""


class Trial:
    """A stack without any of the real processes."""

    def __init__(self, path: Path) -> None:
        self.folder = DataFolder(path)
        self.folder.create()
        self.said: list[str] = []
        guard = Guard.start(self.folder.stack_file, Path.cwd())
        self.supervisor = Supervisor(
            self.folder,
            self.said.append,
            lambda: None,
            guard,
            restarts=Restarts(first_pause=0.01),
        )
        self.stack = Stack(self.folder, self.supervisor)

    def stop(self) -> None:
        if self.supervisor.guard.process.poll() is None:
            self.stack.stop()

    def spawn(self, name: str, code: str) -> psutil.Process:
        arguments = [sys.executable, "-c", code]
        child = self.supervisor.spawn(Command(name, arguments, {}, self.folder.path))
        self.stack.folder.publish(self.stack.facts())
        return psutil.Process(child.process.pid)

    def pid(self, name: str) -> int:
        return int(json.loads(self.folder.stack_file.read_text())["pids"][name])

    def watch_until_restarted(self, name: str, pid: int) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.pid(name) == pid:
            assert time.monotonic() < deadline
            self.stack.watch_once()

    def watch_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.stack.watch_once()

    def run_of(self, name: str) -> psutil.Process:
        """The process that a PARENT has started."""
        log = self.folder.logs / f"{name}.log"
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(words := log.read_text().split()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return psutil.Process(int(words[1]))


@pytest.fixture
def trial() -> Iterator[Trial]:
    with tempfile.TemporaryDirectory(prefix="hubspot-deals-") as parent:
        # PostgreSQL's own user, under root, has to pass.
        Path(parent).chmod(0o711)
        trial = Trial(Path(parent) / "data")
        yield trial
        trial.stop()


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_killed_process_is_started_again_and_named_in_one_line(trial: Trial) -> None:
    first = trial.spawn("api", SLEEPER)
    other = trial.spawn("daemon", SLEEPER)

    first.kill()
    trial.watch_until_restarted("api", first.pid)

    assert trial.said == ["The api process was killed by signal 9: it is started again."]
    assert trial.pid("daemon") == other.pid
    assert psutil.pid_exists(trial.pid("api"))


def test_a_killed_database_is_there_again_although_a_session_outlived_it(trial: Trial) -> None:
    postgres = EmbeddedPostgres.prepare(trial.folder)
    trial.supervisor.recoveries["postgres"] = (postgres.end_leftovers, postgres.is_ready)
    child = trial.supervisor.spawn(postgres.command())
    trial.supervisor.wait({"postgres": postgres.is_ready})
    trial.stack.folder.publish(trial.stack.facts())
    with closing(psycopg.connect(postgres.admin_url, autocommit=True)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        busy = psutil.Process(connection.info.backend_pid)
        # Too busy to notice that its server is gone.
        connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000)")

        child.process.kill()
        trial.watch_until_restarted("postgres", child.process.pid)

    assert is_gone(busy)
    with psycopg.connect(postgres.admin_url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_process_that_ends_again_and_again_ends_the_stack_with_its_log(trial: Trial) -> None:
    trial.spawn("api", "print('why'); raise SystemExit(3)")

    with pytest.raises(ChildEndedError, match=r"api process ended with exit code 3(.|\n)*why"):
        trial.watch_for(DEADLINE_SECONDS)

    assert len(trial.said) == MOST_ENDS - 1


def test_a_run_outlives_its_code_server_and_ends_with_the_stack(trial: Trial) -> None:
    server = trial.spawn("code_server", PARENT)
    run = trial.run_of("code_server")

    server.kill()
    trial.watch_until_restarted("code_server", server.pid)

    assert not is_gone(run)
    trial.stop()
    assert is_gone(run)


def test_a_run_that_outlived_its_code_server_ends_when_the_supervisor_is_killed(
    trial: Trial,
) -> None:
    server = trial.spawn("code_server", PARENT)
    run = trial.run_of("code_server")
    server.kill()
    trial.watch_until_restarted("code_server", server.pid)
    again = psutil.Process(trial.pid("code_server"))

    # Closes the pipe, which is all that the guard sees of its supervisor's death.
    trial.supervisor.guard.process.communicate(timeout=DEADLINE_SECONDS)

    assert is_gone(run)
    assert is_gone(again)
    trial.supervisor.children["code_server"].process.wait(DEADLINE_SECONDS)
    assert not trial.folder.stack_file.exists()


def test_a_killed_guard_is_replaced(trial: Trial) -> None:
    server = trial.spawn("api", SLEEPER)
    first = trial.supervisor.guard.process
    first.send_signal(signal.SIGKILL)
    first.wait(DEADLINE_SECONDS)

    trial.stack.watch_once()

    assert trial.supervisor.guard.process.pid != first.pid
    assert trial.supervisor.guard.process.poll() is None
    assert not is_gone(server)
