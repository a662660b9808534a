"""The folder where launcher and run host meet: a socket, and a locked file for each live run.

The lock of a run's file belongs to its worker and ends with it, however that ends. So anybody on
this machine can tell whether a worker lives, also after the host that forked it is gone.
"""

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import Field
from pydantic_settings import BaseSettings

_CLAIM_TRIES: Final = 5
_CLAIM_PAUSE_SECONDS: Final = 0.01
_LONGEST_ADDRESS: Final = 100
"""The system's own limit is 104 to 108 bytes."""


class DagsterHome(BaseSettings):
    """Dagster's own variable, without which none of its processes starts."""

    path: Path = Field(validation_alias="DAGSTER_HOME")


@dataclass(frozen=True, slots=True)
class LauncherFolder:
    """The folder, below DAGSTER_HOME unless the configuration names another."""

    path: Path

    @classmethod
    def below(cls, dagster_home: Path) -> Self:
        """Return the usual place."""
        return cls(dagster_home / "launcher")

    @property
    def socket(self) -> Path:
        """Where the host listens; elsewhere when the folder's name is too long for a socket."""
        usual = self.path / "host.sock"
        if len(os.fsencode(usual)) <= _LONGEST_ADDRESS:
            return usual
        name = hashlib.sha256(os.fsencode(self.path.absolute())).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"hubspot-deals-{os.getuid()}-{name}" / "host.sock"

    def create(self) -> None:
        """Make the folders, which only their owner may enter."""
        for folder in (self._runs, self.socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.path, self.socket.parent):
            if folder.stat().st_uid != os.getuid():
                msg = f"{folder} belongs to somebody else."
                raise PermissionError(msg)
            folder.chmod(0o700)

    def claim_host(self) -> int | None:
        """Lock the folder for one host and return the descriptor, or None when there is a host."""
        return _lock(self.path / "host.lock")

    def claim(self, run_id: str) -> int | None:
        """Lock a run's file and return its descriptor, or None when a worker has it.

        Whoever inherits the descriptor holds the lock, as long as one copy of it is open.
        """
        for _ in range(_CLAIM_TRIES):
            descriptor = _lock(self._file(run_id))
            if descriptor is not None:
                # Not the worker before, if the run had one.
                os.truncate(descriptor, 0)
                return descriptor
            # Somebody who looks whether it is locked has it for a moment.
            time.sleep(_CLAIM_PAUSE_SECONDS)
        return None

    def sign(self, descriptor: int, pid: int) -> None:
        """Write down whose lock it is."""
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, b"%d" % pid, 0)

    def is_alive(self, run_id: str) -> bool:
        """Tell whether a worker holds the run's lock."""
        return self._look(run_id) is not None

    def find_worker(self, run_id: str) -> int | None:
        """Return the process id of a run's live worker."""
        return int(self._look(run_id) or b"0") or None

    def run_ids(self) -> Iterator[str]:
        """Name the runs that have a file, whether their workers live or not."""
        return (file.name for file in self._runs.iterdir())

    def forget(self, run_id: str) -> None:
        """Remove the file of a run that has ended."""
        with suppress(FileNotFoundError):
            self._file(run_id).unlink()

    def _look(self, run_id: str) -> bytes | None:
        """Return what a locked file says; None when there is none, or nobody holds it."""
        try:
            descriptor = os.open(self._file(run_id), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(descriptor, 20)
        finally:
            os.close(descriptor)
        return None

    @property
    def _runs(self) -> Path:
        return self.path / "runs"

    def _file(self, run_id: str) -> Path:
        if not run_id.replace("-", "").isalnum():
            msg = f"not a run id: {run_id!r}"
            raise ValueError(msg)
        return self._runs / run_id


def _lock(file: Path) -> int | None:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
