"""What it costs a page to know its caller, count it and note it, beside the same API without that.

Run it as `python benchmarks/edge.py`, two minutes. The APIs run at once on one database and are
asked in turn, so a busy machine slows all alike.
"""

import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import click
import psycopg

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figure, at_least, at_most, print_figures
from benchmarks.http_load import Load, side_by_side, throughput
from benchmarks.serving import cpu_seconds, page_of, uvicorn_command
from benchmarks.serving_data import add_deals, create_database
from hubspot_deals.contract import AccessLevel
from hubspot_deals.local.ports import LOOPBACK, free_ports
from hubspot_deals.local.processes import Child, stop_together, wait_until_ready
from hubspot_deals.local.readiness import answers
from hubspot_deals.local.throwaway import throwaway_postgres
from hubspot_deals.warehouse.api_keys import create_key

_START_SECONDS: Final = 30.0
_ROUNDS: Final = 500
_SECONDS: Final = 3.0
_NOTED_SECONDS: Final = 0.7
"""After which the audit log has what was read before."""
_CONNECTIONS: Final = 8
# Counted, and never refused.
_LIMITS: Final = {
    "HUBSPOT_DEALS_RATE_LIMITS": "on",
    "HUBSPOT_DEALS_RATE_LIMIT_RESULTS": "1000000000/hour",
}
_APIS: Final[Mapping[str, Mapping[str, str]]] = {
    "open": {},
    "limits": _LIMITS,
    "all": {**_LIMITS, "HUBSPOT_DEALS_AUTH_MODE": "required"},
}
"""Without keys and limits, with limits, with both: asked with a key of one organization."""


@dataclass(frozen=True, slots=True)
class Api:
    """Where one of them listens, and the processes that work for it."""

    url: str
    pid: int
    postgres: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What one of them did once; milliseconds for each page, of CPU but for the first."""

    alone: float
    per_second: float
    api: float
    postgres: float


def run(deals: int = 20_000, repetitions: int = 5) -> list[Figure]:
    """Measure so often; the medians of the ratios."""
    pages = [page_of(random.randrange(deals - 100)) for _ in range(500)]
    with servers(deals) as apis:
        for api in apis.values():
            throughput(api.url, pages, connections=_CONNECTIONS, seconds=1.0)
        measured = [_measure(apis, pages) for _ in range(repetitions)]
    return [
        figure
        for name, text in (("limits", "with limits"), ("all", "with keys and limits"))
        for figure in _figures(measured, name, text)
    ]


def _figures(measured: list[dict[str, Measured]], name: str, text: str) -> list[Figure]:
    def told(read: str, unit: str) -> tuple[float, str, str]:
        ours, floor = ([getattr(each[api], read) for each in measured] for api in (name, "open"))
        ratio = median(one / other for one, other in zip(ours, floor, strict=True))
        return ratio, f"{median(ours):,.4g}{unit}", f"{median(floor):,.4g}{unit}"

    def limited(what: str, read: str, most: float) -> Figure:
        ratio, ours, floor = told(read, " ms")
        return at_most(f"{what}, {text} / without", ratio, most, ours, floor)

    ratio, ours, floor = told("per_second", "/s")
    return [
        limited("a page, one request at a time", "alone", 1.1),
        at_least(f"pages, {_CONNECTIONS} connections, {text} / without", ratio, 0.8, ours, floor),
        limited("CPU of a page in the API", "api", 1.2),
        limited("CPU of a page in PostgreSQL", "postgres", 1.1),
    ]


@contextmanager
def servers(deals: int) -> Iterator[dict[str, Api]]:
    """Run an API of each kind, on one database."""
    with ExitStack() as stack:
        server = stack.enter_context(throwaway_postgres())
        postgres = int((server.cluster / "postmaster.pid").read_text().split()[0])
        database = create_database(server, "one_scan")
        add_deals(database, deals)
        key = _create_key(database)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="hubspot-deals-bench-")))
        apis = {}
        for (name, own), port in zip(_APIS.items(), free_ports(len(_APIS)), strict=True):
            command = uvicorn_command(name, "api.main:create_app", port, database, folder / "none")
            command = replace(command, environment={**command.environment, **own})
            child = Child(command, folder / f"{name}.log")
            stack.callback(stop_together, [child])
            address = f"{LOOPBACK}:{port}"
            ready = {child: answers(f"http://{address}/api/v1/health")}
            wait_until_ready(ready, [child], _START_SECONDS, lambda: None)
            url = f"http://{key}@{address}" if name == "all" else f"http://{address}"
            apis[name] = Api(url, child.process.pid, postgres)
        yield apis


def _create_key(database: str) -> str:
    with psycopg.connect(database, autocommit=True) as connection:
        made = create_key(
            connection, name="reader", organizations=["org-1"], level=AccessLevel.READ, days=None
        )
    assert made.key is not None
    return made.key.get_secret_value()


def _measure(apis: dict[str, Api], pages: list[str]) -> dict[str, Measured]:
    lone = side_by_side([(api.url, cycle(pages)) for api in apis.values()], rounds=_ROUNDS)
    return {
        name: _measure_many(api, pages, alone)
        for (name, api), alone in zip(apis.items(), lone, strict=True)
    }


def _measure_many(api: Api, pages: list[str], lone: Load) -> Measured:
    time.sleep(_NOTED_SECONDS)
    before = [cpu_seconds(pid) for pid in (api.pid, api.postgres)]
    many = throughput(api.url, pages, connections=_CONNECTIONS, seconds=_SECONDS)
    time.sleep(_NOTED_SECONDS)
    spent = [cpu_seconds(api.pid) - before[0], cpu_seconds(api.postgres) - before[1]]
    costs = (1_000 * one / (many.per_second * _SECONDS) for one in spent)
    return Measured(1_000 * lone.p50, many.per_second, *costs)


@click.command()
def main() -> None:
    """Measure and print."""
    print_figures("Guarding pages", run())


if __name__ == "__main__":
    main()
