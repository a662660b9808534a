"""Run workers that are killed, frozen, or lose their disk: scans go on by themselves, exactly."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil
import pytest

from hubspot_deals.tables import TABLES
from tests.faults.conftest import CHUNK_ROWS, DEALS, Lab, several
from tests.faults.report import record

pytestmark = pytest.mark.faults

AT_A_TIME = 3
POINTS = 20
STEP_POINTS = 5
TRIES = 8


def test_a_killed_worker_costs_at_most_one_chunk_and_nobodys_help(lab: Lab) -> None:
    before = lab.list_pages()

    with several(AT_A_TIME) as pool:
        seconds = list(pool.map(lambda _: kill_once(lab), range(POINTS)))

    again = lab.deals_read_again("killed", before)
    record("worker killed at a random point: scans completed exactly", f"{POINTS} of {POINTS}")
    record("worker killed: seconds until another run works, median", f"{median(seconds):.1f}")
    record("worker killed: seconds until another run works, longest", f"{max(seconds):.1f}")
    record("worker killed: deals read again per kill, mean", f"{again / POINTS:,.0f}")
    assert again / POINTS <= CHUNK_ROWS


def kill_once(lab: Lab) -> float:
    """Kill one scan's worker; return the seconds until the scan went on."""
    scan_id = lab.start_and_wait_inside("killed")
    run_id = lab.status(scan_id)["metadata"].get("runId")
    lab.worker(scan_id).kill()
    waited = lab.goes_on_elsewhere(scan_id, run_id)
    finish(lab, scan_id)
    print(f"{scan_id}: another run after {waited:.1f} s", flush=True)
    return waited


def finish(lab: Lab, scan_id: str) -> None:
    lab.wait_completed(scan_id)
    lab.check_exact(scan_id)
    lab.forget(scan_id)


def is_normalizing(folder: Path) -> bool:
    """Tell whether a package is extracted and not yet normalized."""
    return any(folder.glob("load/new/*"))


def is_loading(folder: Path) -> bool:
    """Tell whether a COPY of a package has begun and the package is not yet complete."""
    return any(folder.glob("load/normalized/*/started_jobs/*"))


@pytest.mark.parametrize("is_there", [is_normalizing, is_loading], ids=["normalize", "load"])
def test_a_worker_killed_inside_a_step_of_dlt_leaves_nothing_behind(
    lab: Lab, is_there: Callable[[Path], bool], request: pytest.FixtureRequest
) -> None:
    step = request.node.callspec.id
    hit = 0
    for _ in range(TRIES * STEP_POINTS):
        scan_id = lab.start(f"in-{step}")
        was_inside = kill_inside(lab, scan_id, is_there)
        finish(lab, scan_id)
        hit += was_inside
        print(f"{scan_id}: {'inside' if was_inside else 'missed'} {step}", flush=True)
        if hit == STEP_POINTS:
            break

    assert hit == STEP_POINTS
    record(f"worker killed inside dlt's {step}: scans completed exactly", f"{hit} of {hit}")


def kill_inside(lab: Lab, scan_id: str, is_there: Callable[[Path], bool]) -> bool:
    """Kill the worker in a step; what its folder shows afterwards says whether it was in it."""
    worker = lab.worker(scan_id)
    time.sleep(random.uniform(0, 0.6 * lab.scan_seconds))
    folders = lab.folders(scan_id)
    deadline = time.monotonic() + 20
    while worker.is_running() and time.monotonic() < deadline:
        if any(map(is_there, folders)):
            worker.kill()
            worker.wait(10)
            return any(map(is_there, folders))
    return False


def test_a_frozen_worker_that_thaws_writes_nothing(lab: Lab) -> None:
    with several(AT_A_TIME) as pool:
        written = list(pool.map(lambda _: freeze_once(lab), range(POINTS)))

    assert sum(written) == 0
    record(
        "worker frozen until another run took over, then thawed: rows that it wrote",
        f"{sum(written)} ({POINTS} of {POINTS} scans completed exactly)",
    )


def freeze_once(lab: Lab) -> int:
    """Freeze a worker, let another one finish the scan, thaw it; return how much it then wrote."""
    scan_id = lab.start_and_wait_inside("frozen")
    run_id = lab.status(scan_id)["metadata"].get("runId")
    folders, worker = lab.folders(scan_id), lab.worker(scan_id)
    worker.send_signal(signal.SIGSTOP)
    try:
        waited = lab.goes_on_elsewhere(scan_id, run_id)
        lab.wait_completed(scan_id)
        packages = packages_in(folders)
        before = rows_of(lab, scan_id, packages)
    finally:
        worker.send_signal(signal.SIGCONT)
    packages |= packages_until_the_end(worker, folders)
    after = rows_of(lab, scan_id, packages)
    lab.check_exact(scan_id)
    lab.forget(scan_id)
    print(f"{scan_id}: another run after {waited:.1f} s, {after - before} rows", flush=True)
    return after - before


def packages_in(folders: list[Path]) -> set[str]:
    """Return the ids of all packages in dlt's working folders, whatever their step."""
    found: set[str] = set()
    for folder in folders:
        for pattern in ("normalize/*/*", "load/*/*"):
            found |= {path.name for path in folder.glob(pattern)}
    return found


def packages_until_the_end(worker: psutil.Process, folders: list[Path]) -> set[str]:
    """Return the packages that a thawed worker still works on, until it has ended."""
    found: set[str] = set()
    deadline = time.monotonic() + 60
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        found |= packages_in(folders)
        assert time.monotonic() < deadline, "a thawed worker goes on and on"
        time.sleep(0.05)
    return found


def rows_of(lab: Lab, scan_id: str, packages: set[str]) -> int:
    """Count the rows of a scan and of a worker's packages, in every table that dlt writes."""
    stored = sum(
        lab.rows(
            f"SELECT count(*) FROM hubspot_deals_extraction.{table} WHERE scan_id = %s", scan_id
        )[0][0]
        for table in TABLES
    )
    loads = lab.rows(
        "SELECT count(*) FROM hubspot_deals_extraction._dlt_loads WHERE load_id = ANY(%s)",
        sorted(packages),
    )
    return int(stored + loads[0][0])


def test_a_worker_whose_disk_is_lost_is_replaced(lab: Lab) -> None:
    scan_id = lab.start_and_wait_inside("disk")
    folders = lab.folders(scan_id)
    lab.worker(scan_id).kill()
    for folder in folders:
        shutil.rmtree(folder.parent)

    finish(lab, scan_id)

    assert folders
    record(f"worker killed and its disk lost, {DEALS:,} deals: scans completed exactly", "1 of 1")
