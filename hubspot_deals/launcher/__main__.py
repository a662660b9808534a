"""Start the run host: `python -m hubspot_deals.launcher`, with DAGSTER_HOME set."""

import ctypes
import os
from typing import Final

# Each library would start a thread when it is imported; a fork copies only the one that forks.
_FOR_LIBRARIES: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    # Returns at once what it has freed; the one with threads would do it in the background.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # A first load completes thousands of partitions: Dagster stores as many events at once.
    "DAGSTER_EVENT_BATCH_SIZE": "1000",
}
# glibc's options of mallopt: one arena for all threads, and what is freed goes back early. Together
# with the above, a worker that reads 10,000 deals needs an eighth less memory.
_MALLOC: Final = {-8: 1, -1: 64 * 1024, -3: 64 * 1024}


def main() -> None:
    """Keep libraries from starting threads and memory from piling up, then import and serve."""
    os.environ.update(_FOR_LIBRARIES)  # noqa: TID251 - C libraries read it, no setting of ours
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for option, value in _MALLOC.items():
            mallopt(option, value)

    from hubspot_deals.launcher.host import run_host  # noqa: PLC0415 - after the environment is set

    run_host()


if __name__ == "__main__":
    main()
