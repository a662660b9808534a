"""A year of an account, synchronized hourly, then daily: after each run the copy is the account.

Run it as `make year`, half an hour. It ends with an error as soon as anything is wrong, and writes
what it has counted into docs/sync-year.md.
"""

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import psycopg
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).parents[2]))

from hubspot_deals.local.throwaway import throwaway_postgres
from hubspot_deals.source.endpoints import ASSOCIATED
from hubspot_deals.warehouse.migrate import migrate
from hubspot_sandbox.life import RATES
from hubspot_sandbox.testing import SandboxProcess
from tests.syncs.harness import SyncedAccount, synced
from tests.unit.living_account import wrong_ends
from tests.unit.memory_warehouse import CALCULATED, PROPERTIES, STORED

HOUR: Final = 3_600
LAG: Final = 30
SAMPLE: Final = 500
BEFORE: Final = 300 * 24 * HOUR
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "sync-year.md"
ABOUT: Final = """# A year of syncs

Written by `make year`. A simulated account lives on while its connection is synchronized, hourly
and then daily. After each sync, which begins at once while the search index still lags, every live
deal is compared with the account by id and value, apart from those that were touched in the seconds
of the lag; every tombstone with how the deal ended; calculated values and associations of 500 deals
that the sync has read; and the log of changes is applied to the copy of before, which has to give
the one of now.

"""
QUICK: Final = {"search_lag_seconds": LAG, "burst": 1_000_000, "search_per_second": 10_000}


@dataclass
class Figures:
    """What was counted of one kind of syncs."""

    events: Counter[str] = field(default_factory=Counter)
    tombstones: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    requests: list[int] = field(default_factory=list)
    refreshes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    faults: int = 0
    open_deals: int = 0
    unproved: int = 0
    changes: int = 0
    checked: int = 0


class Year:
    """One account and its copy."""

    def __init__(self, account: SyncedAccount) -> None:
        self.account = account
        self.control = account.sandbox.control
        self.log: dict[str, Any] = {}
        self.reached = 0

    def begin(self) -> Any:
        report = self.account.sync()
        assert not self.account.faults()
        self.log = self.account.copy().deals
        return report

    def go_on(self, seconds: float, seed: int, figures: Figures) -> None:
        """Live, synchronize at once, and compare with the account of half a minute ago."""
        figures.events += Counter(self.control.live_on(seconds, seed=seed))
        now = self.control.state()["now_ms"]
        young = self.control.touched_since(now - (LAG + 1) * 1_000)
        report = self.account.sync()
        figures.tombstones += report.tombstones
        figures.kinds[report.kind.value] += 1
        figures.requests.append(report.requests - report.refresh_requests)
        figures.refreshes.append(report.refresh_requests)
        figures.seconds.append(report.seconds)
        figures.unproved += not report.is_proved
        figures.open_deals += report.unlocated
        copy = self.account.copy()
        truth = {
            deal["id"]: deal["properties"]
            for deal in self.control.iter_deals(archived=False, properties=PROPERTIES)
        }
        faults = self._faults(copy, truth, young) + self._faults_of_the_rest(copy, truth)
        figures.faults += len(faults)
        figures.checked += len(truth.keys() - young)
        before = self.reached
        self.reached = self.account.replay(self.log, before)
        faults += unlike(copy.deals, self.log)
        [row] = self.account.rows(
            "SELECT count(*) AS n FROM hubspot_deals_current.deal_changes WHERE seq > %s", before
        )
        figures.changes += row["n"]
        print(seed, report.kind, report.requests, f"{report.seconds:.1f} s", faults, flush=True)
        assert not faults

    def _faults(self, copy: Any, truth: Any, young: set[str]) -> list[str]:
        """Compare ids, values and reasons, apart from deals that may be on their way."""
        wrong = [f"{one} is missing" for one in truth.keys() - copy.deals.keys() - young]
        wrong += [f"{one} is too much" for one in copy.deals.keys() - truth.keys() - young]
        wrong += [
            f"{one} has {name} {copy.deals[one][name]!r}"
            for one in truth.keys() & copy.deals.keys() - young
            if copy.deals[one] != truth[one]
            for name in STORED
            if copy.deals[one][name] != truth[one][name]
        ]
        wrong += [f"{one} is live and gone" for one in copy.deals.keys() & copy.tombstones.keys()]
        wrong += [str(end) for end in wrong_ends(copy, self.account.sandbox, ignored=young)]
        gone = self.log.keys() - copy.deals.keys() - copy.tombstones.keys()
        return wrong + [f"{one} has no tombstone" for one in gone]

    def _faults_of_the_rest(self, copy: Any, truth: Any) -> list[str]:
        """Compare what changes without a sign, of some deals that were read in this run."""
        ids = [
            row["id"]
            for row in self.account.rows(
                "SELECT d.id FROM hubspot_deals_current.deals_current d"
                " WHERE values_as_of = (SELECT max(values_as_of)"
                "  FROM hubspot_deals_current.deals_current)"
                " ORDER BY hashtext(id) LIMIT %s",
                SAMPLE,
            )
        ]
        wrong = [
            f"{one} has {name} {copy.deals[one][name]!r}"
            for one in ids
            for name in CALCULATED
            if one in truth and copy.deals[one][name] != truth[one][name]
        ]
        rows = self.account.rows(
            "SELECT deal_id, object_type, object_id FROM hubspot_deals_current.deal_associations"
            " WHERE deal_id = ANY(%s)",
            ids,
        )
        for kind in ASSOCIATED:
            found: dict[str, list[int]] = {one: [] for one in ids}
            for row in rows:
                if row["object_type"] == kind:
                    found[row["deal_id"]].append(int(row["object_id"]))
            right = self.control.associations(ids, kind)
            wrong += [f"{one} has other {kind}" for one in ids if sorted(found[one]) != right[one]]
        return wrong


