"""Who may write a scan: one worker at a time, and nobody whose time is over."""

import queue
import time
from dataclasses import replace

import psycopg
import pytest
from pydantic import SecretStr

from hubspot_deals.contract import ScanStatus
from hubspot_deals.errors import (
    ConfigurationError,
    CredentialError,
    DatabaseLostError,
    LeaseLostError,
    LoadFailedError,
    ScanBusyError,
    ScanNotFoundError,
    ScanSupersededError,
    TransientError,
)
from hubspot_deals.source.arrow import rows_to_arrow
from hubspot_deals.tables import DEALS, TABLES
from hubspot_deals.warehouse import chunks, heartbeats, outcomes
from hubspot_deals.warehouse.audits import audit_tables
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.leases import hold_lease
from hubspot_deals.warehouse.pipeline import ScanPipeline
from tests.conftest import TEST_KEYS, TEST_TOKEN


@pytest.fixture
def take(settings, accept):
    """Takes the lease of an accepted scan."""
    accept()

    def take(run_id="run-1", scan_id="scan-1", launch_epoch=None):
        return hold_lease(settings.database_url, scan_id, run_id, launch_epoch=launch_epoch)

    return take


@pytest.fixture
def load(settings):
    """Loads deals with these ids as one package, without committing its chunk."""

    def load(*ids, first_row=1, session_name="test"):
        rows = [{"id": deal_id, "properties": {"dealname": deal_id}} for deal_id in ids]
        with ScanPipeline(
            settings.database_url, "test_leases", session_name=session_name
        ) as pipeline:
            return pipeline.load(
                {DEALS: [rows_to_arrow(DEALS, rows)]},
                scan_id="scan-1",
                first_rows={"deals": first_row},
            )

    return load


def end_connection(settings, lease):
    """What happens when a worker's machine is gone: its session ends on the server."""
    with psycopg.connect(settings.database_url.get_secret_value()) as admin:
        for session in (lease.heartbeat.connection, lease.connection):
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", (session.info.backend_pid,))


def counted(query):
    return query("SELECT id FROM hubspot_deals_extraction.deals ORDER BY row_no")


def test_two_workers_never_hold_one_scan(take, look_up):
    with take("run-1") as lease:
        assert look_up().status is ScanStatus.RUNNING
        with pytest.raises(ScanBusyError), take("run-2"):
            pass
        assert look_up().run_id == "run-1"
        assert lease.epoch == look_up().epoch == 1
    with take("run-2") as lease:
        assert lease.epoch == 2


def test_two_scans_are_held_side_by_side(take, accept):
    accept("scan-2")
    with take() as first, take(scan_id="scan-2") as second:
        assert first.seq != second.seq


def test_a_worker_whose_connection_ends_has_crashed_and_its_scan_can_be_taken_up(
    take, look_up, settings
):
    with take("run-1") as lost:
        end_connection(settings, lost)
        assert look_up().status is ScanStatus.RESUMING
        with pytest.raises(TransientError):
            lost.report_progress(deals=1, expected=None)
        with take("run-2"):
            assert look_up().status is ScanStatus.RUNNING


@pytest.mark.parametrize("action", ["commit_chunk", "report_progress", "fail", "complete"])
def test_an_old_epoch_writes_nothing(take, look_up, query, settings, action):
    writes = {
        "commit_chunk": lambda lease: chunks.commit_chunk(lease, {"deals": 7}, "load-x"),
        "report_progress": lambda lease: lease.report_progress(deals=7, expected=7),
        "fail": lambda lease: outcomes.fail(lease, "too late"),
        "complete": lambda lease: outcomes.complete(lease, [], {"late": True}),
    }
    with take("run-1") as first:
        end_connection(settings, first)
        with (
            take("run-2"),
            psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as other,
        ):
            before = look_up()
            with pytest.raises(LeaseLostError):
                writes[action](replace(first, connection=other))
            assert look_up() == before
    assert query("SELECT count(*) FROM hubspot_deals.scan_chunks") == [(0,)]


def test_rows_of_a_package_that_never_counted_are_removed_and_never_served(take, load, query):
    with take() as lease:
        chunks.commit_chunk(
            lease, {"deals": 2}, load("1", "2"), checkpoint={"range": 0, "cursor": "c2"}
        )
        load("3", "4", first_row=3)
        assert len(counted(query)) == 4
        assert [deal_id for deal_id, _ in chunks.committed_deals(lease)] == ["1", "2"]
    with take("run-2") as lease:
        chunks.delete_uncounted_rows(lease)
        assert counted(query) == [("1",), ("2",)]
        assert chunks.last_checkpoint(lease, "deals") == (1, 2, {"range": 0, "cursor": "c2"})
        chunks.commit_chunk(lease, {"deals": 1}, load("3", first_row=3))
        late = load("9", first_row=4)
        (count,) = audit_tables(lease, ["deals"])
        assert (count.committed, count.stored, count.last_row, count.is_exact) == (3, 3, 3, True)
        outcomes.complete(lease, [], {})
    assert late
    assert query("SELECT id FROM hubspot_deals.deals ORDER BY row_no") == [("1",), ("2",), ("3",)]
    assert counted(query) == [("1",), ("2",), ("3",)]


