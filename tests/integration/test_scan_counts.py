"""The counts that are kept of scans agree with the scans, whatever happens to them."""

import asyncio
import random
import threading
import time

import psycopg
import pytest
from psycopg.types.json import Jsonb

from hubspot_deals.warehouse.migrate import _migration_files
from hubspot_deals.warehouse.removal import mark_old_scans, mark_scan_for_removal
from hubspot_deals.warehouse.scans import get_statistics, page_of_scans

KEPT = "SELECT * FROM hubspot_deals.scan_counts WHERE scans > 0 ORDER BY 1"
COUNTED = """
    SELECT organization_id, count(*), count(*) FILTER (WHERE outcome = 'completed'),
        count(*) FILTER (WHERE outcome = 'failed'), count(*) FILTER (WHERE outcome = 'cancelled'),
        coalesce(sum(records_extracted) FILTER (WHERE outcome IS NOT NULL), 0)::bigint
    FROM hubspot_deals.scans WHERE removal IS DISTINCT FROM 'scan' GROUP BY 1 ORDER BY 1
"""
CHANGES = [
    "outcome = 'completed', records_extracted = 7",
    "outcome = 'failed'",
    "outcome = 'cancelled'",
    "outcome = NULL",
    "records_extracted = records_extracted + 3",
    "heartbeat_at = now()",
    "removal = 'results'",
    "removal = 'scan'",
    "removal = NULL",
]


