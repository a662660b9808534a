"""Processes of the stack that are killed or stopped during scans, and many callers at once."""

import signal
import time

import httpx
import psutil
import pytest

from tests.faults.conftest import Lab, several
from tests.faults.report import record

pytestmark = pytest.mark.faults

POINTS = 5
STARTS = 100
REPEATS = 50
DOWN_SECONDS = 60
# About a hundred deals of the account's three years.
FEW = {"dateRange": {"startDate": "2024-03-01", "endDate": "2024-03-01"}}
SLOW_SECONDS = 900


@pytest.mark.parametrize(
    ("name", "how", "what"),
    [
        ("run_host", signal.SIGKILL, "run host killed"),
        ("code_server", signal.SIGKILL, "code server killed"),
        ("daemon", signal.SIGKILL, "Dagster's daemon killed"),
        ("webserver", signal.SIGKILL, "Dagster's webserver killed"),
        ("api", signal.SIGKILL, "REST API killed"),
        ("postgres", signal.SIGINT, "PostgreSQL restarted (fast)"),
        ("postgres", signal.SIGQUIT, "PostgreSQL shut down immediately and restarted"),
        ("postgres", signal.SIGKILL, "PostgreSQL killed"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else value.name,
)
def test_a_scan_survives_a_part_of_the_stack(
    lab: Lab, name: str, how: signal.Signals, what: str
) -> None:
    for point in range(POINTS):
        lab.spare(name)
        scan_id = lab.start_and_wait_inside(f"{name}-{how.name}")
        began = time.monotonic()
        lab.kill(name, how)
        restarted = time.monotonic() - began
        lab.wait_completed(scan_id)
        lab.check_exact(scan_id)
        lab.forget(scan_id)
        print(
            f"{what}, {point + 1} of {POINTS}: another process after {restarted:.1f} s, "
            f"completed after {time.monotonic() - began:.1f} s",
            flush=True,
        )

    record(f"{what} during a scan: scans completed exactly", f"{POINTS} of {POINTS}")


def test_scans_that_were_accepted_without_dagster_run_in_their_order(lab: Lab) -> None:
    supervisor = psutil.Process(lab.stack.process.pid)
    parts = ("webserver", "daemon", "code_server", "run_host")
    pids = {name: lab.stack.pids[name] for name in parts}
    # A supervisor that sleeps starts nothing again.
    supervisor.suspend()
    try:
        for name in parts:
            psutil.Process(pids[name]).kill()
        ends = time.monotonic() + DOWN_SECONDS
        scans = [lab.start("waiting", **FEW) for _ in range(STARTS)]
        print(f"accepted {STARTS} scans, {ends - time.monotonic():.0f} s left", flush=True)
        time.sleep(max(0.0, ends - time.monotonic()))
    finally:
        supervisor.resume()
    for name in parts:
        lab.wait_restarted(name, pids[name])
    for scan_id in scans:
        lab.wait(scan_id, lambda data: data["status"] == "completed", SLOW_SECONDS)

    created = [
        scan_id
        for (scan_id,) in lab.rows(
            "SELECT t.value FROM dagster.runs r JOIN dagster.run_tags t"
            " ON t.run_id = r.run_id AND t.key = 'dagster/partition'"
            " WHERE t.value = ANY(%s) ORDER BY r.id",
            scans,
        )
    ]
    assert created == scans
    record("starts accepted while Dagster was down for a minute, then run in order", f"{STARTS}")


def test_of_many_starts_of_one_id_one_is_accepted(lab: Lab) -> None:
    body = lab.body(lab.new_id("same"), **FEW)

    with several(STARTS) as pool:
        codes = list(pool.map(lambda _: lab.post(body).status_code, range(STARTS)))

    assert sorted(codes) == [202] + [409] * (STARTS - 1)
    lab.wait_completed(body["config"]["scanId"])
    record(f"{STARTS} starts of one scan id at once: accepted, refused", f"1, {STARTS - 1}")


def test_repeated_starts_with_one_idempotency_key_are_one_scan(lab: Lab) -> None:
    body, key = lab.body(lab.new_id("repeated"), **FEW), lab.new_id("key")

    def start(_: int) -> httpx.Response:
        return lab.post(body, **{"Idempotency-Key": key})

    with several(REPEATS) as pool:
        answers = list(pool.map(start, range(REPEATS)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    scan_id = body["config"]["scanId"]
    lab.wait_completed(scan_id)
    assert lab.rows(
        "SELECT count(*) FROM dagster.run_tags WHERE key = 'dagster/partition' AND value = %s",
        scan_id,
    ) == [(1,)]
    record(f"{REPEATS} identical starts with one Idempotency-Key: scans", "1")
