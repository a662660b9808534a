"""Ctrl-C and SIGTERM, noted at once and acted on where nothing is half done."""

import signal
from types import FrameType
from typing import Any


class StopRequestedError(Exception):
    """Somebody asked this process to end."""


class StopSwitch:
    """Takes the signals while it is entered; `check` raises once one has come.

    A handler that raised could do so between the start of a child and the note of its id, and the
    child would be left behind.
    """

    def __init__(self) -> None:
        self._requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSwitch":
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # `nohup` has a hang-up ignored, and means it.
            if name is not signal.SIGHUP or signal.getsignal(name) is not signal.SIG_IGN:
                self._previous[name] = signal.signal(name, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._previous.items():
            signal.signal(name, handler)

    def check(self) -> None:
        """Raise StopRequestedError if a signal has come."""
        if self._requested:
            raise StopRequestedError

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._requested = True
