"""A second process that ends the stack when its supervisor is killed outright.

Linux can signal a child whose parent died (`prctl`), but not a grandchild, and Dagster's code
server waits for the runs that it started. So the supervisor keeps telling the guard which sessions
it has started, through a pipe that closes with the supervisor, however that ends.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from hubspot_deals.local.processes import Child, send, session_members

_STOP_SECONDS: Final = 8.0
_DATABASE: Final = "postgres"


@dataclass(slots=True)
class Guard:
    """The supervisor's side of the guard."""

    stack_file: Path
    working_folder: Path
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, stack_file: Path, working_folder: Path) -> "Guard":
        """Start the guard; the end of this process is what sets it to work."""
        return cls(stack_file, working_folder, _start(stack_file, working_folder))

    def renew(self, children: Iterable[Child]) -> None:
        """Start another guard if this one has ended."""
        if self.process.poll() is not None:
            with suppress(BrokenPipeError):
                self.process.communicate()
            self.process = _start(self.stack_file, self.working_folder)
            self.note(children)

    def note(self, children: Iterable[Child]) -> None:
        """Say which children run now."""
        leaders = [[child.name, child.process.pid, child.created_at] for child in children]
        with suppress(BrokenPipeError):
            pipe = self.process.stdin
            if pipe is not None:
                pipe.write(json.dumps(leaders) + "\n")
                pipe.flush()

    def dismiss(self) -> None:
        """End the guard: nothing is left to guard."""
        self.note([])
        with suppress(BrokenPipeError):
            self.process.communicate(timeout=_STOP_SECONDS)


def _start(stack_file: Path, working_folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - the command is ours
        [sys.executable, "-m", "hubspot_deals.local.guard", str(stack_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=working_folder,
        start_new_session=True,
        text=True,
    )


def end_sessions(leaders: Sequence[tuple[str, int, float]]) -> None:
    """End these sessions, the database's last, so that the others can still write their end."""
    others = [
        process
        for name, pid, created_at in leaders
        if name != _DATABASE
        for process in _members(pid, created_at)
    ]
    send(others, signal.SIGINT)
    _, stubborn = psutil.wait_procs(others, timeout=_STOP_SECONDS)
    send(stubborn, signal.SIGKILL)
    for name, pid, created_at in leaders:
        if name == _DATABASE:
            send(_members(pid, created_at), signal.SIGINT)


def _members(leader: int, created_at: float) -> list[psutil.Process]:
    """Return a session's processes, none if its number now belongs to another one."""
    with suppress(psutil.NoSuchProcess):
        if psutil.Process(leader).create_time() != created_at:
            return []
    return session_members(leader)


def main() -> None:
    """Wait for the supervisor's end, then end what it left."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    leaders: list[tuple[str, int, float]] = []
    for line in sys.stdin:
        leaders = json.loads(line)
    if leaders:
        Path(sys.argv[1]).unlink(missing_ok=True)
        end_sessions(leaders)


if __name__ == "__main__":
    main()
