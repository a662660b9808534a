"""The run host: one warm, single-threaded process that forks a worker for each run.

It imports everything once and holds no connection, no thread and no event loop, because a fork
would copy them. Workers outlive it: the next host finds them by their locked files.
"""

import json
import logging
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from hubspot_deals import redaction
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.launcher import signals, warmth, worker
from hubspot_deals.launcher.channel import read_line
from hubspot_deals.launcher.folder import DagsterHome, LauncherFolder
from hubspot_deals.launcher.warmth import Warmth

logger = logging.getLogger(__name__)

_SWEEP_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 12.0
_QUESTION_SECONDS: Final = 2.0
_STOP_POLL_SECONDS: Final = 0.05
_LOCK_SECONDS: Final = 5.0
_BACKLOG: Final = 128


class RunHostRunningError(ConfigurationError):
    """Another run host uses this folder."""

    def __init__(self, folder: LauncherFolder) -> None:
        super().__init__(f"A run host is already running on {folder.path}: stop it first.")


@dataclass(slots=True)
class RunHost:
    """Forks workers when it is asked to, and tells Dagster of those that end without a word."""

    folder: LauncherFolder
    warm: Warmth
    wakeup: signals.Wakeup = field(default_factory=signals.Wakeup)
    _listener: socket.socket = field(init=False)
    _lock: int = field(init=False)
    _workers: dict[int, str] = field(default_factory=dict)
    _reporters: set[int] = field(default_factory=set)

    def serve(self) -> None:
        """Answer until a signal asks for the end; then interrupt the runs and wait for them."""
        self.folder.create()
        self._lock = lock(self.folder)
        self._listener = listen(self.folder)
        with self.wakeup.listening(), selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self.wakeup.reader, selectors.EVENT_READ)
            logger.info("ready to fork runs at %s", self.folder.socket)
            while not self.wakeup.stop_requested:
                self._turn(selector)
            self._listener.close()
            self.folder.socket.unlink(missing_ok=True)
            self._stop_runs()

    def _turn(self, selector: selectors.BaseSelector) -> None:
        ready = [key.fileobj for key, _ in selector.select(_SWEEP_SECONDS)]
        if self.wakeup.reader in ready:
            self.wakeup.drain()
        if self._listener in ready:
            self._answer_next()
        self._reap()
        if not ready:
            self._sweep()

    def _answer_next(self) -> None:
        connection, _ = self._listener.accept()
        with connection, suppress(OSError):
            connection.settimeout(_QUESTION_SECONDS)
            if _is_ours(connection) and (line := read_line(connection)):
                answer = self._answer(line, connection)
                connection.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, line: bytes, connection: socket.socket) -> dict[str, Any]:
        try:
            question = json.loads(line)
            run_id = question["run_id"]
            match question["action"]:
                case "launch":
                    return {"pid": self._launch(run_id, connection)}
                case "ping":
                    return {"pid": os.getpid()}
                case "terminate":
                    return {"pid": self._interrupt(run_id)}
                case action:
                    return {"error": f"unknown action {action!r}"}
        except Exception as error:
            logger.exception("a question could not be answered")
            return {"error": f"{type(error).__name__}: {error}"}

    def _launch(self, run_id: str, connection: socket.socket) -> int | None:
        descriptor = self.folder.claim(run_id)
        if descriptor is None:
            # Asked again, because the answer did not arrive.
            return self.folder.find_worker(run_id)
        try:
            pid = self._fork()
            if pid == 0:
                connection.close()
                self.folder.sign(descriptor, os.getpid())
                _end_with(worker.carry_out, self.warm.instance, run_id)
            self.folder.sign(descriptor, pid)
        finally:
            # The worker's copy keeps the lock.
            os.close(descriptor)
        self._workers[pid] = run_id
        return pid

    def _fork(self) -> int:
        """Fork; the child has none of the host's sockets, and its interrupts wait."""
        warmth.require_one_thread()
        signals.block()
        try:
            pid = os.fork()
        except OSError:
            signals.unblock()
            raise
        if pid:
            signals.unblock()
            return pid
        # Ctrl-C in a terminal is for the host, which then interrupts the runs.
        os.setpgid(0, 0)
        signals.restore()
        self.wakeup.close()
        self._listener.close()
        os.close(self._lock)
        return 0

    def _interrupt(self, run_id: str) -> int | None:
        pid = self.folder.find_worker(run_id)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        return pid

    def _reap(self) -> None:
        """Take note of children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._reporters.discard(pid)
            if (run_id := self._workers.pop(pid, None)) is None:
                continue
            self.folder.forget(run_id)
            code = os.waitstatus_to_exitcode(status)
            if code != 0:
                self._report(run_id, _describe(code))

    def _sweep(self) -> None:
        """Look after workers of an earlier host, whose end nobody else notices."""
        ours = set(self._workers.values())
        for run_id in list(self.folder.run_ids()):
            if run_id not in ours and not self.folder.is_alive(run_id):
                self.folder.forget(run_id)
                self._report(run_id, "is gone, and so was the run host that had started it")

    def _report(self, run_id: str, how: str) -> None:
        """Tell Dagster in a process of its own: the host itself has no connection."""
        logger.warning("the worker of run %s %s", run_id, how)
        pid = self._fork()
        if pid == 0:
            _end_with(worker.report_end, self.warm.instance, run_id, how)
        self._reporters.add(pid)

    def _stop_runs(self) -> None:
        """Interrupt what runs and wait a while; what is interrupted goes on after a restart."""
        deadline = time.monotonic() + _STOP_SECONDS
        for run_id in list(self.folder.run_ids()):
            self._interrupt(run_id)
        while time.monotonic() < deadline:
            self._reap()
            alive = [run_id for run_id in self.folder.run_ids() if self.folder.is_alive(run_id)]
            if not alive and not self._reporters:
                return
            time.sleep(_STOP_POLL_SECONDS)


def lock(folder: LauncherFolder) -> int:
    """Keep a second host out; a worker forked a moment ago may still hold its dead host's lock."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while (descriptor := folder.claim_host()) is None:
        if time.monotonic() > deadline:
            raise RunHostRunningError(folder)
        time.sleep(_STOP_POLL_SECONDS)
    return descriptor


def listen(folder: LauncherFolder) -> socket.socket:
    """Open the socket, in place of one that a host has left behind."""
    folder.socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(folder.socket))
    folder.socket.chmod(0o600)
    listener.listen(_BACKLOG)
    listener.settimeout(0)
    return listener


def _is_ours(connection: socket.socket) -> bool:
    """Tell whether the caller is the same user; elsewhere than on Linux, the folder sees to it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _, user, _ = struct.unpack("3i", credentials)
    return bool(user == os.getuid())


def _describe(code: int) -> str:
    if code < 0:
        return f"was killed by signal {-code} ({signal.strsignal(-code)})"
    return f"ended with exit code {code} before the run had ended"


def _end_with(work: Callable[..., int], *arguments: object) -> NoReturn:
    """Do a forked process's work and end it there, whatever happens."""
    code = 1
    try:
        code = work(*arguments)
    except BaseException:
        logger.exception("process %s failed", os.getpid())
    finally:
        with suppress(Exception):
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        # Not sys.exit: what the host has registered for its own end is not for its children.
        os._exit(code)


def run_host() -> None:
    """Serve until SIGTERM or SIGINT."""
    redaction.install()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    home = DagsterHome().path
    began = time.monotonic()
    warm = Warmth.build(home)
    warmth.freeze()
    warmth.require_one_thread()
    logger.info("warm after %.1f s", time.monotonic() - began)
    RunHost(LauncherFolder.below(home), warm).serve()
