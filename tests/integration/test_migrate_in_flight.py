"""Migrating under scans: they go on, and whoever works is not kept waiting."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from pydantic import SecretStr

from hubspot_deals.contract import ScanStatus
from hubspot_deals.warehouse import migrate as migrations
from hubspot_deals.warehouse.migrate import migrate
from hubspot_sandbox.testing import SandboxProcess
from tests.conftest import FAST
from tests.faults.truth import assert_equal, stored_deals, true_deals

NAME = "9999_of_the_next_release.sql"
ADDITIVE = """
CREATE TABLE hubspot_deals.notes (scan_id text REFERENCES hubspot_deals.scans, note text);
ALTER TABLE hubspot_deals.scans ADD COLUMN note text NOT NULL DEFAULT '';
ALTER TABLE hubspot_deals.scan_chunks ADD COLUMN note text;
ALTER TABLE hubspot_deals_extraction.deals ADD COLUMN note text;
CREATE INDEX deals_note ON hubspot_deals_extraction.deals (note);
"""
CHUNKS = "SELECT count(*) FROM hubspot_deals.scan_chunks"
DEADLINE = 60


@pytest.fixture
def next_release(tmp_path, monkeypatch):
    """Another migration, as a newer image brings it."""

    def bring(statements):
        file = tmp_path / NAME
        file.write_text(statements)
        known = migrations._migration_files()
        monkeypatch.setattr(migrations, "_migration_files", lambda: [*known, file])

    return bring


def test_a_scan_goes_on_while_the_database_is_migrated_under_it(
    accept, run_job, look_up, query, database_url, next_release
):
    next_release(ADDITIVE)
    seen = {}

    def migrate_in_between():
        deadline = time.monotonic() + DEADLINE
        while query(CHUNKS)[0][0] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        seen["applied"] = migrate(SecretStr(database_url))
        seen["chunks"] = query(CHUNKS)[0][0]

    with (
        SandboxProcess(deals=4_000, latency_ms="20-30", **FAST) as account,
        ThreadPoolExecutor(1) as pool,
    ):
        accept("scan-1")
        migration = pool.submit(migrate_in_between)
        run_job("scan-1", hubspot_url=account.url, chunk_rows=200)
        migration.result()

        ended = look_up("scan-1")
        assert ended.status is ScanStatus.COMPLETED, ended.error_message
        assert_equal(stored_deals(query, "scan-1"), true_deals(account, archived=False))
    assert seen["applied"] == [NAME]
    # It was in between: of the deals' chunks, some came before and some after.
    assert 2 <= seen["chunks"] < query(CHUNKS)[0][0] - 2
    assert query("SELECT DISTINCT note FROM hubspot_deals.scans") == [("",)]


def test_a_migration_that_has_to_wait_keeps_nobody_waiting(accept, database_url, next_release):
    accept("scan-1")
    next_release("ALTER TABLE hubspot_deals.scans ADD COLUMN note text")
    touch = "UPDATE hubspot_deals.scans SET scan_id = scan_id"
    waits = []
    with (
        psycopg.connect(database_url) as somebody,
        psycopg.connect(database_url, autocommit=True) as worker,
        ThreadPoolExecutor(1) as pool,
    ):
        # A long transaction has read the table; the migration cannot have it meanwhile.
        somebody.execute("SELECT 1 FROM hubspot_deals.scans")
        worker.execute("SET statement_timeout = '8s'")
        migration = pool.submit(migrate, SecretStr(database_url))
        wait_until_it_waits(worker)
        for _ in range(8):
            began = time.monotonic()
            worker.execute(touch)
            waits.append(time.monotonic() - began)
            threading.Event().wait(0.2)
        assert not migration.done()
        somebody.rollback()
        assert migration.result(DEADLINE) == [NAME]
    # It has waited behind the migration, and not for as long as that had to wait.
    assert max(waits) > 0.2
    assert max(waits) < 4


def wait_until_it_waits(connection):
    waiting = (
        "SELECT 1 FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    deadline = time.monotonic() + DEADLINE
    while not connection.execute(waiting).fetchone():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_migration_that_never_gets_its_turn_says_so(
    accept, database_url, next_release, monkeypatch
):
    accept("scan-1")
    next_release("ALTER TABLE hubspot_deals.scans ADD COLUMN note text")
    monkeypatch.setattr(migrations, "_LONGEST_TRY_SECONDS", 0.1)
    with psycopg.connect(database_url) as somebody:
        somebody.execute("SELECT 1 FROM hubspot_deals.scans")
        with pytest.raises(migrations.ConfigurationError, match="lock timeout"):
            migrate(SecretStr(database_url))
        somebody.rollback()
    assert migrate(SecretStr(database_url)) == [NAME]
