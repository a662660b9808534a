"""Removing scans: hidden at once, deleted in batches, gone from Dagster as well."""

import asyncio
import threading
import time

import psycopg
import pytest

from hubspot_deals.contract import ScanStatus
from hubspot_deals.errors import ResultsRemovedError, ScanExistsError, ScanNotFoundError
from hubspot_deals.tables import TABLES
from hubspot_deals.warehouse import removal
from hubspot_deals.warehouse.acceptance import create_scan
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.leases import hold_lease
from tests.conftest import TEST_TOKEN


@pytest.fixture
def on_connection(settings):
    """Awaits a function of a connection."""

    def on_connection(function, *arguments, **options):
        async def connected():
            async with await psycopg.AsyncConnection.connect(
                settings.database_url.get_secret_value(), autocommit=True
            ) as connection:
                return await function(connection, *arguments, **options)

        return asyncio.run(connected())

    return on_connection


@pytest.fixture
def mark(on_connection):
    return lambda scan_id="scan-1": on_connection(removal.mark_scan_for_removal, scan_id)


@pytest.fixture
def delete_rows(settings):
    def delete_rows(marked, seconds=30.0):
        return removal.remove_marked_rows(settings.database_url, marked.seq, seconds=seconds)

    return delete_rows


def left(query, scan_id):
    """What any table still has of a scan."""
    tables = [f"hubspot_deals_extraction.{name}" for name in TABLES]
    tables += [f"hubspot_deals.{name}" for name in ("scan_chunks", "scan_tables", "credentials")]
    found = {}
    for table in tables:
        ((count,),) = query(f"SELECT count(*) FROM {table} WHERE scan_id = %s", scan_id)
        if count:
            found[table] = count
    return found


def test_a_removed_scan_leaves_nothing_and_its_id_can_be_used_again(
    accept, run_job, mark, delete_rows, look_up, query, tick_removal, instance
):
    accept()
    accept("other")
    assert run_job().success
    assert run_job("other").success
    loads = query("SELECT count(*) FROM hubspot_deals_extraction._dlt_loads")
    marked = mark()
    assert marked.records >= 1_000
    with pytest.raises(ScanNotFoundError):
        look_up()
    assert query("SELECT count(*) FROM hubspot_deals.deals WHERE scan_id = 'scan-1'") == [(0,)]
    assert left(query, "scan-1")
    assert delete_rows(marked)
    assert left(query, "scan-1") == {}
    assert query("SELECT scan_id FROM hubspot_deals.scans") == [("other",)]
    ((after,),) = query("SELECT count(*) FROM hubspot_deals_extraction._dlt_loads")
    assert 0 < after < loads[0][0]
    assert query("SELECT count(*) FROM hubspot_deals.deals WHERE scan_id = 'other'") == [(1_000,)]
    tick_removal()
    assert [run.tags["dagster/partition"] for run in instance.get_runs()] == ["other"]
    assert instance.get_dynamic_partitions("scans") == ["other"]
    accept()
    assert run_job().success
    assert look_up().status is ScanStatus.COMPLETED
    tick_removal()
    assert sorted(instance.get_dynamic_partitions("scans")) == ["other", "scan-1"]


def test_the_key_and_the_runs_of_a_new_scan_of_the_same_id_stay(
    accept, run_job, mark, delete_rows, tick_removal, instance
):
    accept()
    assert run_job().success
    old = instance.get_runs()[0].run_id
    assert delete_rows(mark())
    accept()
    assert run_job().success
    tick_removal()
    assert instance.get_run_by_id(old) is None
    assert len(instance.get_runs()) == 1
    assert instance.get_dynamic_partitions("scans") == ["scan-1"]


def test_a_removal_that_was_cut_off_is_finished_by_the_sensor(
    accept, run_job, mark, delete_rows, query, tick_removal, settings
):
    accept()
    assert run_job().success
    marked = mark()
    assert not delete_rows(marked, seconds=0.0)
    tick_removal()
    assert query("SELECT count(*) FROM hubspot_deals.scans") == [(1,)]
    with psycopg.connect(settings.database_url.get_secret_value()) as admin:
        admin.execute("UPDATE hubspot_deals.scans SET removal_claimed_until = now()")
    tick_removal()
    assert query("SELECT count(*) FROM hubspot_deals.scans") == [(0,)]
    assert left(query, "scan-1") == {}