def test_a_row_that_is_missing_or_double_is_noticed(take, load):
    with take() as lease:
        chunks.commit_chunk(lease, {"deals": 2}, load("1", "2"))
        chunks.commit_chunk(lease, {"deals": 1}, load("2", first_row=3))
        (count,) = audit_tables(lease, ["deals"])
        assert (count.stored, count.distinct_rows) == (3, 2)
        assert not count.is_exact
        assert all(other.is_exact for other in audit_tables(lease, list(set(TABLES) - {"deals"})))
        lease.connection.execute("DELETE FROM hubspot_deals_extraction.deals WHERE row_no = 3")
        (count,) = audit_tables(lease, ["deals"])
        assert (count.committed, count.stored) == (3, 2)
        assert not count.is_exact
        chunks.start_over(lease)
        assert chunks.last_checkpoint(lease, "deals") == (0, 0, None)


def test_a_launch_of_another_epoch_is_superseded(take):
    with take(launch_epoch=0):
        pass
    with pytest.raises(ScanSupersededError), take(launch_epoch=0):
        pass
    with take(launch_epoch=1) as lease:
        outcomes.fail(lease, "no")
    with pytest.raises(ScanSupersededError), take(launch_epoch=2):
        pass


def test_a_failed_scan_goes_on_in_its_generation_and_a_completed_one_starts_the_next(
    take, load, look_up, query
):
    with take() as lease:
        chunks.commit_chunk(lease, {"deals": 1}, load("1"))
        outcomes.fail(lease, "broken")
    assert look_up().status is ScanStatus.FAILED
    with take() as lease:
        assert (lease.generation, chunks.last_checkpoint(lease, "deals")[:2]) == (1, (1, 1))
        assert look_up().error_message is None
        outcomes.complete(lease, [], {})
    with take() as lease:
        assert (lease.generation, chunks.last_checkpoint(lease, "deals")) == (2, (0, 0, None))
        chunks.commit_chunk(lease, {"deals": 1}, load("2"))
        outcomes.fail(lease, "broken again")
        assert look_up().status is ScanStatus.COMPLETED
        assert query("SELECT id FROM hubspot_deals.deals") == [("1",)]


def test_cancelling_ends_an_unfinished_scan_and_leaves_a_completed_one_served(take, look_up):
    with take("run-1") as lease:
        outcomes.cancel(lease)
    assert look_up().status is ScanStatus.CANCELLED
    with take("run-2") as lease:
        outcomes.complete(lease, [], {"runId": "run-2"})
    with take("run-3") as lease:
        outcomes.cancel(lease)
    scan = look_up()
    assert scan.status is ScanStatus.COMPLETED
    assert scan.metadata["runId"] == "run-2"
    assert scan.metadata["lastRerun"]["runId"] == "run-3"


def test_a_package_that_was_loaded_twice_does_not_count(take, load, query):
    with take() as lease:
        load_id = load("1", "2")
        table = "hubspot_deals_extraction.deals"
        lease.connection.execute(f"INSERT INTO {table} SELECT * FROM {table}")
        with pytest.raises(LoadFailedError, match="4 rows of a package of 2"):
            chunks.commit_chunk(lease, {"deals": 2}, load_id)
        assert chunks.last_checkpoint(lease, "deals") == (0, 0, None)
    with take() as lease:
        chunks.delete_uncounted_rows(lease)
        assert counted(query) == []
        chunks.commit_chunk(lease, {"deals": 2}, load("1", "2"))


def test_the_token_opens_only_in_its_own_row(take, accept, query, settings):
    accept("scan-2", token=SecretStr("other-token-0123456789"))
    keys = KeyRing.parse(TEST_KEYS)
    with take() as lease:
        assert lease.get_token(keys) == TEST_TOKEN
        with psycopg.connect(settings.database_url.get_secret_value()) as admin:
            admin.execute(
                "UPDATE hubspot_deals.credentials c SET ciphertext = o.ciphertext, nonce = o.nonce"
                " FROM hubspot_deals.credentials o"
                " WHERE c.scan_id = 'scan-1' AND o.scan_id = 'scan-2'"
            )
        with pytest.raises(CredentialError, match="does not decrypt"):
            lease.get_token(keys)
        with psycopg.connect(settings.database_url.get_secret_value()) as admin:
            admin.execute("DELETE FROM hubspot_deals.credentials WHERE scan_id = 'scan-1'")
        with pytest.raises(CredentialError, match="Start a new scan"):
            lease.get_token(keys)


