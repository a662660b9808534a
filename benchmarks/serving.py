"""How fast the API serves, beside bare ASGI apps that return the same page.

Run it as `python benchmarks/serving.py`, two minutes. It starts a PostgreSQL, fills it (a million
deals), starts the API and the bare apps as processes of their own, and ends them all. Figures of
one table are comparable: each repetition measures everything, so a busy machine slows all of it.
"""

import base64
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import click
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figure, print_figures
from benchmarks.http_load import Load, fetch, side_by_side, throughput
from benchmarks.serving_data import BIG_SCAN, add_deals, add_scans, create_database
from hubspot_deals.local.ports import LOOPBACK, free_ports
from hubspot_deals.local.processes import Child, Command, stop_together, wait_until_ready
from hubspot_deals.local.readiness import answers
from hubspot_deals.local.throwaway import throwaway_postgres

_CHECKOUT: Final = Path(__file__).parents[1]
_CONNECTIONS: Final = 8
_SECONDS: Final = 3.0
_WARM_SECONDS: Final = 0.5
_ROUNDS: Final = 300
_START_SECONDS: Final = 30.0
_FEW: Final = 100
_MANY: Final = 10_000
_KEYS: Final = "k1:" + base64.b64encode(bytes(32)).decode()
_LIST: Final = "/api/v1/scan/list"


