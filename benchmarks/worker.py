"""What a worker costs: one scan end to end, beside a plain loop that reads and COPYs the same.

Run it as `python benchmarks/worker.py`. The sandbox, without limits and latency, and PostgreSQL are
processes of their own; so is every scan and every loop, one at a time and in turns.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import httpx
import psycopg
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figure, at_most, print_figures
from benchmarks.worker_account import PROPERTIES, TOKEN, accept, settings_for
from hubspot_deals.contract import ScanFilters
from hubspot_deals.local.throwaway import throwaway_postgres
from hubspot_deals.warehouse.migrate import migrate
from hubspot_sandbox.testing import SandboxControl, SandboxProcess

_CHILD: Final = Path(__file__).with_name("worker_child.py")
_SHARDS: Final = 8
_SMALL: Final = 100
_MEGABYTE: Final = 1e6
# Out of reach, but reported, so that the governor does not fall back to the common tier's.
_NO_LIMITS: Final = {"burst": 100_000_000, "search_per_second": 100_000, "search_lag_seconds": 0}
_Facts = dict[str, Any]


def run(deals: int = 100_000, many: int = 1_000_000, repetitions: int = 3) -> list[Figure]:
    """Measure scans of three sizes; `many` 0 leaves the big one out."""
    with throwaway_postgres() as server:
        migrate(SecretStr(server.url))
        with account(deals) as url:
            cuts = json.dumps(shard_borders(url))
            pairs = []
            for number in range(repetitions):
                _empty(server.url)
                floor = _child("floor", url, server.url, cuts)
                _empty(server.url)
                pairs.append((floor, _scan(url, server.url, f"mid-{number}")))
        figures = _beside_floor(deals, pairs)
        with account(_SMALL) as url:
            figures.append(_small_scans(url, server.url, 3 * repetitions))
        if many:
            with account(many) as url:
                _empty(server.url)
                scan = _scan(url, server.url, "many")
                figures.append(_cost(many, scan, _page_bytes(url), _stored_bytes(server.url)))
            figures += _beside_smaller(many, scan, deals, [ours for _, ours in pairs])
    return figures


@contextmanager
def account(deals: int) -> Iterator[str]:
    """A sandbox; its URL."""
    with SandboxProcess(deals=deals, archived_share=0, clean_values=True, **_NO_LIMITS) as sandbox:
        yield sandbox.url


def shard_borders(url: str) -> list[int]:
    """Ids that cut the account into equal parts, which the loop reads side by side."""
    truth = SandboxControl(url).iter_deals(archived=False, properties=["hs_object_id"])
    ids = [int(deal["id"]) for deal in truth]
    return [0, *(ids[len(ids) * place // _SHARDS] for place in range(1, _SHARDS)), 2**62]


def _child(*arguments: str) -> Any:
    command = [sys.executable, str(_CHILD), *arguments]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def _scan(url: str, database: str, scan_id: str) -> _Facts:
    accept(settings_for(url, database), scan_id, ScanFilters(PROPERTIES))
    facts: _Facts = _child("scan", url, database, scan_id)
    return facts


def _empty(database: str) -> None:
    """Let every repetition begin with an empty table."""
    with psycopg.connect(database) as connection:
        connection.execute("TRUNCATE hubspot_deals_extraction.deals")


def _mid(facts: list[_Facts], what: str) -> float:
    return median(one[what] for one in facts)


def _beside_floor(deals: int, pairs: list[tuple[_Facts, _Facts]]) -> list[Figure]:
    floors, scans = [floor for floor, _ in pairs], [scan for _, scan in pairs]
    return [
        at_most(
            f"{deals:,} deals x 30 properties, {name}",
            median(scan[key] / floor[key] for floor, scan in pairs),
            4,
            f"{_mid(scans, key):.1f} s",
            f"{_mid(floors, key):.1f} s",
        )
        for key, name in (("wall", "time"), ("cpu", "CPU"))
    ]


def _small_scans(url: str, database: str, count: int) -> Figure:
    scan_ids = [f"small-{number}" for number in range(count)]
    for scan_id in scan_ids:
        accept(settings_for(url, database), scan_id, ScanFilters(PROPERTIES))
    facts = _child("scans", url, database, json.dumps(scan_ids))
    seconds = f"{_mid(facts, 'cpu'):.2f} CPU s, {_mid(facts, 'wall'):.2f} s"
    return Figure(f"{_SMALL} deals, in a fork of a warm process", seconds)


def _page_bytes(url: str) -> int:
    """Of a hundred deals as HubSpot sends them."""
    parameters = {"limit": 100, "properties": ",".join(PROPERTIES)}
    answer = httpx.get(
        f"{url}/crm/v3/objects/deals",
        params=parameters,
        headers={"Authorization": f"Bearer {TOKEN}"},
        trust_env=False,
    )
    return len(answer.raise_for_status().content)


def _stored_bytes(database: str) -> int:
    with psycopg.connect(database) as connection:
        query = "SELECT pg_total_relation_size('hubspot_deals_extraction.deals')"
        (size,) = connection.execute(query).fetchone() or (0,)
    return int(size)


def _cost(deals: int, scan: _Facts, page: int, stored: int) -> Figure:
    read = page / 100 * deals
    return Figure(
        f"{deals:,} deals cost",
        f"{scan['requests']:,} requests, {scan['cpu']:.0f} CPU s, {read / 1e9:.1f} GB read, "
        f"{stored / 1e9:.1f} GB stored with indexes",
    )


def _beside_smaller(many: int, scan: _Facts, deals: int, smaller: list[_Facts]) -> Iterator[Figure]:
    peak, usual = scan["peak"] / _MEGABYTE, _mid(smaller, "peak") / _MEGABYTE
    yield at_most(f"{many:,} deals, peak memory, MB", peak, 350)
    values = f"{peak:.0f} MB", f"{usual:.0f} MB"
    yield at_most(f"peak memory of {many:,} / of {deals:,}", peak / usual, 1.15, *values)
    times = scan["wall"], _mid(smaller, "wall") * many / deals
    values = f"{times[0]:.0f} s", f"{times[1]:.0f} s"
    yield at_most(
        f"time of {many:,} / {many // deals} x {deals:,}", times[0] / times[1], 1.1, *values
    )


@click.command()
@click.option("--deals", default=100_000, show_default=True)
@click.option("--many", default=1_000_000, show_default=True, help="0 leaves the big scan out.")
@click.option("--repetitions", default=3, show_default=True)
def main(deals: int, many: int, repetitions: int) -> None:
    """Measure what a worker costs."""
    print_figures("Worker", run(deals, many, repetitions))


if __name__ == "__main__":
    main()
