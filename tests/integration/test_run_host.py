"""Runs that are forked from a real run host: carried out, found again, interrupted, reported."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.launcher import WorkerStatus
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import SubmitRunContext

from hubspot_deals.contract import (
    ACCOUNT_TAG,
    CODE_LOCATION,
    JOB_NAME,
    ORGANIZATION_TAG,
    SCANS_PARTITIONS,
)
from hubspot_deals.launcher import channel
from hubspot_deals.launcher.channel import RunHostRefusedError
from hubspot_deals.launcher.folder import LauncherFolder
from hubspot_deals.launcher.warmth import recon_job
from hubspot_deals.local.environment import dagster_storage_url
from hubspot_sandbox.testing import SandboxControl
from tests.conftest import TEST_KEYS

ROOT = Path(__file__).parents[2]
SECONDS = 60
SHORT_WAIT = "class: WarmForkRunLauncher\n  config: {wait_seconds: 1}"
YAML = (ROOT / "dagster_home" / "dagster.yaml").read_text()


@pytest.fixture
def home(tmp_path, database_url, sandbox, monkeypatch):
    """A Dagster home with the project's configuration, in this process's environment."""
    (tmp_path / "dagster.yaml").write_text(YAML)
    values = {
        "DAGSTER_HOME": str(tmp_path),
        "HUBSPOT_DEALS_DATABASE_URL": database_url,
        "HUBSPOT_DEALS_DAGSTER_STORAGE_URL": dagster_storage_url(database_url),
        "HUBSPOT_DEALS_ENCRYPTION_KEYS": TEST_KEYS.get_secret_value(),
        "HUBSPOT_DEALS_HUBSPOT_URL": sandbox.url,
        "PYTHONPATH": str(ROOT),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def folder(home):
    return LauncherFolder.below(home)


@pytest.fixture
def start_host(home, folder):
    """Starts run hosts, and ends what is left of them."""
    hosts = []

    def start():
        with (home / "host.log").open("a") as log:
            host = subprocess.Popen(
                [sys.executable, "-m", "hubspot_deals.launcher"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        hosts.append(host)
        wait_until(lambda: channel.is_ready(folder), host, home)
        return host

    yield start
    for host in hosts:
        host.terminate()
        host.wait(SECONDS)
    for run_id in folder.run_ids():
        if pid := folder.find_worker(run_id):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def instance(home):
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def create_run(instance):
    """Writes a run down as the code server would have described it."""

    def create_run(scan_id, **facts):
        job = recon_job()
        tags = {"dagster/partition": scan_id} | facts.pop("tags", {})
        return instance.create_run_for_job(
            job.get_definition(),
            tags=tags,
            job_code_origin=job.get_python_origin(),
            remote_job_origin=RemoteJobOrigin(
                RemoteRepositoryOrigin(
                    GrpcServerCodeLocationOrigin("127.0.0.1", 4000, location_name=CODE_LOCATION),
                    "__repository__",
                ),
                JOB_NAME,
            ),
            **facts,
        )

    return create_run


@pytest.fixture
def launch(instance, accept, create_run):
    """Accepts a scan, and launches its run without a queue."""

    def launch(scan_id="scan-1"):
        accept(scan_id)
        instance.add_dynamic_partitions(SCANS_PARTITIONS, [scan_id])
        run = create_run(scan_id)
        assert run.job_name == JOB_NAME
        return instance.launch_run(run.run_id, None).run_id

    return launch


@pytest.fixture
def stalled(sandbox):
    """Reading stops at the second page of deals, until the test is over."""
    control = SandboxControl(sandbox.url)
    stall = {"type": "stall", "seconds": 20}
    control.add_fault(stall, match={"kind": "list", "query_contains": "after"}, times=None)
    yield lambda: any(rule["struck"] for rule in control.faults())
    control.clear_faults()


def wait_until(condition, host=None, home=None):
    deadline = time.monotonic() + SECONDS
    while not condition():
        log = (home / "host.log").read_text() if home else ""
        assert host is None or host.poll() is None, log
        assert time.monotonic() < deadline, log
        time.sleep(0.05)


def status_of(instance, run_id):
    return instance.get_run_by_id(run_id).status


def test_a_forked_run_carries_its_scan_out(start_host, instance, launch, look_up, folder):
    host = start_host()

    run_id = launch()
    wait_until(lambda: instance.get_run_by_id(run_id).is_finished)

    assert status_of(instance, run_id) is dg.DagsterRunStatus.SUCCESS
    assert look_up().outcome == "completed"
    # What it printed is where Dagster's UI looks for it.
    (key,) = {
        tuple(event.dagster_event.logs_captured_data.external_url or ())
        or (run_id, "compute_logs", event.dagster_event.logs_captured_data.file_key)
        for event in instance.all_logs(run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED)
    }
    captured = instance.compute_log_manager.get_log_data(list(key))
    assert b"token accepted by portal" in captured.stderr
    assert instance.compute_log_manager.is_capture_complete(list(key))
    wait_until(lambda: not list(folder.run_ids()))
    assert psutil.Process(host.pid).num_threads() == 1


def test_asking_twice_starts_one_worker(start_host, instance, launch, stalled, folder):
    host = start_host()
    run_id = launch()
    first = folder.find_worker(run_id)

    assert channel.ask(folder, "launch", run_id) == {"pid": first}
    assert [child.pid for child in psutil.Process(host.pid).children()] == [first]


def test_a_run_outlives_its_host_and_is_found_by_the_next_one(
    start_host, instance, launch, stalled, folder, look_up
):
    host = start_host()
    run_id = launch()
    wait_until(stalled)
    launcher = instance.run_launcher
    host.kill()
    host.wait(SECONDS)

    run = instance.get_run_by_id(run_id)
    assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING

    start_host()
    assert launcher.terminate(run_id)
    wait_until(lambda: instance.get_run_by_id(run_id).is_finished)
    assert status_of(instance, run_id) is dg.DagsterRunStatus.CANCELED
    assert look_up().outcome == "cancelled"
    # The worker's last word comes a moment before its end.
    lost = WorkerStatus.NOT_FOUND
    wait_until(lambda: launcher.check_run_worker_health(run).status is lost)


def test_a_killed_worker_is_reported_at_once(start_host, instance, launch, stalled, folder):
    start_host()
    run_id = launch()
    wait_until(stalled)

    os.kill(folder.find_worker(run_id), signal.SIGKILL)

    wait_until(lambda: instance.get_run_by_id(run_id).is_finished)
    assert status_of(instance, run_id) is dg.DagsterRunStatus.FAILURE
    said = [entry.message for entry in instance.all_logs(run_id)]
    assert any("was killed by signal 9" in message for message in said)


def test_a_worker_that_dies_without_a_host_is_reported_by_the_next_one(
    start_host, instance, launch, stalled, folder
):
    host = start_host()
    run_id = launch()
    wait_until(stalled)
    pid = folder.find_worker(run_id)
    host.kill()
    host.wait(SECONDS)
    os.kill(pid, signal.SIGKILL)

    start_host()

    wait_until(lambda: instance.get_run_by_id(run_id).is_finished)
    assert status_of(instance, run_id) is dg.DagsterRunStatus.FAILURE


def test_a_host_that_is_stopped_interrupts_its_runs_and_their_scans_go_on_later(
    start_host, instance, launch, stalled, folder, look_up
):
    host = start_host()
    run_id = launch()
    wait_until(stalled)

    host.terminate()

    assert host.wait(SECONDS) == 0
    assert not folder.is_alive(run_id)
    assert instance.get_run_by_id(run_id).is_finished
    assert look_up().outcome is None


@pytest.mark.parametrize("tag", [ORGANIZATION_TAG, ACCOUNT_TAG])
def test_a_run_past_the_limit_of_its_organization_or_account_is_queued(
    start_host, instance, create_run, tag
):
    start_host()
    runs = yaml.safe_load(YAML)["concurrency"]["runs"]
    (limit,) = [rule["limit"] for rule in runs["tag_concurrency_limits"] if rule["key"] == tag]
    for number in range(limit):
        create_run(f"busy-{number}", tags={tag: "busy"}, status=dg.DagsterRunStatus.STARTED)

    submitted = {
        name: instance.run_coordinator.submit_run(
            SubmitRunContext(create_run(f"one-more-{name}", tags={tag: name}), None)
        )
        # The queue is empty when the first one comes, and not any more when the last one does.
        for name in ("idle", "busy", "late")
    }

    assert {name: run.status for name, run in submitted.items()} == {
        "idle": dg.DagsterRunStatus.STARTING,
        "busy": dg.DagsterRunStatus.QUEUED,
        "late": dg.DagsterRunStatus.QUEUED,
    }


def test_a_second_host_is_refused(start_host, home, folder):
    host = start_host()

    second = subprocess.run(
        [sys.executable, "-m", "hubspot_deals.launcher"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert second.returncode != 0
    assert "already running" in second.stderr
    assert channel.ask(folder, "ping", "") == {"pid": host.pid}


def test_nonsense_is_refused_and_the_host_goes_on(start_host, folder):
    host = start_host()

    with pytest.raises(RunHostRefusedError, match="unknown action"):
        channel.ask(folder, "dance", "1")
    with pytest.raises(RunHostRefusedError, match="not a run id"):
        channel.ask(folder, "launch", "../../etc")

    assert channel.ask(folder, "ping", "") == {"pid": host.pid}


def test_without_a_host_the_code_server_is_asked(home, request, folder):
    short = YAML.replace("class: WarmForkRunLauncher", SHORT_WAIT)
    (home / "dagster.yaml").write_text(short)
    folder.create()
    launch, instance = (request.getfixturevalue(name) for name in ("launch", "instance"))
    assert not instance.run_launcher.is_prompt()
    # Which needs a workspace, that this test has not: so it is seen to be asked.
    with pytest.raises(dg.DagsterInvariantViolationError, match="requires a workspace"):
        launch()


def test_a_launch_waits_for_a_host_that_is_being_started(instance, launch, start_host):
    run_ids = []
    start_host().kill()
    asking = threading.Thread(target=lambda: run_ids.append(launch()))
    asking.start()
    start_host()
    asking.join(SECONDS)

    wait_until(lambda: instance.get_run_by_id(run_ids[0]).is_finished)
    assert status_of(instance, run_ids[0]) is dg.DagsterRunStatus.SUCCESS