@dataclass(frozen=True, slots=True)
class Repetition:
    """What was measured once."""

    memory: Load
    """Pages from the bare app that has one."""
    floor: Load
    """Pages from the bare app that reads them from PostgreSQL."""
    page: Load
    costs: dict[str, float]
    """CPU milliseconds of one page, by who spends them."""
    status: Load
    listing: Load
    statistics: Load
    first: Load
    last: Load
    few: Load
    many: Load


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the processes listen, and the number of each."""

    few: str
    many: str
    bare: str
    bare_sql: str
    pids: dict[str, int]


def page_of(offset: int, limit: int = 100) -> str:
    """The address of one page of the million deals."""
    return f"/api/v1/results/{BIG_SCAN}/result?tableName=deals&limit={limit}&offset={offset}"


def run(deals: int = 1_000_000, repetitions: int = 3) -> list[Figure]:
    """Measure everything so often; the medians."""
    with servers(deals) as where:
        measured = [_measure(where, deals) for _ in range(repetitions)]
    return _figures(measured)


@contextmanager
def servers(deals: int) -> Iterator[Servers]:
    """Run PostgreSQL, two APIs and the bare apps."""
    with ExitStack() as stack:
        server = stack.enter_context(throwaway_postgres())
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="hubspot-deals-bench-")))
        few, many = (create_database(server, name) for name in ("few", "many"))
        add_scans(few, _FEW)
        add_scans(many, _MANY)
        add_deals(many, deals)
        with serving(folder, few, many) as where:
            postmaster = (server.cluster / "postmaster.pid").read_text()
            where.pids["postgres"] = int(postmaster.split()[0])
            yield where


@contextmanager
def serving(folder: Path, few: str, many: str) -> Iterator[Servers]:
    """Run the processes on databases that are filled."""
    names = ("few", "many", "bare", "bare_sql")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    urls = {name: f"http://{LOOPBACK}:{port}" for name, port in ports.items()}
    page = folder / "page.json"
    children: list[Child] = []
    try:
        for name, app, database in (
            ("few", "api.main:create_app", few),
            ("many", "api.main:create_app", many),
            ("bare", "benchmarks.bare_app:create_app", many),
            ("bare_sql", "benchmarks.bare_app:create_sql_app", many),
        ):
            if name == "bare":
                page.write_bytes(fetch(urls["many"], page_of(0)))
            child = Child(
                uvicorn_command(name, app, ports[name], database, page), folder / f"{name}.log"
            )
            children.append(child)
            ready = answers(urls[name] + ("/api/v1/health" if app.startswith("api") else "/"))
            wait_until_ready({child: ready}, [child], _START_SECONDS, lambda: None)
        pids = {child.command.name: child.process.pid for child in children}
        yield Servers(**urls, pids=pids)
    finally:
        stop_together(children)


def uvicorn_command(name: str, app: str, port: int, database: str, page: Path) -> Command:
    """Return how to serve an application on a database."""
    own = {
        "HUBSPOT_DEALS_DATABASE_URL": database,
        "HUBSPOT_DEALS_ENCRYPTION_KEYS": _KEYS,
        "HUBSPOT_DEALS_RATE_LIMITS": "off",
        "HUBSPOT_DEALS_AUTH_MODE": "open",
        "BENCHMARK_PAGE": str(page),
        "PYTHONPATH": str(_CHECKOUT),
    }
    arguments = ["uvicorn", app, "--factory", "--host", LOOPBACK, "--port", str(port)]
    own_protocol = ["--http", "api.edge.protocol:BoundedProtocol"]
    more = own_protocol if app.startswith("api.") else []
    return Command(
        name=name,
        arguments=[sys.executable, "-m", *arguments, *more, "--no-access-log"],
        environment=dict(os.environ) | own,  # noqa: TID251 - to start a program with
        working_folder=_CHECKOUT,
    )


def _measure(where: Servers, deals: int) -> Repetition:
    offsets = [random.randrange(deals - 100) for _ in range(500)]
    pages = [page_of(offset) for offset in offsets]
    statuses = [f"/api/v1/scan/scan-{number}/status" for number in range(1, 1_000)]
    lone = [
        (where.many, cycle([page_of(0)])),
        (where.many, cycle([page_of(deals * 9 // 10)])),
        (where.few, cycle([_LIST])),
        (where.many, cycle([_LIST])),
    ]
    first, last, few, many = side_by_side(lone, rounds=_ROUNDS)
    before = _cpu(where)
    memory = _load(where.bare, ["/"])
    between = _cpu(where)
    floor = _load(where.bare_sql, [f"/?{offset}" for offset in offsets])
    after = _cpu(where)
    page = _load(where.many, pages)
    end = _cpu(where)
    return Repetition(
        memory=memory,
        floor=floor,
        page=page,
        costs={
            "bare app, from memory": _cost(before, between, "bare", memory),
            "bare app, from PostgreSQL": _cost(between, after, "bare_sql", floor),
            "API": _cost(after, end, "many", page),
            "PostgreSQL": _cost(after, end, "postgres", page),
        },
        status=_load(where.many, statuses),
        listing=_load(where.many, [_LIST]),
        statistics=_load(where.many, ["/api/v1/stats"]),
        first=first,
        last=last,
        few=few,
        many=many,
    )


def _cpu(where: Servers) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in where.pids.items()}


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a process and its children have spent so far."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children())]
    return sum(one.user + one.system for one in times)


def _cost(before: dict[str, float], after: dict[str, float], name: str, load: Load) -> float:
    return 1_000 * (after[name] - before[name]) / (load.per_second * (_SECONDS + _WARM_SECONDS))


def _load(url: str, targets: Sequence[str]) -> Load:
    # Every connection of the pool prepares its statements first.
    throughput(url, targets, connections=_CONNECTIONS, seconds=_WARM_SECONDS)
    return throughput(url, targets, connections=_CONNECTIONS, seconds=_SECONDS)


def _figures(measured: Sequence[Repetition]) -> list[Figure]:
    def mid(figure: Callable[[Repetition], float]) -> float:
        return median(figure(one) for one in measured)

    def rate(what: str, load: Callable[[Repetition], Load], least: float | None = None) -> Figure:
        found = mid(lambda one: load(one).per_second)
        wanted = "" if least is None else f"at least {least:,.0f}/s"
        is_met = None if least is None else found >= least
        return Figure(what, f"{found:,.0f}/s", wanted=wanted, is_met=is_met)

    def ratio(
        what: str, figure: Callable[[Repetition], float], wanted: str, limit: float
    ) -> Figure:
        found = mid(figure)
        is_met = found >= limit if wanted == "at least" else found <= limit
        return Figure(what, ratio=found, wanted=f"{wanted} {limit:g}", is_met=is_met)

    def slowest(what: str, load: Callable[[Repetition], Load]) -> Figure:
        found = mid(lambda one: load(one).p95)
        return Figure(f"{what}, p95", f"{1_000 * found:.1f} ms")

    return [
        rate("bare ASGI app, page from memory", lambda one: one.memory),
        rate("bare ASGI app, page from PostgreSQL", lambda one: one.floor),
        rate("result page of 100", lambda one: one.page),
        ratio(
            "page / bare app, from PostgreSQL",
            lambda one: one.page.per_second / one.floor.per_second,
            *("at least", 0.6),
        ),
        ratio(
            "page / bare app, from memory",
            lambda one: one.page.per_second / one.memory.per_second,
            *("at least", 0.6),
        ),
        *(
            Figure(
                f"CPU of one page: {name}", f"{mid(lambda one, name=name: one.costs[name]):.2f} ms"
            )
            for name in measured[0].costs
        ),
        slowest("page at offset 0", lambda one: one.first),
        slowest("page at 90 % of the deals", lambda one: one.last),
        ratio("p95 at 90 % / at 0", lambda one: one.last.p95 / one.first.p95, "at most", 1.2),
        rate(f"status, {_MANY:,} scans stored", lambda one: one.status, 200),
        rate(f"list of 20, {_MANY:,} scans stored", lambda one: one.listing),
        rate(f"statistics, {_MANY:,} scans stored", lambda one: one.statistics),
        slowest(f"list, {_FEW} scans", lambda one: one.few),
        slowest(f"list, {_MANY:,} scans", lambda one: one.many),
        ratio("p95 of many / of few", lambda one: one.many.p95 / one.few.p95, "at most", 2),
    ]


@click.command()
@click.option("--deals", default=1_000_000, show_default=True)
@click.option("--repetitions", default=3, show_default=True)
def main(deals: int, repetitions: int) -> None:
    """Measure how fast the API serves."""
    print_figures("Serving", run(deals, repetitions))


if __name__ == "__main__":
    main()
