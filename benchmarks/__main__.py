"""Every benchmark, one after the other, as one table: `make bench`, an hour on two cores.

Each figure stands beside its reference of the same run. Ends with 1 when a wanted figure was
missed. One benchmark alone: `python -m benchmarks --only reading`.
"""

import os
import platform
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

import click
import psutil

from benchmarks.figures import Figure, print_figures

if TYPE_CHECKING:
    from collections.abc import Callable

_TITLES: Final = {
    "reading": "Reading at HubSpot's limits",
    "syncing": "Keeping a million deals current",
    "partitions": "A hundred connections, two years of hours each",
    "worker": "A worker beside a bare loop",
    "launch": "Starting scans, beside Dagster's own launcher",
    "serving": "Serving, beside bare ASGI apps",
    "edge": "Guarding pages, beside an API that asks nobody",
    "downloads": "Downloads of a million deals",
    "audits": "Audits of a million deals",
    "diffs": "Diffs of two scans of 100,000 deals",
}


def _machine() -> str:
    memory = psutil.virtual_memory().total / 1e9
    load = os.getloadavg()[0]
    return (
        f"{psutil.cpu_count()} cores, {memory:.0f} GB, Python {platform.python_version()}, "
        f"load {load:.1f} at the start"
    )


@click.command()
@click.option("--only", type=click.Choice(list(_TITLES)), multiple=True, help="Leave out others.")
def main(only: tuple[str, ...]) -> None:
    """Run the benchmarks."""
    click.echo(_machine())
    missed = 0
    for name in only or _TITLES:
        run: Callable[[], list[Figure]] = import_module(f"benchmarks.{name}").run
        figures = run()
        print_figures(_TITLES[name], figures)
        missed += sum(figure.is_met is False for figure in figures)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
