"""What launcher and run host say to each other: one JSON line there, one back."""

import json
import socket
import time
from typing import Any, Final

from hubspot_deals.errors import PermanentError, TransientError
from hubspot_deals.launcher.folder import LauncherFolder

LONGEST_LINE: Final = 4_096
_ANSWER_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.1


class RunHostUnreachableError(TransientError):
    """The run host does not answer: it is being started again, or nobody has started it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The run host did not answer: {reason}")


class RunHostRefusedError(PermanentError):
    """The run host answered that it cannot do what it was asked for."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The run host refused: {reason}")


def ask(folder: LauncherFolder, action: str, run_id: str) -> dict[str, Any]:
    """Ask the host once; raises RunHostUnreachableError or RunHostRefusedError."""
    question = json.dumps({"action": action, "run_id": run_id}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(str(folder.socket))
            connection.sendall(question)
            line = read_line(connection)
        answer: dict[str, Any] = json.loads(line)
    except (OSError, ValueError) as error:
        raise RunHostUnreachableError(str(error) or type(error).__name__) from error
    if "error" in answer:
        raise RunHostRefusedError(answer["error"])
    return answer


def is_ready(folder: LauncherFolder) -> bool:
    """Tell whether a host answers."""
    try:
        ask(folder, "ping", "")
    except (RunHostUnreachableError, RunHostRefusedError):
        return False
    return True


def ask_patiently(
    folder: LauncherFolder, action: str, run_id: str, *, seconds: float
) -> dict[str, Any]:
    """Ask until the host answers: asking twice for the same run starts one worker."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask(folder, action, run_id)
        except RunHostUnreachableError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_SECONDS)


def read_line(connection: socket.socket) -> bytes:
    """Read up to the end of a line; empty when the other side closed without a word."""
    received = b""
    while not received.endswith(b"\n") and len(received) < LONGEST_LINE:
        part = connection.recv(LONGEST_LINE)
        if not part:
            break
        received += part
    return received
