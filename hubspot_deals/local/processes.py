"""One child process of the stack: its start, its log, and the end of all that descends from it."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from hubspot_deals.errors import PermanentError, TransientError

POLL_SECONDS: Final = 0.05
_TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 64 * 1024
_ORPHAN_SECONDS: Final = 3.0


class ChildEndedError(PermanentError):
    """A process of the stack ended that should be running."""

    def __init__(self, name: str, how: str, log: Path, tail: str) -> None:
        self.name = name
        self.log = log
        super().__init__(f"The {name} process {how}. The end of its log, {log}:\n{tail}")


class NotReadyError(TransientError):
    """A process of the stack runs but does not become ready."""

    def __init__(self, name: str, seconds: float, log: Path, tail: str) -> None:
        self.name = name
        self.log = log
        super().__init__(
            f"The {name} process was not ready after {seconds:.0f} s. "
            f"The end of its log, {log}:\n{tail}"
        )


@dataclass(frozen=True, slots=True)
class SystemUser:
    """The operating system's user that a child runs as."""

    user_id: int
    group_id: int


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and how to ask it to stop."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    working_folder: Path
    run_as: SystemUser | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 8.0


@dataclass(eq=False, slots=True)
class Child:
    """A started command, leader of a session of its own.

    The session keeps a terminal's Ctrl-C away from it, so that the stack ends in its own order,
    and it finds descendants again whose parent is gone.
    """

    command: Command
    log: Path
    # Whether it goes on with the log of one that ended, instead of keeping that one beside.
    goes_on: bool = False
    process: subprocess.Popen[bytes] = field(init=False)
    created_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        if self.log.exists() and not self.goes_on:
            self.log.replace(self.log.with_suffix(".previous.log"))
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        user = self.command.run_as
        with os.fdopen(descriptor, "ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - the command is ours
                list(self.command.arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.command.working_folder,
                env=dict(self.command.environment),
                start_new_session=True,
                user=user.user_id if user else None,
                group=user.group_id if user else None,
                extra_groups=[] if user else None,
            )
        with contextlib.suppress(psutil.NoSuchProcess):
            self.created_at = psutil.Process(self.process.pid).create_time()

    @property
    def name(self) -> str:
        """The name of the process in messages, in `stack.json` and of its log."""
        return self.command.name

    @property
    def exit_code(self) -> int | None:
        """None while the process runs."""
        return self.process.poll()

    def log_text(self) -> str:
        """Return the last part of the log."""
        with self.log.open("rb") as handle:
            handle.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return handle.read().decode(errors="replace")

    def log_tail(self) -> str:
        """Return the last lines of the log, indented for a message."""
        lines = self.log_text().splitlines()[-_TAIL_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (empty)"

    def how_it_ended(self) -> str:
        """Say it in a few words; waits for the end."""
        code = self.process.wait()
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def ended_error(self) -> ChildEndedError:
        """Describe the end of this process."""
        return ChildEndedError(self.name, self.how_it_ended(), self.log, self.log_tail())

    def descendants(self) -> list[psutil.Process]:
        """Return every other process of this one's tree and session, orphans included."""
        found: dict[int, psutil.Process] = {}
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self.process.pid)
            if leader.create_time() != self.created_at:
                # The number is a stranger's by now, so nobody of this session is left.
                return []
            for process in leader.children(recursive=True):
                found[process.pid] = process
        for process in session_members(self.process.pid):
            if process.pid != self.process.pid:
                found.setdefault(process.pid, process)
        return list(found.values())


def session_members(leader: int) -> list[psutil.Process]:
    """Return the processes of a session, whether their parents still live or not."""
    members = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getsid(pid) == leader:
                members.append(psutil.Process(pid))
    return [process for process in members if _is_alive(process)]


def wait_until_ready(
    pending: Mapping[Child, Callable[[], bool]],
    running: Iterable[Child],
    seconds: float,
    checkpoint: Callable[[], None],
) -> None:
    """Return when every check has passed once.

    Raises ChildEndedError as soon as one of the running processes ends. `checkpoint` is called at
    every turn and may raise to give up.
    """
    waiting = dict(pending)
    watched = list(running)
    deadline = time.monotonic() + seconds
    while waiting:
        checkpoint()
        raise_if_ended(watched)
        for child in [child for child, is_ready in waiting.items() if is_ready()]:
            del waiting[child]
        if waiting and time.monotonic() > deadline:
            late = next(iter(waiting))
            raise NotReadyError(late.name, seconds, late.log, late.log_tail())
        time.sleep(POLL_SECONDS if waiting else 0)


def raise_if_ended(children: Iterable[Child]) -> None:
    """Raise ChildEndedError for the first process that is not running any more."""
    for child in children:
        if child.exit_code is not None:
            raise child.ended_error()


def stop_together(children: Sequence[Child]) -> None:
    """End these processes and all their descendants, within a bounded time."""
    families = {child: child.descendants() for child in children}
    for child in children:
        if child.exit_code is None:
            child.process.send_signal(child.command.stop_signal)
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(child.command.stop_seconds)
    for child, known in families.items():
        _end_family(child, known)


def _end_family(child: Child, known: Iterable[psutil.Process]) -> None:
    """Kill a process that did not stop, and end what it left behind."""
    if child.exit_code is None:
        child.process.kill()
        child.process.wait()
    orphans = list({*known, *child.descendants()})
    send(orphans, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(orphans, timeout=_ORPHAN_SECONDS)
    send(stubborn, signal.SIGKILL)
    psutil.wait_procs(stubborn, timeout=_ORPHAN_SECONDS)


def send(processes: Iterable[psutil.Process], what: signal.Signals) -> None:
    """Signal every one of these that is still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(what)


def _is_alive(process: psutil.Process) -> bool:
    # Where nobody reaps orphans (a container without an init), they stay as zombies.
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
