"""Signals of the run host and of the processes that it forks."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM)


def block() -> None:
    """Keep interrupts waiting, from before a fork until the child can handle them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)


def unblock() -> None:
    """Let interrupts through."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)


def restore() -> None:
    """Give a forked process Python's usual handlers in place of the host's."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Wakeup:
    """Notes that somebody wants this process to end, and that a child of it has ended.

    Either makes `reader` readable, so a loop that waits for it wakes up.
    """

    def __init__(self) -> None:
        self.stop_requested = False
        self.reader, self._writer = socket.socketpair()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals."""
        self.reader.settimeout(0)
        self._writer.settimeout(0)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._ignore)
        for name in _INTERRUPTS:
            signal.signal(name, self._note_stop)
        try:
            yield
        finally:
            restore()
            self.close()

    def drain(self) -> None:
        """Forget the signals that have been seen."""
        self.reader.recv(1_024)

    def close(self) -> None:
        """Close both ends, as a forked process has to."""
        self.reader.close()
        self._writer.close()

    def _note_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stop_requested = True

    def _ignore(self, _number: int, _frame: FrameType | None) -> None:
        """Exists so that Python wakes up for the signal."""
