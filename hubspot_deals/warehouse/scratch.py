"""dlt's working folders, which hold deals for moments and are gone even after a kill.

Each has a file that its process keeps locked, so that the next process can tell what a killed one
has left, and deletes it.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "hubspot-deals-load-"
_LOCK: Final = "in-use"


@contextmanager
def working_folder() -> Iterator[Path]:
    """Yield a new folder for this process alone; delete it, and those of processes that died."""
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with (folder / "new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Only now may others see it: none is ever found unlocked while its process lives.
            (folder / "new").rename(folder / _LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        # Somebody else's, locked, or deleted by its owner at this moment.
        with suppress(OSError), lock.open("r+") as file:
            if os.fstat(file.fileno()).st_uid == os.getuid():
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
