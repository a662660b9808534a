"""A scan that is started anew, carried out by real Dagster runs beside the result it serves."""

import asyncio

import psycopg
import pytest
from pydantic import SecretStr

from hubspot_deals.contract import LAUNCH_EPOCH_TAG, ScanConfig, ScanFilters, ScanStatus
from hubspot_deals.errors import LeaseLostError, ScanActiveError, ScanExistsError
from hubspot_deals.warehouse.acceptance import create_scan
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.launches import claim_waiting_scans
from hubspot_deals.warehouse.leases import hold_lease
from hubspot_deals.warehouse.results import find_snapshot
from hubspot_sandbox.testing import SandboxProcess
from tests.conftest import FAST, TEST_TOKEN


@pytest.fixture
def on_connection(settings):
    """Runs a coroutine function on a connection of its own."""

    def on_connection(ask):
        async def run():
            async with await psycopg.AsyncConnection.connect(
                settings.database_url.get_secret_value(), autocommit=True
            ) as connection:
                return await ask(connection)

        return asyncio.run(run())

    return on_connection


@pytest.fixture
def restart(settings, on_connection):
    """Starts a scan anew as the REST facade does at its root, and returns the epoch to launch."""

    def restart(scan_id="scan-1", organization="org-1", filters=None, token=TEST_TOKEN):
        config = ScanConfig(scan_id, organization, filters=filters or ScanFilters())
        sealed = KeyRing.parse(settings.encryption_keys).seal(token, bound_to=scan_id)
        accepted = on_connection(
            lambda connection: create_scan(
                connection, config, sealed, request_hash="anew", restarts=True
            )
        )
        assert accepted.is_new
        return accepted.epoch

    return restart


@pytest.fixture
def served(query):
    """Returns what analysts see of the scan's deals, by id."""
    statement = "SELECT id, properties FROM hubspot_deals.deals WHERE scan_id = 'scan-1'"
    return lambda: dict(query(statement))


def test_the_earlier_result_is_served_until_the_new_one_commits(
    accept, restart, run_job, look_up, served, query, on_connection
):
    with SandboxProcess(deals=150, archived_share=0.1, **FAST) as account:
        accept()
        assert run_job(hubspot_url=account.url, tags={LAUNCH_EPOCH_TAG: "0"}).success
        before, first = served(), look_up()
        account.control.create({"dealname": "late"})
        filters = ScanFilters(properties=("dealname",), include_archived=True)

        epoch = restart(filters=filters)

        waiting = look_up()
        assert (waiting.status, waiting.records_extracted) == (ScanStatus.PENDING, 0)
        assert (waiting.started_at, waiting.ended_at) == (None, None)
        assert served() == before
        account.control.add_fault(
            {"type": "status", "status": 401}, match={"kind": "list"}, after=2, times=None
        )
        launched = {LAUNCH_EPOCH_TAG: str(epoch)}
        assert not run_job(hubspot_url=account.url, chunk_rows=100, tags=launched).success
        assert look_up().status is ScanStatus.FAILED
        assert served() == before
        account.control.clear_faults()

        epoch = restart(filters=filters)
        assert run_job(hubspot_url=account.url, tags={LAUNCH_EPOCH_TAG: str(epoch)}).success
        everything = {deal["id"] for deal in account.control.deals()}

    scan, after = look_up(), served()
    assert scan.status is ScanStatus.COMPLETED
    assert after.keys() == everything
    assert all("amount" not in properties for properties in after.values())
    assert scan.records_extracted == len(everything)
    assert scan.started_at > first.ended_at
    assert [attempt["why"] for attempt in scan.attempts] == ["start", "restart", "restart"]
    assert "served" not in scan.metadata
    assert query("SELECT count(*) FROM hubspot_deals_extraction.deals") == [(len(everything),)]
    snapshot = on_connection(lambda connection: find_snapshot(connection, "scan-1"))
    (deals,) = [table for table in snapshot.tables if table.table_name == "deals"]
    assert deals.columns == ["id", "dealname", "archived", "archivedAt"]


