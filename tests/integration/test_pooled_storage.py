"""Dagster's storage over a few connections: replaced when closed, closed when idle."""

import time
from contextlib import ExitStack

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa
from dagster._core.events import AssetMaterializationPlannedData

from hubspot_deals.launcher import storage
from hubspot_deals.launcher.storage import PooledEventLogStorage, shared_engine
from hubspot_deals.local.environment import dagster_storage_url

CONNECTIONS = 5
SECONDS = 30
OURS = "datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%from the pool%'"


@pytest.fixture
def engine(database_url):
    engine = shared_engine(dagster_storage_url(database_url))
    yield engine
    engine.dispose()


@pytest.fixture
def database(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def use(engine, connections=CONNECTIONS):
    with ExitStack() as stack:
        opened = [stack.enter_context(engine.connect()) for _ in range(connections)]
        return [
            one.scalar(sa.text("SELECT pg_backend_pid() /* from the pool */")) for one in opened
        ]


def test_connections_that_postgresql_closed_are_replaced(engine, database):
    before = use(engine)
    database.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {OURS}")

    after = use(engine)

    assert len(set(after)) == CONNECTIONS
    assert not set(before) & set(after)


def test_an_idle_process_holds_no_connection(engine, database):
    kept = use(engine, 1)
    assert use(engine, 1) == kept

    deadline = time.monotonic() + SECONDS
    while database.execute(f"SELECT pid FROM pg_stat_activity WHERE {OURS}").fetchall():
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert use(engine, 1) != kept


def test_a_worker_asks_once_for_the_key_of_its_run(database_url, engine, monkeypatch):
    events = PooledEventLogStorage(dagster_storage_url(database_url), autocreate=True)
    monkeypatch.setattr(storage, "_assumed", [True])
    asked = []
    sa.event.listen(engine, "before_cursor_execute", lambda *said: asked.append(said[2]))

    assert not events.has_dynamic_partition("scans", "mine")
    events.add_dynamic_partitions("scans", ["mine"])
    asked.clear()
    assert events.has_dynamic_partition("scans", "mine")
    assert events.has_dynamic_partition("scans", "mine")
    assert len(asked) == 1
    assert not events.has_dynamic_partition("scans", "yours")
    assert not events.has_dynamic_partition("others", "mine")


@pytest.mark.parametrize(("partitions", "planned"), [(31, 31), (32, 1)])
def test_few_partitions_are_planned_apart_and_many_in_one_event(
    database_url, database, partitions, planned
):
    days = dg.DailyPartitionsDefinition("2026-01-01")
    keys = days.get_partition_keys()[:partitions]
    run = dg.DagsterRun(job_name="job")
    events = PooledEventLogStorage(dagster_storage_url(database_url), autocreate=True)
    assert events.supports_partition_subset_in_asset_materialization_planned_events
    happened = dg.DagsterEvent.build_asset_materialization_planned_event(
        "job",
        "table",
        AssetMaterializationPlannedData(
            dg.AssetKey("table"),
            partition=None,
            partitions_subset=days.subset_with_partition_keys(keys).to_serializable_subset(),
        ),
    )
    events.store_event(
        dg.EventLogEntry(
            error_info=None,
            level=10,
            user_message="",
            run_id=run.run_id,
            timestamp=time.time(),
            dagster_event=happened,
        )
    )
    stored = database.execute(
        "SELECT count(*), count(DISTINCT partition) FROM dagster.event_logs"
    ).fetchall()
    assert stored == [(planned, planned if planned > 1 else 0)]
    shared_engine(dagster_storage_url(database_url)).dispose()
