"""What counting requests costs a page, beside the same API with limits off.

Run it as `python benchmarks/edge.py`, a minute. Both APIs run at once on one database and are asked
in turn, so a busy machine slows both alike.
"""

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figure, at_least, at_most, print_figures
from benchmarks.http_load import Load, side_by_side, throughput
from benchmarks.serving import page_of, uvicorn_command
from benchmarks.serving_data import add_deals, create_database
from hubspot_deals.local.ports import LOOPBACK, free_ports
from hubspot_deals.local.processes import Child, stop_together, wait_until_ready
from hubspot_deals.local.readiness import answers
from hubspot_deals.local.throwaway import throwaway_postgres

_START_SECONDS: Final = 30.0
_ROUNDS: Final = 500
_SECONDS: Final = 3.0
_CONNECTIONS: Final = 8
_LIMITS: Final = {
    "off": {"HUBSPOT_DEALS_RATE_LIMITS": "off"},
    # Counted, and never refused.
    "on": {
        "HUBSPOT_DEALS_RATE_LIMITS": "on",
        "HUBSPOT_DEALS_RATE_LIMIT_RESULTS": "1000000000/hour",
    },
}


def run(deals: int = 20_000, repetitions: int = 5) -> list[Figure]:
    """Measure so often; the medians of the ratios."""
    pages = [page_of(random.randrange(deals - 100)) for _ in range(500)]
    with servers(deals) as urls:
        for url in urls.values():
            throughput(url, pages, connections=_CONNECTIONS, seconds=1.0)
        measured = [_measure(urls, pages) for _ in range(repetitions)]
    lone = median(on.p50 / off.p50 for (off, on), _ in measured)
    many = median(on.per_second / off.per_second for _, (off, on) in measured)
    return [
        at_most(
            "a page, one request at a time, with limits / without",
            lone,
            1.1,
            f"{median(1_000 * on.p50 for (_, on), _ in measured):.2f} ms",
            f"{median(1_000 * off.p50 for (off, _), _ in measured):.2f} ms",
        ),
        at_least(
            f"pages, {_CONNECTIONS} connections, with limits / without",
            many,
            0.8,
            f"{median(on.per_second for _, (_, on) in measured):,.0f}/s",
            f"{median(off.per_second for _, (off, _) in measured):,.0f}/s",
        ),
    ]


@contextmanager
def servers(deals: int) -> Iterator[dict[str, str]]:
    """Run an API with and one without limits, on one database."""
    with ExitStack() as stack:
        database = create_database(stack.enter_context(throwaway_postgres()), "one_scan")
        add_deals(database, deals)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="hubspot-deals-bench-")))
        urls = {}
        for (name, own), port in zip(_LIMITS.items(), free_ports(len(_LIMITS)), strict=True):
            command = uvicorn_command(name, "api.main:create_app", port, database, folder / "none")
            command = replace(command, environment={**command.environment, **own})
            child = Child(command, folder / f"{name}.log")
            stack.callback(stop_together, [child])
            urls[name] = f"http://{LOOPBACK}:{port}"
            ready = {child: answers(f"{urls[name]}/api/v1/health")}
            wait_until_ready(ready, [child], _START_SECONDS, lambda: None)
        yield urls


def _measure(urls: dict[str, str], pages: list[str]) -> tuple[list[Load], list[Load]]:
    lone = side_by_side([(url, cycle(pages)) for url in urls.values()], rounds=_ROUNDS)
    many = [
        throughput(url, pages, connections=_CONNECTIONS, seconds=_SECONDS) for url in urls.values()
    ]
    return lone, many


@click.command()
def main() -> None:
    """Measure and print."""
    print_figures("Counting requests", run())


if __name__ == "__main__":
    main()
