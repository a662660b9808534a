"""The data folder of one embedded stack: its paths, its secrets, its lock and `stack.json`."""

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubspot_deals.errors import ConfigurationError

_KEY_BYTES = 32


class StackRunningError(ConfigurationError):
    """Another stack uses this data folder."""

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder = folder
        super().__init__(
            f"A stack is already running on {folder}"
            f"{f' (process {owner})' if owner else ''}: stop it, or name another --data-dir."
        )


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Where one stack keeps everything it writes."""

    path: Path

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.path / "logs"

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance folder, which receives the compute logs."""
        return self.path / "dagster_home"

    @property
    def stack_file(self) -> Path:
        """The URLs and process ids of the stack while it is ready."""
        return self.path / "stack.json"

    def create(self) -> None:
        """Make the folder and its parts; raises ConfigurationError when that is impossible."""
        try:
            # PostgreSQL refuses to run as root, so its own user has to pass through this folder;
            # it can list nothing, and every secret in it is readable by its owner alone.
            if not self.path.exists():
                self.path.mkdir(parents=True)
                self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
            for part in (self.logs, self.dagster_home):
                part.mkdir(mode=0o700, exist_ok=True)
            write_private(self.path / ".writable", "")
            (self.path / ".writable").unlink()
        except OSError as error:
            msg = (
                f"The data folder {self.path} cannot be written ({error.strerror}): "
                "name another with --data-dir."
            )
            raise ConfigurationError(msg) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; raises StackRunningError when another one does."""
        with (self.path / "lock").open("a+", encoding="utf-8") as lock:
            try:
                # The lock belongs to the open file, which children do not inherit: it ends with
                # this process, however it ends.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise StackRunningError(self.path, lock.read().strip()) from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def encryption_keys(self) -> str:
        """Return the key ring of this folder, generated at its first use and then kept."""
        file = self.path / "encryption-keys"
        if not file.exists():
            key = base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
            write_private(file, f"k1:{key}")
        return file.read_text(encoding="utf-8").strip()

    def publish(self, facts: Mapping[str, Any]) -> None:
        """Write `stack.json`: whoever sees the file sees all of it."""
        write_private(self.stack_file, json.dumps(facts, indent=2) + "\n")

    def withdraw(self) -> None:
        """Remove `stack.json`: there is no stack to talk to any more."""
        with suppress(FileNotFoundError):
            self.stack_file.unlink()


def write_private(file: Path, text: str) -> None:
    """Replace a file in one step by one that only its owner may read."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(file)
