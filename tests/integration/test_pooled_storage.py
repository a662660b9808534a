"""Dagster's storage over a few connections: replaced when closed, closed when idle."""

import time
import uuid
from contextlib import ExitStack

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.events import AssetMaterializationPlannedData
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.scheduler.instigation import TickData, TickStatus
from dagster._utils.error import SerializableErrorInfo

from hubspot_deals.launcher import storage
from hubspot_deals.launcher.storage import (
    PooledEventLogStorage,
    PooledScheduleStorage,
    shared_engine,
)
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


def test_what_dagster_stores_of_errors_holds_no_secret(database_url, engine, database):
    url = dagster_storage_url(database_url)
    events = PooledEventLogStorage(url, autocreate=True)
    ticks = PooledScheduleStorage(url, autocreate=True)
    text = 'it failed: "postgresql://u:CANARY@h/d", pat-na1-CANARY00-1111'
    error = SerializableErrorInfo(f"{text}\n", [f"  line {text}\n"], "Error", cause=None)
    run_id = str(uuid.uuid4())
    event = dg.DagsterEvent(
        event_type_value="STEP_FAILURE",
        job_name="scan_deals",
        step_key="read_account",
        event_specific_data=StepFailureData(error, user_failure_data=None),
        message=text,
    )
    events.store_event(
        dg.EventLogEntry(error, "error", text, run_id, time.time(), dagster_event=event)
    )
    tick = ticks.create_tick(
        TickData("origin", "sensor", InstigatorType.SENSOR, TickStatus.STARTED, time.time())
    )
    ticks.update_tick(tick.with_status(TickStatus.FAILURE, error=error))

    stored = str(database.execute("SELECT event FROM dagster.event_logs").fetchall())
    stored += str(database.execute("SELECT tick_body FROM dagster.job_ticks").fetchall())
    assert "CANARY" not in stored
    assert stored.count("[hidden]") > 4
    (entry,) = events.get_logs_for_run(run_id)
    assert entry.dagster_event.step_failure_data.error.cls_name == "Error"


def test_an_event_without_secrets_is_stored_as_it_is(database_url, engine):
    events = PooledEventLogStorage(dagster_storage_url(database_url), autocreate=True)
    run_id = str(uuid.uuid4())
    entry = dg.EventLogEntry(None, "info", "as it is", run_id, time.time())
    events.store_event(entry)
    assert events.get_logs_for_run(run_id) == [entry]
