"""How fast deals are read at HubSpot's real limits, beside what those limits allow.

Run it as `python benchmarks/reading.py`. The sandbox enforces 190 requests in any ten seconds and
five searches in each second, and answers lists in 150 to 400 ms, searches in 200 to 600 ms. Nearly
all of the time is spent waiting for its budgets, so the machine's own speed matters little. It
takes about eight minutes.

The rate of a reading is that of its steady state: from the moment at which a tenth of the deals has
come to the moment at which nine tenths have. Scans that run together are measured from the first
start to the last end, beside the ideal time: the deals of all of them at 2,900 a second.
Whether no deal is missing or comes twice is checked.
"""

import base64
import multiprocessing
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

import click
from pydantic import HttpUrl, SecretStr

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figure, at_least, at_most, print_figures
from hubspot_deals.contract import DateRange, ScanFilters
from hubspot_deals.settings import PipelineSettings
from hubspot_sandbox.testing import GOOD_TOKEN, SandboxControl, SandboxProcess

LIST_RATE, SEARCH_RATE = 1_900, 1_000
"""Deals a second that HubSpot's budgets allow: 19 pages of 100, and 5 of 200."""
LIMITS: Final = {"tier": "pro", "latency_ms": "150-400", "archived_share": 0}
PROPERTIES: Final = ("dealname", "amount", "dealstage", "pipeline", "closedate", "createdate")
ALL_DAYS: Final = DateRange(date(2020, 1, 1), date(2030, 12, 31))
SECONDS_TO_IMPORT: Final = 180


@dataclass(frozen=True, slots=True)
class Reading:
    """One scan, or several: how fast, in all and in the middle, and how often it was refused."""

    deals_per_second: float
    steady: float
    refusals: int
    fairness: float = 1.0


def steady_rate(marks: Sequence[tuple[float, int]]) -> float:
    """Return deals a second between a tenth and nine tenths of `(seconds, deals so far)`."""
    total = marks[-1][1]
    (begin, first), (end, last) = (
        next(mark for mark in marks if mark[1] >= total * part) for part in (0.1, 0.9)
    )
    return (last - first) / (end - begin)


def refusals(control: SandboxControl) -> int:
    """Return how many requests the sandbox has answered with 429."""
    by_kind = control.requests(last=1)["by_kind"].values()
    return sum(statuses.get("429", 0) for statuses in by_kind)


def read_deals(deals: int, filters: ScanFilters, *, by_search: bool = True) -> Reading:
    """Read an account and drop its pages."""
    from hubspot_deals.source.account import HubSpotAccount  # noqa: PLC0415 - heavy
    from hubspot_deals.source.client import ConnectionOptions  # noqa: PLC0415
    from hubspot_deals.source.plan import build_plan  # noqa: PLC0415

    ids: set[int] = set()
    marks, count = [(0.0, 0)], 0
    with SandboxProcess(deals=deals, **LIMITS) as sandbox:
        if not by_search:
            # As for an app whose searches a proxy or HubSpot itself does not let through.
            sandbox.control.add_fault(
                {"type": "status", "status": 403}, match={"kind": "search"}, times=None
            )
        options = ConnectionOptions(base_url=sandbox.url)
        with HubSpotAccount(SecretStr(GOOD_TOKEN), options) as account:
            account.check_access()
            began = time.monotonic()
            with account.open_deals(build_plan(filters), PROPERTIES) as stream:
                for page in stream.pages:
                    ids.update(int(deal["id"]) for deal in page.deals)
                    count += len(page.deals)
                    marks.append((time.monotonic() - began, count))
            seconds = time.monotonic() - began
        check_exact(count, len(ids), deals)
        return Reading(deals / seconds, steady_rate(marks), refusals(sandbox.control))


def check_exact(*counts: int) -> None:
    """Raise ValueError unless all counts are the same: a fast reader that loses deals is none."""
    if len(set(counts)) != 1:
        msg = f"deals are missing or came twice: {counts}"
        raise ValueError(msg)


def run_scans(deals: int, scans: int) -> Reading:
    """Carry out full scans of one account, each in a process of its own, into PostgreSQL."""
    from hubspot_deals.local.throwaway import throwaway_postgres  # noqa: PLC0415 - heavy
    from hubspot_deals.warehouse.migrate import migrate  # noqa: PLC0415

    spawning = multiprocessing.get_context("spawn")
    with throwaway_postgres() as server, SandboxProcess(deals=deals, **LIMITS) as sandbox:
        settings = PipelineSettings(
            database_url=SecretStr(server.url),
            encryption_keys=SecretStr("k:" + base64.b64encode(secrets.token_bytes(32)).decode()),
            hubspot_url=HttpUrl(sandbox.url),
        )
        migrate(settings.database_url)
        barrier = spawning.Barrier(scans)
        with ProcessPoolExecutor(scans, spawning, _get_ready, (barrier,)) as workers:
            names = [f"scan-{number}" for number in range(scans)]
            times = list(workers.map(_carry_out, [settings] * scans, names))
        began, ended = min(begin for begin, _ in times), max(end for _, end in times)
        marks = committed_deals(settings)
        check_exact(marks[-1][1], deals * scans)
        took = [end - began for _, end in times]
        return Reading(
            deals * scans / (ended - began),
            steady_rate(marks),
            refusals(sandbox.control),
            min(took) / max(took),
        )


