"""What callers ask for, often and at once: cancelled against completed, paused again and again."""

import statistics
import time

import psycopg
import pytest

from hubspot_deals.contract import LAUNCH_EPOCH_TAG, ScanStatus
from hubspot_sandbox.testing import SandboxProcess
from tests.conftest import FAST
from tests.faults.report import record
from tests.integration.conftest import (  # noqa: F401 - fixtures
    accept,
    ask,
    change,
    definitions,
    instance,
    look_up,
    query,
    run_job,
)
from tests.integration.test_removal import (  # noqa: F401 - fixtures
    delete_rows,
    mark,
    on_connection,
    remove_while_reading,
)
from tests.integration.test_scan_control import start, stored_ids, wait_until  # noqa: F401
from tests.integration.test_transitions import race, take  # noqa: F401

pytestmark = pytest.mark.faults

ROUNDS = 1_000
CYCLES = 50
PAUSED_DEALS = 20_000
BIG = 1_000_000


def test_a_thousand_races_of_cancel_against_completion_have_one_winner_each(
    accept, take, ask, look_up
):
    finished = race(accept, take, ask, look_up, wanted="cancel", rounds=ROUNDS)
    record(
        f"{ROUNDS:,} races of cancel against completion",
        f"one winner each: {finished} completed, {ROUNDS - finished} cancelled and stayed so",
    )


def test_fifty_pauses_of_one_scan_lose_and_double_nothing(
    accept, start, ask, look_up, query, settings
):
    accept()
    waits, read_after = [], 0
    with SandboxProcess(
        deals=PAUSED_DEALS, archived_share=0, **(FAST | {"latency_ms": 20})
    ) as account:
        for _ in range(CYCLES):
            thread, _ = start(account, **{LAUNCH_EPOCH_TAG: str(look_up().epoch)})
            before = look_up().records_extracted
            wait_until(lambda before=before: look_up().records_extracted > before, 60)
            began = time.monotonic()
            assert ask("pause")
            kept = look_up().records_extracted
            thread.join(60)
            waits.append(time.monotonic() - began)
            read_after += look_up().records_extracted - kept
            assert look_up().status is ScanStatus.PAUSED
            assert ask("resume")
        thread, ended = start(account, **{LAUNCH_EPOCH_TAG: str(look_up().epoch)})
        thread.join(300)
        assert ended[0].success
        truth = sorted(int(deal["id"]) for deal in account.control.deals(archived=False))
    assert stored_ids(query) == truth
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        ((largest,),) = connection.execute("SELECT max(row_count) FROM hubspot_deals.scan_chunks")
    record(
        f"{CYCLES} pauses and resumptions of one scan of {PAUSED_DEALS:,} deals",
        f"exact; {read_after} deals committed after a pause (chunk: up to {largest}), "
        f"worker ended after {statistics.median(waits):.1f} s in the median",
    )
    assert read_after == 0


def test_readers_never_wait_a_second_while_a_million_deals_are_removed(
    accept, settings, mark, delete_rows, query
):
    longest, seconds = remove_while_reading(accept, settings, mark, delete_rows, query, rows=BIG)
    record(
        f"A scan of {BIG:,} deals is removed while another one is read",
        f"longest read {longest:.2f} s; all rows gone after {seconds:.0f} s",
    )
    assert longest < 1.0