@pytest.fixture
def database(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def add(database, number, organizations=3):
    database.execute(
        "INSERT INTO hubspot_deals.scans (scan_id, organization_id, config, request_hash)"
        " VALUES (%s, %s, %s, '')",
        (f"scan-{number}", f"org-{number % organizations}", Jsonb({"type": ["user"]})),
    )


def rows(database, statement, *values):
    return database.execute(statement, values).fetchall()


def wait_until_blocked(database, pid):
    blocked = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    while not rows(database, blocked, pid):
        time.sleep(0.01)


def on_connection(database_url, function, *arguments, **options):
    async def connected():
        async with await psycopg.AsyncConnection.connect(
            database_url, autocommit=True
        ) as connection:
            return await function(connection, *arguments, **options)

    return asyncio.run(connected())


def test_counts_follow_every_change(database, database_url):
    chance = random.Random(4)
    for number in range(30):
        add(database, number)
    for _ in range(300):
        change = chance.choice([*CHANGES, None])
        scan_id = f"scan-{chance.randrange(30)}"
        if change is None and chance.random() < 0.1:
            database.execute("DELETE FROM hubspot_deals.scans WHERE scan_id = %s", (scan_id,))
        elif change is not None:
            database.execute(
                f"UPDATE hubspot_deals.scans SET {change} WHERE scan_id = %s", (scan_id,)
            )
    assert rows(database, KEPT) == rows(database, COUNTED)
    statistics = on_connection(database_url, get_statistics)
    shown, total = on_connection(database_url, page_of_scans, None, limit=1_000, offset=0)
    assert (statistics.total, total) == (len(shown), len(shown))
    assert statistics.records_extracted == sum(scan.records_extracted for scan in shown)
    for status, count in statistics.by_status.items():
        assert count == sum(scan.status == status for scan in shown)


def test_a_change_that_is_rolled_back_is_not_counted(database):
    add(database, 1)
    with database.transaction(force_rollback=True):
        database.execute("UPDATE hubspot_deals.scans SET outcome = 'failed'")
        add(database, 2)

    assert rows(database, KEPT) == rows(database, COUNTED) == [("org-1", 1, 0, 0, 0, 0)]


def test_scans_that_were_there_before_are_counted_by_the_migration(database):
    for number in range(9):
        add(database, number)
    database.execute("UPDATE hubspot_deals.scans SET outcome = 'failed', records_extracted = 2")
    kept = rows(database, KEPT)
    (file,) = [file for file in _migration_files() if file.name == "0004_serving.sql"]
    with database.transaction():
        database.execute(
            "DROP TABLE hubspot_deals.scan_counts;"
            " DROP FUNCTION hubspot_deals.count_scan, hubspot_deals.count_changed_scans CASCADE;"
            " DROP FUNCTION hubspot_deals.add_to_counts;"
            " DROP INDEX hubspot_deals.scan_chunks_by_row, hubspot_deals.scans_by_creation"
        )
        for kind in ("text", "bigint", "boolean", "jsonb", "numeric", "timestamptz"):
            database.execute(f"DROP FUNCTION hubspot_deals.to_answer({kind})")
        database.execute(file.read_bytes())

    assert rows(database, KEPT) == kept == rows(database, COUNTED)


def test_purging_many_organizations_waits_for_nobody_who_waits_for_it(database, database_url):
    for number in range(400):
        add(database, number, organizations=20)
    database.execute(
        "UPDATE hubspot_deals.scans SET outcome = 'completed', ended_at = now() - interval '9 days'"
        " WHERE seq % 2 = 0"
    )
    faults = []

    def end_the_rest():
        try:
            with psycopg.connect(database_url, autocommit=True) as connection:
                for number in range(400):
                    connection.execute(
                        "UPDATE hubspot_deals.scans SET outcome = 'failed', ended_at = now()"
                        " WHERE scan_id = %s AND outcome IS NULL",
                        (f"scan-{399 - number}",),
                    )
        except psycopg.Error as error:
            faults.append(error)

    workers = [threading.Thread(target=end_the_rest) for _ in range(3)]
    for worker in workers:
        worker.start()
    for _ in range(5):
        on_connection(database_url, mark_old_scans, days_old=7, purge=True)
    for worker in workers:
        worker.join()

    assert faults == []
    assert rows(database, KEPT) == rows(database, COUNTED)


def test_a_purge_waits_for_a_scan_that_is_being_removed_and_not_the_other_way_round(
    database, database_url
):
    for number in range(6):
        add(database, number)
    database.execute(
        "UPDATE hubspot_deals.scans SET outcome = 'completed', ended_at = now() - interval '9 days'"
    )

    async def remove_while_purging():
        connect = psycopg.AsyncConnection.connect
        async with (
            await connect(database_url, autocommit=True) as removing,
            await connect(database_url, autocommit=True) as purging,
        ):
            async with removing.transaction():
                await removing.execute(
                    "SELECT FROM hubspot_deals.scans WHERE scan_id = 'scan-5' FOR UPDATE"
                )
                purge = asyncio.create_task(mark_old_scans(purging, days_old=7, purge=True))
                await asyncio.to_thread(wait_until_blocked, database, purging.info.backend_pid)
                await mark_scan_for_removal(removing, "scan-5")
            return await purge

    assert len(asyncio.run(remove_while_purging())) == 5
    assert rows(database, KEPT) == rows(database, COUNTED) == []


def test_changes_of_many_organizations_at_once_do_not_wait_in_a_circle(database, database_url):
    for number in range(200):
        add(database, number, organizations=20)
    for number in reversed(range(200, 400)):
        add(database, number, organizations=20)
    faults = []

    def change(first, last):
        try:
            with psycopg.connect(database_url, autocommit=True) as connection:
                for outcome in ["failed", "completed"] * 15:
                    connection.execute(
                        "UPDATE hubspot_deals.scans SET outcome = %s, records_extracted = 3"
                        " WHERE seq BETWEEN %s AND %s",
                        (outcome, first, last),
                    )
        except psycopg.Error as error:
            faults.append(error)

    workers = [threading.Thread(target=change, args=ends) for ends in ((1, 200), (201, 400))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert faults == []
    assert rows(database, KEPT) == rows(database, COUNTED)


def test_a_worker_that_reports_progress_waits_for_no_count(database, database_url):
    add(database, 1)
    add(database, 2, organizations=1)
    with (
        psycopg.connect(database_url) as other,
        psycopg.connect(database_url, options="-c lock_timeout=200") as worker,
    ):
        other.execute("SELECT FROM hubspot_deals.scan_counts FOR UPDATE")

        worker.execute("UPDATE hubspot_deals.scans SET heartbeat_at = now(), records_extracted = 5")

        with pytest.raises(psycopg.errors.LockNotAvailable):
            worker.execute("UPDATE hubspot_deals.scans SET outcome = 'failed'")


def test_a_scan_that_ends_while_scans_are_counted_is_counted_once(database, database_url):
    add(database, 1)
    ended = threading.Event()

    def end_and_begin_again():
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not ended.is_set():
                for outcome in ("failed", None):
                    connection.execute("UPDATE hubspot_deals.scans SET outcome = %s", (outcome,))

    async def count_often(connection):
        return {(await get_statistics(connection)).total for _ in range(500)}

    worker = threading.Thread(target=end_and_begin_again)
    worker.start()
    totals = on_connection(database_url, count_often)
    ended.set()
    worker.join()

    assert totals == {1}
