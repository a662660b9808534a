"""Every kind of fault of HubSpot at twenty requests of a scan: exact, or failed with the cause.

The twenty are spread evenly over all requests of three scans: everything with archived deals, a
date range, and more properties than an address holds.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from hubspot_deals.contract import DateRange, ScanFilters, ScanStatus
from hubspot_sandbox.testing import SandboxProcess
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

DEALS = 1_500
POSITIONS = 20
SECONDS = 45.0
"""A scan takes one or two, and retries end after 15; the rest is for a busy machine."""
SHAPES = {
    "everything": ScanFilters(include_archived=True),
    "date-range": ScanFilters(date_range=DateRange(field="createdate")),
    "all-properties": ScanFilters(("*",)),
}
EXACT = "exact"
PAGED = ("list", "search", "owners")


def status(number: int, body: str = "html", **headers: str) -> dict[str, Any]:
    return {"type": "status", "status": number, "body": body, "headers": headers}


PASSING = {
    "429 with Retry-After": status(429, "json", **{"Retry-After": "1"}),
    "429 without Retry-After": {"type": "burst_429"},
    "500": status(500, "json"),
    "502": status(502),
    "503": status(503),
    "504": status(504),
    "524 as HTML": status(524),
    "a 401 that passes": status(401, "json"),
    "connection reset": {"type": "reset"},
    "stall": {"type": "stall", "seconds": 60},
    "half of the body": {"type": "cut_body"},
    "cut JSON": {"type": "cut_json"},
    "HTML with status 200": {"type": "html_200"},
    "wrong Content-Length": {"type": "wrong_length"},
    "empty page with a cursor": {"type": "empty_page"},
}
STAYING = {
    "401 from then on": {"type": "expire_token"},
    "403, scope missing": {"type": "missing_scope"},
    "cursor loop": {"type": "cursor_loop"},
}
KINDS = PASSING | STAYING
CAUSES = {
    "401 from then on": "rejected the access token",
    "403, scope missing": "missing scope",
    "cursor loop": "twice",
}
BY_CHANCE = {"403, scope missing", "cursor loop"}
"""Exact, or failed: requests side by side come in another order each time, and not all matter."""


@dataclass(slots=True)
class Case:
    """One fault in one scan: at which of its requests, which are of these kinds."""

    shape: str
    requests: list[str]
    number: int

    @property
    def request(self) -> str:
        return self.requests[self.number]

    def expected(self, kind: str) -> str:
        """Return EXACT, or a part of the message that the scan fails with."""
        if kind == "a 401 that passes" and self.number == 0:
            return CAUSES["401 from then on"]
        return CAUSES.get(kind, EXACT)


@dataclass(slots=True)
class Rig:
    """Runs scans of one account, and checks what they stored."""

    account: SandboxProcess
    accept: Callable[..., Any]
    run_job: Callable[..., Any]
    look_up: Callable[..., Any]
    query: Callable[..., list[Any]]
    true: dict[str, Any]
    slowest: float = field(default=0.0)

    def scan(self, scan_id: str, shape: str) -> None:
        self.accept(scan_id, SHAPES[shape])
        began = time.monotonic()
        self.run_job(
            scan_id,
            hubspot_url=self.account.url,
            request_timeout_seconds=0.7,
            retry_seconds=15,
            chunk_rows=1_500,
        )
        seconds = time.monotonic() - began
        self.slowest = max(self.slowest, seconds)
        assert seconds < SECONDS

    def check(self, scan_id: str, shape: str, expected: str) -> None:
        scan = self.look_up(scan_id)
        if expected == EXACT:
            assert scan.status is ScanStatus.COMPLETED, scan.error_message
            assert_equal(stored_deals(self.query, scan_id), self.true[shape])
        else:
            assert scan.status is ScanStatus.FAILED
            assert expected in scan.error_message
            assert stored_deals(self.query, scan_id) == {}


@pytest.fixture(scope="module")
def account() -> Iterator[SandboxProcess]:
    with SandboxProcess(deals=DEALS, archived_share=0.1, properties=140, owners=250, **FAST) as it:
        yield it


@pytest.fixture(scope="module")
def true(account):
    """What each of the scans must store."""
    dated = {
        deal_id: values
        for deal_id, values in true_deals(account, archived=False).items()
        if values["createdate"]
    }
    return {
        "everything": true_deals(account, archived=True),
        "date-range": dated,
        "all-properties": true_deals(account, archived=False, names=()),
    }


@pytest.fixture(scope="module")
def sequences():
    """The requests of each scan when nothing fails, learned once."""
    return {}


@pytest.fixture
def rig(account, true, accept, run_job, look_up, query):
    account.control.reset()
    yield Rig(account, accept, run_job, look_up, query, true)
    account.control.reset()


@pytest.fixture
def cases(rig, sequences) -> list[Case]:
    """Every request of the three scans without faults."""
    for shape in SHAPES:
        if shape not in sequences:
            rig.account.control.reset()
            rig.scan(f"undisturbed-{shape}", shape)
            rig.check(f"undisturbed-{shape}", shape, EXACT)
            log = rig.account.control.requests(last=2_000)["last"]
            sequences[shape] = [entry["kind"] for entry in log]
    return [
        Case(shape, requests, number)
        for shape, requests in sequences.items()
        for number in range(len(requests))
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_that_meets_this_fault_is_exact_or_names_it(rig, cases, kind):
    is_paged = KINDS[kind]["type"] in {"empty_page", "cursor_loop"}
    fitting = [case for case in cases if case.request in PAGED or not is_paged]
    chosen = [fitting[number * len(fitting) // POSITIONS] for number in range(POSITIONS)]
    exact, struck, rig.slowest, began = 0, 0, 0.0, time.monotonic()
    for place, case in enumerate(chosen):
        rig.account.control.reset()
        times = None if kind == "cursor loop" else 1
        rig.account.control.add_fault(KINDS[kind], after=case.number, times=times)
        scan_id, expected = f"scan-{place}", case.expected(kind)
        rig.scan(scan_id, case.shape)
        is_struck = all(rule["struck"] for rule in rig.account.control.faults())
        scan = rig.look_up(scan_id)
        is_complete = scan.status is ScanStatus.COMPLETED
        if is_complete and kind not in BY_CHANCE:
            assert not scan.metadata["notes"]
        # A scan may need a request less than the one that was counted.
        if not is_struck or (kind in BY_CHANCE and is_complete):
            expected = EXACT
        rig.check(scan_id, case.shape, expected)
        exact += expected == EXACT
        struck += is_struck
    assert struck >= POSITIONS - 2
    assert (exact < POSITIONS) is (kind in STAYING or chosen[0].expected(kind) != EXACT)
    print(f"{kind}: {time.monotonic() - began:.0f} s")
    record(
        f"HubSpot: {kind}, at {POSITIONS} requests of a scan",
        f"{exact} exact, {POSITIONS - exact} failed with the cause; "
        f"slowest scan {rig.slowest:.1f} s",
    )
