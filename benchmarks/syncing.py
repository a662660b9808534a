"""What keeping a big account current costs: requests and seconds of one sync, PostgreSQL included.

Run it as `python benchmarks/syncing.py`, six minutes. The tables of a connection are filled as its
first load would leave them; a sandbox of a million deals with HubSpot's latency and limits lives
for an hour, then `run_sync` brings them up to date. The reference is the requests of a full scan.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import click
import psycopg
from psycopg.types.json import Jsonb
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figure, at_most, print_figures
from hubspot_deals.local.throwaway import throwaway_postgres
from hubspot_deals.syncing.reports import SyncReport
from hubspot_deals.tables import CORE_PROPERTIES
from hubspot_deals.warehouse.migrate import migrate
from hubspot_sandbox.life import RATES
from hubspot_sandbox.testing import SandboxProcess
from tests.syncs.harness import ORGANIZATION, SyncedAccount, synced

_HOUR: Final = 3_600
_LAG: Final = 30
_SETTLED: Final = 100 * 24 * _HOUR
"""Longer than anything stays in the bin: it is small, unless it is filled on purpose."""
_QUIET: Final = dict.fromkeys(RATES, 0.0)
_CHANGES: Final = {"update": 60.0, "stage": 20.0, "create": 20.0}
_MIXES: Final[Mapping[str, Mapping[str, float]]] = {
    "changes alone": {},
    "with archived and merged deals": {"archive": 3, "merge": 2},
}
_MOST_REQUESTS: Final = 30
_MOST_SECONDS: Final = 10.0
_LIST_PAGE: Final = 100
_FILL: Final = f"""
    INSERT INTO hubspot_deals_current.deals_current (organization_id, connection_id, id, dealname,
        amount, properties, noticed_at, values_as_of, associations_as_of, stages_as_of)
    SELECT '{ORGANIZATION}', 'main', id, 'Deal ' || id, 1000, %s::jsonb
        || jsonb_build_object('dealname', 'Deal ' || id), now(), now(), now(), now()
    FROM filled ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Sync:
    """One sync, with all its seconds, and the CPU seconds of its worker."""

    report: SyncReport
    seconds: float
    cpu: float


def fill(account: SyncedAccount) -> int:
    """Leave the tables as a first load of the account would; return how many deals there are."""
    sandbox, database = account.sandbox, account.database
    database.execute("CREATE TEMP TABLE filled (id text)")
    with database.cursor() as cursor, cursor.copy("COPY filled FROM STDIN") as copy:
        for deal in sandbox.control.iter_deals(archived=False, properties=["hs_object_id"]):
            copy.write_row((deal["id"],))
    same = {name: f"{name} as most have it" for name in list(CORE_PROPERTIES)[:20]}
    count: int = database.execute(_FILL, (Jsonb(same),)).rowcount
    now = sandbox.control.state()["now_ms"] / 1_000
    database.execute(
        "UPDATE hubspot_deals.connections SET cursor = to_timestamp(%(now)s),"
        " reconciled_at = to_timestamp(%(now)s), refreshed_at = to_timestamp(%(now)s)",
        {"now": now},
    )
    database.execute("VACUUM ANALYZE hubspot_deals_current.deals_current")
    return count


def live_and_sync(account: SyncedAccount, mix: Mapping[str, float], seed: int) -> Sync:
    account.sandbox.control.live_on(_HOUR, seed=seed, rates={**_QUIET, **_CHANGES, **mix})
    account.sandbox.control.advance(_LAG + 1)
    began, cpu = time.perf_counter(), time.process_time()
    report = account.sync()
    sync = Sync(report, time.perf_counter() - began, time.process_time() - cpu)
    click.echo(f"{report.requests} requests, {sync.seconds:.1f} s", err=True)
    return sync


def run(deals: int = 1_000_000, repetitions: int = 3) -> list[Figure]:
    """Measure each kind of hour so often; the medians, and the most requests of any."""
    with (
        throwaway_postgres() as server,
        SandboxProcess(
            deals=deals, seed=5, latency_ms="150-400", tier="pro", search_lag_seconds=_LAG
        ) as sandbox,
    ):
        with psycopg.connect(server.admin_url, autocommit=True) as admin:
            admin.execute("CREATE DATABASE syncing OWNER hubspot_deals")
        url = server.url.replace("/hubspot_deals?", "/syncing?")
        migrate(SecretStr(url))
        sandbox.control.advance(_SETTLED)
        sandbox.control.live_on(1, seed=0, rates=_QUIET)
        with synced(url, sandbox, searches_per_second=5) as account:
            full = fill(account) // _LIST_PAGE
            account.choose(properties=None)
            return _measure(account, repetitions, full)


def _measure(account: SyncedAccount, repetitions: int, full: int) -> list[Figure]:
    figures, control = [], account.sandbox.control
    for name, mix in _MIXES.items():
        syncs = [live_and_sync(account, mix, seed) for seed in range(repetitions)]
        figures += _figures(name, syncs, full)
    syncs = []
    for number in range(repetitions):
        ids = account.rows(
            "SELECT id FROM hubspot_deals_current.deals_current ORDER BY id OFFSET %s LIMIT 1",
            full * _LIST_PAGE // 3,
        )
        control.delete([ids[0]["id"]])
        # What was left open is found by the next one.
        syncs += [
            live_and_sync(account, {}, 2 * number),
            live_and_sync(account, {}, 2 * number + 1),
        ]
    figures += _figures("one deal deleted for good", syncs, full)
    left = sum(one.report.unlocated for one in syncs[1::2])
    figures.append(
        Figure("deals left open after the second sync", str(left), "", None, "0", left == 0)
    )
    account.choose(properties=None, refresh_hours=240)
    sync = live_and_sync(account, {}, 100)
    refreshed = sync.report
    figures.append(
        Figure(
            "beside it, a refresh of deals that show no change",
            f"{refreshed.refresh_requests:,} requests, {sync.seconds:.0f} s",
            f"{refreshed.refreshed:,} deals",
        )
    )
    return figures


def _figures(name: str, syncs: Sequence[Sync], full: int) -> list[Figure]:
    reports = [one.report for one in syncs]
    most, seconds = max(one.requests for one in reports), median(one.seconds for one in syncs)
    changed = median(one.counts["deals_current"].rows for one in reports)
    cpu = median(one.cpu for one in syncs)
    return [
        at_most(
            f"{name}: requests, of {_MOST_REQUESTS}",
            most / _MOST_REQUESTS,
            1.0,
            str(most),
            f"{full:,} of a full scan",
        ),
        at_most(
            f"{name}: seconds, of {_MOST_SECONDS:.0f}",
            seconds / _MOST_SECONDS,
            1.0,
            f"{seconds:.1f} s, {cpu:.2f} s of CPU",
            f"{changed:.0f} changed deals",
        ),
    ]


@click.command()
@click.option("--deals", default=1_000_000, help="Live deals of the account.")
@click.option("--repetitions", default=3, help="Syncs of each kind.")
def main(deals: int, repetitions: int) -> None:
    """Measure what a sync costs."""
    print_figures(f"A sync of {deals:,} deals", run(deals, repetitions))


if __name__ == "__main__":
    main()