def test_a_scan_or_a_database_that_is_not_there_is_said_so(take):
    with pytest.raises(ScanNotFoundError, match="scan-9"), take(scan_id="scan-9"):
        pass
    nowhere = SecretStr("postgresql://someone:canary@127.0.0.1:1/nothing")
    with (
        pytest.raises(ConfigurationError) as raised,
        hold_lease(nowhere, "scan-1", "run-1", launch_epoch=None),
    ):
        pass
    assert "canary" not in str(raised.value)


def test_dlt_writes_nothing_for_an_epoch_that_has_passed(take, load, query):
    with take("run-1") as first:
        name = first.session_name
        load("1", session_name=name)
    loads = query("SELECT load_id FROM hubspot_deals_extraction._dlt_loads")
    with take("run-2") as second:
        chunks.delete_uncounted_rows(second)
        began = time.monotonic()
        with pytest.raises(LoadFailedError, match="has passed"):
            load("2", session_name=name)
        assert time.monotonic() - began < 10
        assert counted(query) == []
        load("2", session_name=second.session_name)
        assert counted(query) == [("2",)]
    after = query("SELECT load_id FROM hubspot_deals_extraction._dlt_loads")
    assert (len(loads), len(after), len(set(loads) & set(after))) == (2, 2, 1), (
        "migrate's own stays"
    )


def test_a_lease_that_is_lost_is_told_within_seconds(take, settings):
    told = queue.Queue()
    with take("run-1") as lease:
        lease.heartbeat.call_when_lost(told.put)
        assert told.empty()
        end_connection(settings, lease)
        assert isinstance(told.get(timeout=5), DatabaseLostError)
    late = []
    lease.heartbeat.call_when_lost(late.append)
    assert isinstance(late[0], DatabaseLostError)


def test_a_worker_beats_while_its_own_statement_takes_long(take, look_up):
    with take("run-1") as lease:
        before = look_up().heartbeat_at
        lease.connection.execute("SELECT pg_sleep(2.5)")
        assert look_up().heartbeat_at > before
        assert look_up().status is ScanStatus.RUNNING


def test_a_worker_that_froze_before_it_had_a_name_is_evicted_all_the_same(take, settings):
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as frozen:
        frozen.execute("SET application_name = 'hubspot_deals_scan'")
        frozen.execute("SELECT pg_advisory_lock(4861, seq) FROM hubspot_deals.scans")
        began = time.monotonic()
        with take("run-2") as lease:
            assert lease.epoch == 1
        assert 10 < time.monotonic() - began < 20


def test_a_rerun_of_a_completed_scan_never_goes_on_from_an_abandoned_rerun(take, load, query):
    with take() as lease:
        outcomes.complete(lease, [], {})
    with take() as lease:
        chunks.commit_chunk(lease, {"deals": 1}, load("1"), checkpoint={"cursor": "JANUARY"})
    with take() as lease:
        chunks.delete_uncounted_rows(lease)
        assert (lease.generation, chunks.last_checkpoint(lease, "deals")) == (3, (0, 0, None))
        assert counted(query) == []


def test_settings_of_the_role_end_no_worker(take, settings):
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as admin:
        admin.execute(
            "ALTER ROLE CURRENT_USER IN DATABASE "
            + admin.info.dbname
            + " SET idle_session_timeout = '300ms'"
        )
    with take() as lease:
        time.sleep(0.6)
        lease.connection.execute("SELECT pg_sleep(0.1)")
        shown = lease.connection.execute("SHOW idle_session_timeout").fetchone()
    assert shown == ("0",)


def test_a_worker_that_freezes_in_a_transaction_gives_its_locks_back(
    take, accept, look_up, monkeypatch
):
    monkeypatch.setattr(heartbeats, "LEASE_SECONDS", 1)

    def freeze(lease):
        with lease.fenced() as cursor:
            cursor.execute("UPDATE hubspot_deals.scans SET outcome = 'failed'")
            # It needs the count of the organization that both scans are of.
            accept("scan-2")
            cursor.execute("SELECT 1")

    with take() as lease, pytest.raises(DatabaseLostError):
        freeze(lease)

    assert look_up("scan-2").status is ScanStatus.PENDING
