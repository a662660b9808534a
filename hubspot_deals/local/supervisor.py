"""Starts the processes of a stack, starts them again when they end, and ends them in order."""

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import psutil

from hubspot_deals.local.folder import DataFolder
from hubspot_deals.local.guard import Guard
from hubspot_deals.local.processes import (
    Child,
    Command,
    send,
    stop_together,
    wait_until_ready,
)
from hubspot_deals.local.restarts import Restarts

READY_SECONDS: Final = 90.0
_WATCH_SECONDS: Final = 0.2
# The doors first, so that nothing new comes in; then what they stand on.
_DOORS: Final = ("api", "daemon", "webserver")
_FOUNDATIONS: Final = ("sync_server", "code_server", "sandbox", "postgres")
_RUN_HOST: Final = "run_host"
_POSTGRES: Final = "postgres"
_LOST_WITH: Final = {"sandbox": "; changes made to its deals are lost"}

Recovery = tuple[Callable[[], None], Callable[[], bool]]
"""What to do before a process is started again, and whether it is ready then."""


@dataclass(slots=True)
class Supervisor:
    """The running processes of one stack."""

    folder: DataFolder
    tell: Callable[[str], None]
    checkpoint: Callable[[], None]
    guard: Guard
    children: dict[str, Child] = field(default_factory=dict)
    recoveries: dict[str, Recovery] = field(default_factory=dict)
    restarts: Restarts = field(default_factory=Restarts)
    # Ended ones: runs outlive their code server, and nobody else would end them.
    _ended: list[Child] = field(default_factory=list)
    _due: dict[str, float] = field(default_factory=dict)

    def spawn(self, command: Command) -> Child:
        """Start a process, for the first time or again."""
        self.checkpoint()
        log = self.folder.logs / f"{command.name}.log"
        child = Child(command, log, goes_on=command.name in self._due)
        self.children[command.name] = child
        self._note()
        return child

    def wait(self, checks: Mapping[str, Callable[[], bool]]) -> None:
        """Return when these are ready; raises ChildEndedError as soon as any process ends."""
        pending = {self.children[name]: check for name, check in checks.items()}
        wait_until_ready(pending, self.children.values(), READY_SECONDS, self.checkpoint)

    def run_to_end(self, command: Command) -> None:
        """Run a one-shot; raises ChildEndedError when it fails."""
        child = self.spawn(command)
        running = [other for other in self.children.values() if other is not child]
        ended = {child: lambda: child.exit_code is not None}
        wait_until_ready(ended, running, READY_SECONDS, self.checkpoint)
        if child.exit_code != 0:
            raise child.ended_error()
        del self.children[command.name]
        self._note()

    def watch_once(self) -> bool:
        """Start again what has ended, or wait a moment; tell whether a process was started.

        Raises ChildEndedError for a process that ends again and again.
        """
        self.checkpoint()
        for name, child in self.children.items():
            if child.exit_code is not None and name not in self._due:
                self._plan_restart(child)
        due = [name for name, at in self._due.items() if at <= time.monotonic()]
        # Nothing can start without its database.
        if _POSTGRES in self._due:
            due = [name for name in due if name == _POSTGRES]
        for name in due:
            self._start_again(self.children[name])
        if not due:
            self.guard.renew(self._remembered())
            time.sleep(_WATCH_SECONDS)
        return bool(due)

    def stop(self) -> None:
        """End every process and what descends from it, within a bounded time."""
        self._stop_parts(_DOORS)
        self._stop_runs()
        for name in _FOUNDATIONS:
            self._stop_parts((name,))
        # A one-shot that was cut short.
        self._stop_parts(tuple(self.children))
        self.guard.dismiss()

    def _plan_restart(self, child: Child) -> None:
        pause = self.restarts.note_end(child.name)
        if pause is None:
            raise child.ended_error()
        lost = _LOST_WITH.get(child.name, "")
        self.tell(f"The {child.name} process {child.how_it_ended()}: it is started again{lost}.")
        self._due[child.name] = time.monotonic() + pause

    def _start_again(self, ended: Child) -> None:
        """Start a process in the place of one that ended; what that left behind is remembered."""
        recover, is_ready = self.recoveries.get(ended.name, (lambda: None, lambda: True))
        recover()
        self._ended = [child for child in (*self._ended, ended) if child.descendants()]
        again = self.spawn(ended.command)
        del self._due[ended.name]
        wait_until_ready(
            {again: lambda: is_ready() or again.exit_code is not None},
            [],
            READY_SECONDS,
            self.checkpoint,
        )

    def _stop_runs(self) -> None:
        """Interrupt the runs. Run host and code server wait for theirs; others are waited for."""
        if "code_server" in self.children:
            send(self.children["code_server"].descendants(), signal.SIGINT)
        self._stop_parts((_RUN_HOST,))
        orphans = [process for child in self._ended for process in child.descendants()]
        send(orphans, signal.SIGINT)
        seconds = max((child.command.stop_seconds for child in self._ended), default=0.0)
        psutil.wait_procs(orphans, timeout=seconds)
        stop_together(self._ended)

    def _stop_parts(self, names: tuple[str, ...]) -> None:
        stop_together([self.children.pop(name) for name in names if name in self.children])

    def _note(self) -> None:
        self.guard.note(self._remembered())

    def _remembered(self) -> list[Child]:
        return [*self._ended, *self.children.values()]