def unlike(deals: dict[str, Any], replayed: dict[str, Any]) -> list[str]:
    """Compare the copy with what its log of changes leads to."""
    wrong = [f"{one} is not as logged" for one in deals.keys() ^ replayed.keys()]
    for one in deals.keys() & replayed.keys():
        logged = replayed[one]
        if logged is not None and logged != deals[one]:
            names = deals[one].keys() | logged.keys()
            if any(deals[one].get(name) != logged.get(name) for name in names):
                wrong.append(f"{one} has other values than logged")
    return wrong


def run(deals: int, hourly: int, daily: int) -> tuple[Any, dict[str, Figures]]:
    """Live and synchronize so often; raises AssertionError as soon as the copy is wrong."""
    kinds = {"hourly": Figures(), "daily": Figures()}
    with (
        throwaway_postgres() as server,
        SandboxProcess(deals=deals, seed=7, **QUICK) as sandbox,
    ):
        with psycopg.connect(server.admin_url, autocommit=True) as admin:
            admin.execute("CREATE DATABASE year OWNER hubspot_deals")
        url = server.url.replace("/hubspot_deals?", "/year?")
        migrate(SecretStr(url))
        rates = {name: rate / 10 for name, rate in RATES.items()}
        for part in range(100):
            sandbox.control.live_on(BEFORE / 100, seed=10_000 + part, rates=rates)
        with synced(url, sandbox) as account:
            account.choose(refresh_hours=24, reconcile_hours=168)
            year = Year(account)
            first = year.begin()
            for number in range(hourly):
                year.go_on(HOUR, number, kinds["hourly"])
            account.choose(refresh_hours=168, reconcile_hours=168)
            for number in range(daily):
                year.go_on(24 * HOUR, hourly + number, kinds["daily"])
    return first, kinds


def table(deals: int, first: Any, kinds: dict[str, Figures], minutes: float) -> str:
    lines = [
        f"An account of {deals:,} deals, search lag {LAG} s, all in {minutes:.0f} minutes.",
        f"First load {first.requests:,} requests, {first.seconds:.0f} s.",
        "",
        f"| | {' | '.join(name for name, one in kinds.items() if one.requests)} |",
        "|---" * (1 + sum(bool(one.requests) for one in kinds.values())) + "|",
    ]
    columns = [one for one in kinds.values() if one.requests]

    def row(name: str, values: list[str]) -> None:
        lines.append(f"| {name} | {' | '.join(values)} |")

    row("syncs, each compared by id and value", [str(len(one.requests)) for one in columns])
    row("events of the account", [f"{one.events.total():,}" for one in columns])
    for name in sorted({name for one in columns for name in one.events}):
        row(f"&nbsp; {name}", [f"{one.events[name]:,}" for one in columns])
    row("deals compared", [f"{one.checked:,}" for one in columns])
    row("missed, doubled or wrong", [str(one.faults) for one in columns])
    row("left to be found by a later sync", [str(one.open_deals) for one in columns])
    row("syncs without a proof", [str(one.unproved) for one in columns])
    row("rows of `deal_changes`", [f"{one.changes:,}" for one in columns])
    for name in ("archived", "merged", "deleted"):
        row(f"new tombstones: {name}", [f"{one.tombstones[name]:,}" for one in columns])
    row(
        "of the syncs, reconciliations",
        [str(one.kinds["reconciliation"]) for one in columns],
    )
    row(
        "requests, median and most",
        [f"{median(one.requests):.0f}, {max(one.requests):,}" for one in columns],
    )
    row(
        "requests of the refresh, median",
        [f"{median(one.refreshes):.0f}" for one in columns],
    )
    row(
        "seconds, median and most",
        [f"{median(one.seconds):.1f}, {max(one.seconds):.1f}" for one in columns],
    )
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--deals", default=50_000)
@click.option("--hourly", default=100)
@click.option("--daily", default=60)
@click.option("--write", is_flag=True, help="Write docs/sync-year.md.")
def main(deals: int, hourly: int, daily: int, *, write: bool) -> None:
    began = time.monotonic()
    first, kinds = run(deals, hourly, daily)
    text = table(deals, first, kinds, (time.monotonic() - began) / 60)
    print(text)
    if write:
        DOCUMENT.write_text(ABOUT + text)


if __name__ == "__main__":
    main()