def test_a_failed_scan_begins_anew_and_does_not_go_on_from_its_chunks(
    accept, restart, run_job, look_up, served
):
    with SandboxProcess(deals=400, archived_share=0, **FAST) as account:
        accept()
        account.control.add_fault(
            {"type": "status", "status": 401}, match={"kind": "list"}, after=3, times=None
        )
        run_job(hubspot_url=account.url, chunk_rows=100, tags={LAUNCH_EPOCH_TAG: "0"})
        assert look_up().status is ScanStatus.FAILED
        account.control.clear_faults()

        epoch = restart(filters=ScanFilters(properties=("amount",)))

        assert run_job(hubspot_url=account.url, tags={LAUNCH_EPOCH_TAG: str(epoch)}).success
        truth = {deal["id"] for deal in account.control.deals()}
    assert served().keys() == truth
    assert all("dealname" not in properties for properties in served().values())


def test_the_new_attempt_uses_the_new_token(accept, restart, run_job, look_up):
    good = "a-good-token-0123456789"
    with SandboxProcess(deals=10, tokens={good: None}, **FAST) as account:
        accept(token=SecretStr("not-known-0123456789"))
        assert not run_job(hubspot_url=account.url, tags={LAUNCH_EPOCH_TAG: "0"}).success
        assert "rejected the access token" in look_up().error_message

        epoch = restart(token=SecretStr(good))

        assert run_job(hubspot_url=account.url, tags={LAUNCH_EPOCH_TAG: str(epoch)}).success


def test_the_worker_of_the_cancelled_attempt_can_write_nothing(accept, restart, ask, settings):
    accept()
    with hold_lease(settings.database_url, "scan-1", "run-1", launch_epoch=0) as lease:
        with pytest.raises(ScanActiveError, match="status of scan 'scan-1' is running"):
            restart()
        assert ask("cancel")
        epoch = restart()
        with pytest.raises(LeaseLostError):
            lease.report_progress(deals=1, expected=1)
    with hold_lease(settings.database_url, "scan-1", "run-2", launch_epoch=epoch) as lease:
        assert lease.generation == 2
        lease.report_progress(deals=0, expected=1)


def test_a_completed_scan_whose_rerun_by_hand_is_at_work_cannot_begin_anew(
    accept, restart, run_job, settings
):
    accept()
    assert run_job(tags={LAUNCH_EPOCH_TAG: "0"}).success

    with (
        hold_lease(settings.database_url, "scan-1", "by-hand", launch_epoch=None),
        pytest.raises(ScanActiveError),
    ):
        restart()

    assert restart() > 2


def test_a_foreign_scan_is_not_started_anew(accept, restart, ask):
    accept()
    assert ask("cancel")

    with pytest.raises(ScanExistsError):
        restart(organization="org-2")


def test_a_restart_that_nobody_launched_is_launched_by_the_sensor(
    accept, restart, ask, change, settings
):
    accept()
    assert ask("cancel")
    epoch = restart()
    change(
        "UPDATE hubspot_deals.scans SET launch_claimed_until = NULL,"
        " created_at = now() - interval '1 day'"
    )

    (waiting,) = claim_waiting_scans(settings.database_url, limit=5)

    assert (waiting.scan_id, waiting.epoch, waiting.run_id) == ("scan-1", epoch, None)
    assert waiting.waiting_seconds < 60


def test_a_resumed_restart_is_proved_from_its_own_beginning(
    accept, restart, run_job, look_up, query
):
    with SandboxProcess(deals=400, archived_share=0, **FAST) as account:
        accept()
        assert run_job(hubspot_url=account.url, tags={LAUNCH_EPOCH_TAG: "0"}).success
        account.control.add_fault(
            {"type": "status", "status": 401}, match={"kind": "list"}, after=3, times=None
        )
        launched = {LAUNCH_EPOCH_TAG: str(restart())}
        assert not run_job(hubspot_url=account.url, chunk_rows=100, tags=launched).success
        account.control.clear_faults()

        assert run_job(hubspot_url=account.url, chunk_rows=100).success

    attempts = look_up().attempts
    assert [attempt["why"] for attempt in attempts] == ["start", "restart", "rerun"]
    ((began,),) = query("SELECT document ->> 'readingBegan' FROM hubspot_deals.certificates")
    assert began == attempts[1]["startedAt"]
