"""Start the run host: `python -m hubspot_deals.launcher`, with DAGSTER_HOME set."""

import os
from typing import Final

# Each library would start a thread when it is imported; a fork copies only the one that forks.
_NO_THREADS: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


def main() -> None:
    """Keep libraries from starting threads, then import them and serve."""
    os.environ.update(_NO_THREADS)  # noqa: TID251 - C libraries read it, no setting of ours

    from hubspot_deals.launcher.host import run_host  # noqa: PLC0415 - after the environment is set

    run_host()


if __name__ == "__main__":
    main()
