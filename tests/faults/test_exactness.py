"""Accounts that are hard to read exactly: ties, HubSpot's 10,000, deals that change meanwhile."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta

import pytest

from hubspot_deals.contract import DateRange, ScanFilters, ScanStatus
from hubspot_sandbox.testing import SandboxControl, SandboxError, SandboxProcess
from tests.conftest import FAST
from tests.faults.report import record
from tests.faults.truth import assert_equal, stored_deals, true_deals
from tests.integration.conftest import (  # noqa: F401
    accept,
    instance,
    look_up,
    query,
    run_job,
)

pytestmark = pytest.mark.faults

WINDOWS = {
    9_999: "createdate",
    10_000: "closedate",
    10_001: "hs_lastmodifieddate",
    25_000: "createdate",
}
FIRST_DAY = date(2040, 1, 1)
SEEDS = (1, 2, 3, 4, 5)
DAY = date(2040, 6, 1)


@pytest.fixture
def scan(accept, run_job, look_up, query):
    """Scans an account and returns what was stored."""

    def scan(account, scan_id, filters):
        accept(scan_id, filters)
        run_job(scan_id, hubspot_url=account.url, chunk_rows=5_000)
        ended = look_up(scan_id)
        assert ended.status is ScanStatus.COMPLETED, ended.error_message
        return stored_deals(query, scan_id)

    return scan


def test_twenty_thousand_deals_of_one_millisecond_are_exact(scan):
    with SandboxProcess(deals=21_000, same_timestamp=20_000, **FAST) as account:
        true = true_deals(account, archived=False)
        moments = [values["hs_lastmodifieddate"] for values in true.values()]
        moment = max(set(moments), key=moments.count)
        assert moments.count(moment) == 20_000
        day = date.fromisoformat(moment[:10])
        began = time.monotonic()
        filters = ScanFilters(date_range=DateRange(day, day, "hs_lastmodifieddate"))
        stored = scan(account, "ties", filters)
        seconds = time.monotonic() - began
    assert_equal(
        stored,
        {
            deal_id: values
            for deal_id, values in true.items()
            if values["hs_lastmodifieddate"].startswith(moment[:10])
        },
    )
    record("20,000 deals changed in one millisecond", f"{len(stored):,} exact in {seconds:.0f} s")


@pytest.fixture(scope="module")
def windows() -> Iterator[SandboxProcess]:
    """An account with a day for each of the windows, of just so many deals."""
    total = sum(WINDOWS)
    with SandboxProcess(deals=total + 500, archived_share=0, **FAST) as account:
        ids = [deal["id"] for deal in account.control.iter_deals(properties=("dealname",))]
        random.Random(0).shuffle(ids)
        for number, (size, name) in enumerate(WINDOWS.items()):
            chosen, ids = ids[:size], ids[size:]
            # From the first millisecond of the day to its last one.
            for part, moment in ((chosen[0::2], "00:00:00.000"), (chosen[1::2], "23:59:59.999")):
                at = f"{day_of(number)}T{moment}Z"
                if name == "hs_lastmodifieddate":
                    account.control.update(part, modified_at=at)
                else:
                    account.control.update(part, {name: at})
        yield account


def day_of(number: int) -> date:
    return FIRST_DAY + timedelta(days=number)


@pytest.mark.parametrize("size", WINDOWS)
def test_a_date_window_of_this_many_deals_is_exact(scan, windows, size):
    name, number = WINDOWS[size], list(WINDOWS).index(size)
    day = day_of(number)
    inside = {
        deal_id: values
        for deal_id, values in true_deals(windows, archived=False).items()
        if (values[name] or "").startswith(str(day))
    }
    assert len(inside) == size
    began = time.monotonic()
    stored = scan(windows, "window", ScanFilters(date_range=DateRange(day, day, name)))
    seconds = time.monotonic() - began
    assert_equal(stored, inside)
    record(f"A date window of {size:,} deals, by {name}", f"exact in {seconds:.0f} s")


@dataclass(slots=True)
class Churn:
    """Changes an account without pause, and notes which deals it touched."""

    control: SandboxControl
    random: random.Random
    live: list[str]
    archived: list[str]
    touched: set[str] = field(default_factory=set)
    changes: int = 0

    def step(self) -> None:
        action = self.random.choice((self._create, self._change, self._archive, self._restore))
        action()
        self.changes += 1
        time.sleep(self.random.uniform(0, 0.004))

    def _some(self, ids: list[str]) -> list[str]:
        chosen = self.random.sample(ids, min(len(ids), self.random.randint(1, 3)))
        self.touched.update(chosen)
        return chosen

    def _create(self) -> None:
        made = self.control.create({"dealname": "made meanwhile"}, count=2)
        self.touched.update(made)
        self.live += made

    def _change(self) -> None:
        moment = f"{DAY + timedelta(days=self.random.randint(-1, 1))}T12:00:00Z"
        changed = {"dealname": "changed meanwhile", "createdate": moment}
        self.control.update(self._some(self.live), changed)

    def _archive(self) -> None:
        chosen = self._some(self.live)
        self.control.archive(chosen)
        self._move(chosen, self.live, self.archived)

    def _restore(self) -> None:
        if chosen := self._some(self.archived):
            self.control.restore(chosen)
            self._move(chosen, self.archived, self.live)

    @staticmethod
    def _move(chosen: list[str], source: list[str], target: list[str]) -> None:
        source[:] = [deal_id for deal_id in source if deal_id not in chosen]
        target += chosen


@contextmanager
def churning(account: SandboxProcess, seed: int, *, spared: int) -> Iterator[Churn]:
    """Let the account change during the block; of every so many deals one is never touched."""
    by_state = [
        [deal["id"] for deal in account.control.deals(archived=archived, properties=("dealname",))]
        for archived in (False, True)
    ]
    live, archived = (
        [deal_id for number, deal_id in enumerate(ids) if number % spared] for ids in by_state
    )
    churn = Churn(account.control, random.Random(seed), live, archived)
    ended = threading.Event()
    faults: list[Exception] = []

    def work() -> None:
        try:
            while not ended.is_set():
                churn.step()
        except (SandboxError, OSError) as error:
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield churn
    finally:
        ended.set()
        thread.join()
    assert faults == []


@pytest.mark.parametrize("archived", [False, True], ids=["live", "with archived"])
@pytest.mark.parametrize("filtered", [False, True], ids=["full", "filtered"])
def test_what_stays_as_it_is_while_others_change_is_never_missed(scan, filtered, archived):
    changes, unchanged = 0, 0
    for seed in SEEDS:
        with SandboxProcess(deals=2_500, latency_ms="15-30", seed=seed, **FAST) as account:
            some = random.Random(seed).sample(
                [deal["id"] for deal in account.control.iter_deals(archived=False)], 1_800
            )
            account.control.update(some, {"createdate": f"{DAY}T08:00:00Z"})
            span = DateRange(DAY, DAY, "createdate") if filtered else None
            filters = ScanFilters(include_archived=archived, date_range=span)
            before = true_deals(account, archived=archived)
            live = set(true_deals(account, archived=False))
            with churning(account, seed, spared=3) as churn:
                stored = scan(account, f"churn-{seed}", filters)
            after = true_deals(account, archived=True)
        still = {
            deal_id: values
            for deal_id, values in before.items()
            if deal_id not in churn.touched
            and (span is None or values["createdate"].startswith(str(DAY)))
        }
        assert_equal({deal_id: stored[deal_id] for deal_id in still if deal_id in stored}, still)
        # Nothing else is there but what was touched, and no archived deal unless asked for.
        assert stored.keys() - still.keys() <= churn.touched & after.keys()
        if not archived:
            assert not (stored.keys() - live) & (set(churn.archived) - churn.touched)
        assert churn.changes >= 30
        assert len(still) > 400
        changes, unchanged = changes + churn.changes, unchanged + len(still)
    record(
        f"Changes during a {'filtered' if filtered else 'full'} scan"
        f"{' with archived deals' if archived else ''}, {len(SEEDS)} times",
        f"{changes:,} changes; none of {unchanged:,} unchanged deals missed, none twice",
    )