def test_cleaning_up_keeps_the_scan_without_its_results(
    accept, run_job, on_connection, delete_rows, look_up, query, settings
):
    for scan_id in ("old", "young", "waiting"):
        accept(scan_id)
    assert run_job("old").success
    assert run_job("young").success
    with psycopg.connect(settings.database_url.get_secret_value()) as admin:
        admin.execute(
            "UPDATE hubspot_deals.scans SET created_at = now() - interval '8 days',"
            " ended_at = CASE WHEN scan_id = 'old' THEN now() - interval '8 days' ELSE ended_at END"
        )
    (marked,) = on_connection(removal.mark_old_scans, days_old=7)
    assert marked.scan_id == "old"
    assert query("SELECT DISTINCT scan_id FROM hubspot_deals.deals") == [("young",)]
    assert on_connection(removal.mark_old_scans, days_old=7) == []
    assert delete_rows(marked)
    scan = look_up("old")
    assert scan.status is ScanStatus.COMPLETED
    assert scan.results_removed_at is not None
    assert scan.records_extracted == 1_000
    assert left(query, "old") == {}
    with (
        pytest.raises(ResultsRemovedError),
        hold_lease(settings.database_url, "old", "rerun", launch_epoch=None),
    ):
        pass
    (purged,) = on_connection(removal.mark_old_scans, days_old=7, purge=True)
    assert delete_rows(purged)
    assert query("SELECT count(*) FROM hubspot_deals.scans WHERE scan_id = 'old'") == [(0,)]


def test_a_crashed_scan_that_is_cleaned_up_has_failed_and_can_be_removed(
    accept, settings, on_connection, delete_rows, look_up, change, mark
):
    accept()
    with hold_lease(settings.database_url, "scan-1", "run-1", launch_epoch=0):
        pass
    change(
        "UPDATE hubspot_deals.scans SET auto_resume_limit = 0,"
        " heartbeat_at = now() - interval '8 days', created_at = now() - interval '8 days'"
    )
    assert look_up().status is ScanStatus.CRASHED
    (marked,) = on_connection(removal.mark_old_scans, days_old=7)
    assert delete_rows(marked)
    scan = look_up()
    assert scan.status is ScanStatus.FAILED
    assert "removed" in scan.error_message
    assert delete_rows(mark())
    with pytest.raises(ScanNotFoundError):
        look_up()


def test_a_scan_that_is_being_rerun_is_not_cleaned_up(
    accept, run_job, settings, on_connection, change
):
    accept()
    assert run_job().success
    change("UPDATE hubspot_deals.scans SET ended_at = now() - interval '8 days'")
    with hold_lease(settings.database_url, "scan-1", "rerun", launch_epoch=None):
        assert on_connection(removal.mark_old_scans, days_old=7) == []
    assert len(on_connection(removal.mark_old_scans, days_old=7)) == 1


def test_a_repeated_start_of_a_scan_that_is_being_removed_is_no_replay(
    accept, settings, on_connection, change, mark
):
    config = accept()
    change(
        "UPDATE hubspot_deals.scans"
        " SET idempotency_key = 'key', outcome = 'failed', ended_at = now()"
    )
    mark()
    token = KeyRing.parse(settings.encryption_keys).seal(TEST_TOKEN, bound_to="scan-1")
    with pytest.raises(ScanExistsError):
        on_connection(create_scan, config, token, request_hash="-", idempotency_key="key")


def test_one_removal_that_cannot_be_finished_stops_no_other(
    accept, run_job, mark, tick_removal, query, change, postgres, settings
):
    for scan_id in ("a", "b"):
        accept(scan_id)
        assert run_job(scan_id).success
        mark(scan_id)
    change("UPDATE hubspot_deals.scans SET removal_claimed_until = now()")
    name = "hubspot_deals_scan_1_epoch_0"
    url = postgres.admin_url.replace("/postgres?", f"/{database_of(settings)}?")
    with psycopg.connect(url, application_name=name, autocommit=True):
        # A session of a role that ours may not end.
        tick_removal()
    assert query("SELECT scan_id FROM hubspot_deals.scans") == [("a",)]


def database_of(settings):
    return psycopg.conninfo.conninfo_to_dict(settings.database_url.get_secret_value())["dbname"]


def test_logs_that_cannot_be_deleted_are_tried_again(
    accept, run_job, mark, delete_rows, tick_removal, instance
):
    accept()
    run_id = run_job().run_id
    assert delete_rows(mark())
    logs = instance.compute_log_manager
    calls = []

    class Failing(type(logs)):
        def delete_logs(self, *, prefix):
            calls.append(prefix)
            if len(calls) == 1:
                raise OSError

    logs.__class__ = Failing
    tick_removal()
    assert instance.get_run_by_id(run_id) is not None
    tick_removal()
    assert instance.get_run_by_id(run_id) is None
    assert calls == [[run_id], [run_id]]


def test_retention_is_off_until_days_are_set(
    accept, run_job, tick_removal, look_up, query, settings
):
    accept()
    assert run_job().success
    with psycopg.connect(settings.database_url.get_secret_value()) as admin:
        admin.execute("UPDATE hubspot_deals.scans SET ended_at = now() - interval '31 days'")
    tick_removal()
    assert look_up().results_removed_at is None
    tick_removal(retention_days=30)
    assert look_up().results_removed_at is not None
    with psycopg.connect(settings.database_url.get_secret_value()) as admin:
        admin.execute("UPDATE hubspot_deals.scans SET removal_claimed_until = now()")
    tick_removal(retention_days=30)
    assert left(query, "scan-1") == {}


