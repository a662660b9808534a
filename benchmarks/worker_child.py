"""One measured process of the worker benchmark: a scan as it is, or the floor loop beside it.

Started by `worker.py`. Prints one line of JSON: wall seconds, CPU seconds, peak memory. The clock
runs from before the first request to after the last commit; imports come before it, as they do in a
run that is forked from a warm host.
"""

import asyncio
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import click
import orjson
import psycopg

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.worker_account import COLUMNS, PROPERTIES, TOKEN, settings_for
from hubspot_deals.launcher.warmth import _MODULES as WARM_MODULES
from hubspot_deals.scan import Launch, ScanReport, run_scan

_STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """Bytes of memory that this process held at most; of its own, not its parent's."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


@contextmanager
def measured(facts: dict[str, Any]) -> Iterator[None]:
    """Add wall and CPU seconds of the block, all threads and children included."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    yield
    facts["wall"] = time.perf_counter() - wall
    facts["cpu"] = sum(os.times()[:4]) - cpu
    facts["peak"] = peak_memory()


async def copy_all(url: str, database: str, cuts: list[int]) -> None:
    """Read every deal by shards of the list, and COPY its columns as they come."""
    async with (
        aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        await psycopg.AsyncConnection.connect(database) as connection,
    ):
        lock = asyncio.Lock()
        async with connection.cursor() as cursor:
            names = ", ".join(("scan_id", "row_no", "_dlt_load_id", *COLUMNS))
            statement = f"COPY hubspot_deals_extraction.deals ({names}) FROM STDIN"
            async with cursor.copy(statement) as copy:
                number = iter(range(1, 2**62))

                async def read(first: int, stop: int) -> None:
                    after: str | None = str(first) if first else None
                    while True:
                        params = {"limit": "100", "properties": ",".join(PROPERTIES)}
                        if after:
                            params["after"] = after
                        target = "/crm/v3/objects/deals"
                        async with session.get(target, params=params) as answer:
                            page = orjson.loads(await answer.read())
                        lines = [
                            _line(deal, next(number))
                            for deal in page["results"]
                            if int(deal["id"]) <= stop
                        ]
                        async with lock:
                            await copy.write("".join(lines))
                        after = page.get("paging", {}).get("next", {}).get("after")
                        if after is None or int(after) >= stop:
                            return

                await asyncio.gather(*(read(*pair) for pair in pairwise(cuts)))


def _line(deal: dict[str, Any], number: int) -> str:
    values = deal["properties"]
    cells = [
        "floor",
        str(number),
        "floor",
        deal["id"],
        deal["createdAt"],
        deal["updatedAt"],
        str(deal["archived"]),
        *(values.get(name) for name in COLUMNS[4:-1]),
        orjson.dumps(values).decode(),
    ]
    return "\t".join(_cell(cell) for cell in cells) + "\n"


def _cell(text: str | None) -> str:
    if not text:
        return r"\N"
    if "\\" in text or "\n" in text or "\t" in text or "\r" in text:
        text = text.replace("\\", r"\\").replace("\n", r"\n")
        text = text.replace("\t", r"\t").replace("\r", r"\r")
    return text


def forked(work: Callable[[], object]) -> dict[str, Any]:
    """Do something in a fork of this process, as the run host does."""
    began = time.perf_counter()
    if (pid := os.fork()) == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(status)
    wall = time.perf_counter() - began
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": 1024 * usage.ru_maxrss}


@click.group()
def main() -> None:
    """Measure one thing."""


@main.command()
@click.argument("url")
@click.argument("database")
@click.argument("cuts")
def floor(url: str, database: str, cuts: str) -> None:
    """The plain loop."""
    facts: dict[str, Any] = {}
    with measured(facts):
        asyncio.run(copy_all(url, database, json.loads(cuts)))
    click.echo(json.dumps(facts))


@main.command()
@click.argument("url")
@click.argument("database")
@click.argument("scan_id")
def scan(url: str, database: str, scan_id: str) -> None:
    """One whole scan."""
    facts: dict[str, Any] = {}
    with measured(facts):
        report = _scan(url, database, scan_id)
    click.echo(json.dumps(facts | {"requests": report.requests}))


@main.command()
@click.argument("url")
@click.argument("database")
@click.argument("scan_ids")
def scans(url: str, database: str, scan_ids: str) -> None:
    """Small scans, each in a fork."""
    prepare()
    found = [forked(partial(_scan, url, database, one)) for one in json.loads(scan_ids)]
    click.echo(json.dumps(found))


def prepare() -> None:
    """What the run host has imported."""
    import_module("hubspot_deals.definitions")
    for name in WARM_MODULES:
        import_module(name)


def _scan(url: str, database: str, scan_id: str) -> ScanReport:
    log = logging.getLogger("benchmark")
    return run_scan(
        settings_for(url, database), Launch(scan_id, "run", 0), log=log, is_cancelled=lambda: False
    )


if __name__ == "__main__":
    main()
