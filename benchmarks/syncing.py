"""What keeping a big account current costs: requests, seconds and CPU seconds of one sync.

Run it as `python benchmarks/syncing.py`, three minutes. A sandbox of a million deals with HubSpot's
latency and limits lives for an hour; then everything that a sync asks is asked. The reference is
the requests of a full scan of the same account, counted without latency.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import click
from pydantic import SecretStr
from pyroaring import BitMap64

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figure, at_most, print_figures
from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.associations import read_associations
from hubspot_deals.source.batches import MERGED_PROPERTY, merged_ids
from hubspot_deals.source.changes import open_changes
from hubspot_deals.source.client import ConnectionOptions
from hubspot_deals.source.fates import End, find_fates
from hubspot_deals.source.identities import (
    Stretch,
    find_difference,
    list_ids,
    read_archived,
)
from hubspot_deals.source.stage_history import read_stage_history
from hubspot_sandbox.life import RATES
from hubspot_sandbox.testing import GOOD_TOKEN, SandboxProcess

_PROPERTIES: Final = ("dealname", "amount", "dealstage", "pipeline", "closedate", MERGED_PROPERTY)
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


@dataclass(frozen=True, slots=True)
class Sync:
    """One sync: what it cost, and how many deals it has left to be found."""

    changed: int
    requests: int
    seconds: float
    cpu: float
    unlocated: int
    suspects: Sequence[Stretch]


@contextmanager
def account_of(sandbox: SandboxProcess, **options: float) -> Iterator[HubSpotAccount]:
    """An account as a worker opens it."""
    chosen = ConnectionOptions(base_url=sandbox.url, **options)  # type: ignore[arg-type]
    with HubSpotAccount(SecretStr(GOOD_TOKEN), chosen) as account:
        account.check_access()
        yield account


def sync(
    sandbox: SandboxProcess, known: BitMap64, since: datetime, suspects: Sequence[Stretch]
) -> Sync:
    """Ask everything that a sync asks; `known` is kept current."""
    began, cpu = time.perf_counter(), time.process_time()
    with account_of(sandbox) as account, ThreadPoolExecutor(1) as beside:
        changed, removed = [], BitMap64()
        with open_changes(account, since, _PROPERTIES) as stream:
            for page in stream.pages:
                changed += [str(deal["id"]) for deal in page.deals]
                removed.update(int(one) for deal in page.deals for one in merged_ids(deal))
        details = beside.submit(_read_details, account, changed)
        known.update(map(int, changed))
        passed = account.ask(partial(read_archived, properties=_PROPERTIES, most_pages=2))
        removed.update(int(deal["id"]) for deal in passed.deals)
        removed &= known
        known -= removed
        found = account.ask(
            partial(find_difference, known=known, removed=removed, suspects=suspects)
        )
        ids = [str(number) for number in found.missing | found.extra]
        for fate in account.ask(partial(find_fates, ids=ids, properties=_PROPERTIES)):
            (known.add if fate.end is End.LIVE else known.discard)(int(fate.deal_id))
        details.result()
        requests = account.counts.requests
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Sync(len(changed), requests, seconds, cpu, found.unlocated, found.suspects)


def _read_details(account: HubSpotAccount, changed: Sequence[str]) -> None:
    """What is read of changed deals, and around them."""
    account.ask(partial(read_associations, deal_ids=changed))
    account.ask(partial(read_stage_history, deal_ids=changed))
    account.fetch_owners()
    account.fetch_pipelines()


def run(deals: int = 1_000_000, repetitions: int = 3) -> list[Figure]:
    """Measure each kind of hour so often; the medians, and the most requests of any."""
    full, known = _read_fully(deals)
    figures = []
    sandbox = SandboxProcess(
        deals=deals, seed=5, latency_ms="150-400", tier="pro", search_lag_seconds=_LAG
    )
    with sandbox:
        sandbox.control.advance(_SETTLED)
        sandbox.control.live_on(1, seed=0, rates=_QUIET)
        for name, mix in _MIXES.items():
            syncs = [_live_and_sync(sandbox, known, mix, seed) for seed in range(repetitions)]
            figures += _figures(name, syncs, full)
        syncs = []
        for _ in range(repetitions):
            [deal] = known[len(known) // 3 :][:1]
            sandbox.control.delete([str(deal)])
            syncs.append(_live_and_sync(sandbox, known, {}, len(syncs)))
            # What was left open is found by the next one.
            left = syncs[-1].suspects
            syncs.append(_live_and_sync(sandbox, known, {}, len(syncs), left))
        figures += _figures("one deal deleted for good", syncs, full)
        left = sum(one.unlocated for one in syncs[1::2])
        figures.append(
            Figure("deals left open after the second sync", str(left), "", None, "0", left == 0)
        )
    return figures


def _live_and_sync(
    sandbox: SandboxProcess,
    known: BitMap64,
    mix: Mapping[str, float],
    seed: int,
    suspects: Sequence[Stretch] = (),
) -> Sync:
    with account_of(sandbox) as account:
        since = account.now()
    sandbox.control.live_on(_HOUR, seed=seed, rates={**_QUIET, **_CHANGES, **mix})
    sandbox.control.advance(_LAG + 1)
    return sync(sandbox, known, since, suspects)


def _read_fully(deals: int) -> tuple[int, BitMap64]:
    """The requests of a full reading, and the ids."""
    with (
        SandboxProcess(deals=deals, seed=5, burst=10**6, search_per_second=10**4) as sandbox,
        account_of(sandbox, searches_per_second=10**4) as account,
    ):
        ids = list_ids(account)
        return account.counts.requests, ids


def _figures(name: str, syncs: Sequence[Sync], full: int) -> list[Figure]:
    most, seconds = max(one.requests for one in syncs), median(one.seconds for one in syncs)
    changed = f"{median(one.changed for one in syncs):.0f} changed deals"
    cpu = f"{median(one.cpu for one in syncs):.2f} s of CPU"
    reference = f"{full:,} of a full scan"
    return [
        at_most(
            f"{name}: requests, of {_MOST_REQUESTS}",
            most / _MOST_REQUESTS,
            1.0,
            str(most),
            reference,
        ),
        at_most(
            f"{name}: seconds, of {_MOST_SECONDS:.0f}",
            seconds / _MOST_SECONDS,
            1.0,
            f"{seconds:.1f} s, {cpu}",
            changed,
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