def committed_deals(settings: PipelineSettings) -> list[tuple[float, int]]:
    """Return how many deals were committed at which second."""
    import psycopg  # noqa: PLC0415

    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        rows = connection.execute(
            "SELECT extract(epoch FROM committed_at)::float8,"
            " sum(row_count) OVER (ORDER BY committed_at)::bigint"
            " FROM hubspot_deals.scan_chunks WHERE table_name = 'deals' ORDER BY committed_at"
        ).fetchall()
    return [(seconds, deals) for seconds, deals in rows]


_start: Barrier


def _get_ready(barrier: Barrier) -> None:
    """Import everything before the clock starts, as warm workers have."""
    import hubspot_deals.scan  # noqa: F401, PLC0415

    global _start  # noqa: PLW0603 - what a worker process is given
    _start = barrier


def _carry_out(settings: PipelineSettings, scan_id: str) -> tuple[float, float]:
    """Accept a scan and carry it out; return when it began and when it ended."""
    import logging  # noqa: PLC0415

    from benchmarks.worker_account import accept  # noqa: PLC0415
    from hubspot_deals.scan import Launch, run_scan  # noqa: PLC0415

    accept(settings, scan_id, ScanFilters())
    _start.wait(SECONDS_TO_IMPORT)
    began = time.time()
    run_scan(
        settings,
        Launch(scan_id, f"run-of-{scan_id}", None),
        log=logging.getLogger(__name__),
        is_cancelled=lambda: False,
    )
    return began, time.time()


def run(
    repetitions: int = 1, deals: int = 100_000, together: int = 70_000, scans: int = 8
) -> list[Figure]:
    """Measure; one figure for each promise. `together` deals for each of several `scans`."""
    both = LIST_RATE + SEARCH_RATE
    kinds: list[tuple[str, Callable[[], Reading], int, float]] = [
        ("full scan, pages dropped", lambda: read_deals(deals, ScanFilters()), both, 0.9),
        (
            "full scan, searches refused",
            lambda: read_deals(deals, ScanFilters(), by_search=False),
            *(LIST_RATE, 0.95),
        ),
        (
            "scan of a date range",
            lambda: read_deals(deals, ScanFilters(date_range=ALL_DAYS)),
            *(SEARCH_RATE, 0.95),
        ),
        ("full scan into PostgreSQL", lambda: run_scans(deals, 1), both, 0.9),
    ]
    figures = []
    for what, measure, allowed, wanted in kinds:
        readings = [measure() for _ in range(repetitions)]
        rate = statistics.median(reading.steady for reading in readings)
        whole = statistics.median(reading.deals_per_second for reading in readings)
        figures += [
            at_least(
                f"{what}: {deals:,} deals, steady",
                rate / allowed,
                wanted,
                f"{rate:,.0f}/s",
                f"{allowed:,}/s",
            ),
            Figure(
                f"{what}: from start to end", f"{whole:,.0f}/s", f"{allowed:,}/s", whole / allowed
            ),
            no_refusals(what, readings),
        ]
    return figures + run_together(together, scans) if scans else figures


def run_together(deals: int, scans: int) -> list[Figure]:
    """Measure scans of one account that run at the same time, once."""
    reading, ideal = run_scans(deals, scans), scans * deals / (LIST_RATE + SEARCH_RATE)
    seconds = scans * deals / reading.deals_per_second
    what = f"{scans} scans of one account together"
    return [
        at_most(
            f"{what}: {deals:,} deals each",
            seconds / ideal,
            1.1,
            f"{seconds:.1f} s",
            f"{ideal:.1f} s",
        ),
        at_least(f"{what}: first end / last end", reading.fairness, 0.9),
        no_refusals(what, [reading]),
    ]


def no_refusals(what: str, readings: Sequence[Reading]) -> Figure:
    """Report the 429s, of which there should be none."""
    count = sum(reading.refusals for reading in readings)
    return Figure(f"{what}: 429s", str(count), wanted="0", is_met=count == 0)


@click.command()
@click.option("--repetitions", default=1, show_default=True)
@click.option("--deals", default=100_000, show_default=True)
@click.option("--together", default=70_000, show_default=True, help="Deals when scans share them.")
@click.option("--scans", default=8, show_default=True, help="How many share an account; 0 none.")
def main(repetitions: int, deals: int, together: int, scans: int) -> None:
    """Measure how fast deals are read at HubSpot's limits."""
    print_figures("Reading", run(repetitions, deals, together, scans))


if __name__ == "__main__":
    main()