def test_old_entries_of_the_audit_log_are_deleted_by_the_same_sensor(tick_removal, change, query):
    change(
        "INSERT INTO hubspot_deals.audit_log (at, actor, action, outcome)"
        " SELECT now() - make_interval(days => n), 'a', 'b', 'done' FROM unnest(%s::int[]) n",
        [10, 400],
    )

    for days, left_over in ((0, 2), (365, 1), (5, 0)):
        tick_removal(audit_days=days)
        assert query("SELECT count(*) FROM hubspot_deals.audit_log") == [(left_over,)]


def test_a_worker_of_a_removed_scan_writes_nothing_more(
    accept, settings, on_connection, query, delete_rows
):
    accept()
    with hold_lease(settings.database_url, "scan-1", "run-1", launch_epoch=None) as lease:
        with psycopg.connect(settings.database_url.get_secret_value()) as admin:
            admin.execute("UPDATE hubspot_deals.scans SET auto_resume_limit = 0, lost_at = now()")
        marked = on_connection(removal.mark_scan_for_removal, "scan-1")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            lease.connection.execute(
                "INSERT INTO hubspot_deals_extraction.deals (scan_id, row_no, id, _dlt_load_id)"
                " VALUES ('scan-1', 1, 1, 'x')"
            )
        assert delete_rows(marked)
        with pytest.raises(psycopg.OperationalError):
            lease.connection.execute("SELECT 1")
    assert query("SELECT count(*) FROM hubspot_deals.scans") == [(0,)]


def fill(settings, scan_id, rows, *, batch=50_000):
    """Give a scan as many stored deals, without reading them from anywhere."""
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as admin:
        for first in range(1, rows + 1, batch):
            last = min(first + batch - 1, rows)
            admin.execute(
                "INSERT INTO hubspot_deals_extraction.deals"
                " (scan_id, row_no, id, archived, properties, _dlt_load_id)"
                " SELECT %s, n, n, false, jsonb_build_object('dealname', repeat(md5(n::text), 20)),"
                " %s FROM generate_series(%s::int, %s::int) n",
                (scan_id, f"{scan_id}-{first}", first, last),
            )
            admin.execute(
                "INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no,"
                " load_id, first_row, row_count, epoch) VALUES (%s, 1, 'deals', %s, %s, %s, %s, 1)",
                (scan_id, first, f"{scan_id}-{first}", first, last - first + 1),
            )
        admin.execute(
            "UPDATE hubspot_deals.scans SET outcome = 'completed', generation = 1,"
            " ended_at = now(), started_at = now() WHERE scan_id = %s",
            (scan_id,),
        )
        admin.execute(
            "INSERT INTO hubspot_deals.scan_tables VALUES (%s, 1, 'deals', %s, %s, '{id}')",
            (scan_id, rows, rows),
        )


def longest_wait(settings, scan_id, rows, until):
    """Read pages of another scan until the event; return the longest read in seconds."""
    longest = 0.0
    reads = 0
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as reader:
        while not until.is_set() or reads < 10:
            offset = (reads * 7_919) % rows
            began = time.monotonic()
            found = reader.execute(
                "SELECT count(*) FROM (SELECT r.properties FROM hubspot_deals_extraction.deals r"
                " JOIN hubspot_deals.scan_chunks c ON c.scan_id = r.scan_id"
                " AND c.load_id = r._dlt_load_id WHERE r.scan_id = %s AND r.row_no > %s"
                " AND r.row_no <= %s + 100) page",
                (scan_id, offset, offset),
            ).fetchone()
            longest = max(longest, time.monotonic() - began)
            assert found == (min(100, rows - offset),)
            reads += 1
    return longest


def remove_while_reading(accept, settings, mark, delete_rows, query, *, rows):
    """Remove a big scan while another one is read; return seconds: longest read, removal."""
    for scan_id, count in (("big", rows), ("small", 5_000)):
        accept(scan_id)
        fill(settings, scan_id, count)
    done = threading.Event()
    waits = []
    reader = threading.Thread(
        target=lambda: waits.append(longest_wait(settings, "small", 5_000, done))
    )
    reader.start()
    began = time.monotonic()
    marked = mark("big")
    assert marked.records == rows
    while not delete_rows(marked, seconds=10.0):
        pass
    seconds = time.monotonic() - began
    done.set()
    reader.join()
    assert left(query, "big") == {}
    return waits[0], seconds


def test_readers_of_other_scans_do_not_wait_for_a_removal(
    accept, settings, mark, delete_rows, query
):
    longest, _ = remove_while_reading(accept, settings, mark, delete_rows, query, rows=30_000)
    assert longest < 1.0
