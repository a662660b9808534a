"""Syncs as Dagster runs: real PostgreSQL, a real HubSpot account, Dagster's own records."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import psycopg
import pytest
from psycopg.types.json import Jsonb

from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.sync_contract import CONNECTION_TAG, UNTIL_NOW_TAG, Cadence, SyncSettings
from hubspot_deals.sync_definitions import build_sync_definitions
from hubspot_deals.sync_defs import launching, upkeep, watching
from hubspot_deals.sync_defs.assets import TABLES
from hubspot_deals.syncing.steps import SyncSteps
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.syncs.connections import bound_to, list_connections
from hubspot_deals.warehouse.syncs.schema import TABLE_NAMES
from tests.conftest import TEST_TOKEN

START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
KNOWN = frozenset({"acme", "globex"})


@pytest.fixture
def connect(settings):
    """Stores a connection the way the REST facade does, and returns its id."""

    def connect(connection_id="acme", token=TEST_TOKEN, days=3, **facts):
        start = (datetime.now(UTC) - timedelta(days=days)).date()
        wanted = SyncSettings(**({"start_date": start, "cadence": Cadence.DAILY} | facts))
        sealed = KeyRing.parse(settings.encryption_keys).seal(
            token, bound_to=bound_to(connection_id)
        )
        with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as database:
            database.execute(
                "INSERT INTO hubspot_deals.connections (connection_id, organization_id, settings)"
                " VALUES (%s, 'org-1', %s)",
                (connection_id, Jsonb(wanted.to_json())),
            )
            database.execute(
                "INSERT INTO hubspot_deals.connection_credentials VALUES (%s, %s, %s, %s, NULL)",
                (connection_id, sealed.key_id, sealed.nonce, sealed.ciphertext),
            )
        return connection_id

    return connect


@pytest.fixture
def load(settings):
    """Builds the definitions of the connections that there are."""

    def load() -> dg.Definitions:
        resource = PipelineSettingsResource(
            database_url=settings.database_url.get_secret_value(),
            encryption_keys=settings.encryption_keys.get_secret_value(),
            hubspot_url=str(settings.hubspot_url),
            **settings.model_dump(exclude={"database_url", "encryption_keys", "hubspot_url"}),
        )
        return build_sync_definitions(resource, list_connections(settings.database_url))

    return load


@pytest.fixture
def tick(instance, settings):
    """One tick of the launching sensor; returns the requests."""

    def tick(cursor=None):
        with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
            result = launching.launch_due(context, settings.database_url, KNOWN)
            tick.cursor = context.cursor
        return [] if isinstance(result, dg.SkipReason) else list(result.run_requests)

    return tick


@pytest.fixture
def carry_out(instance, load):
    """Carries a request out, as Dagster's run worker does."""

    def carry_out(request):
        job = load().resolve_job_def(request.job_name)
        return job.execute_in_process(instance=instance, tags=request.tags, raise_on_error=False)

    return carry_out


@pytest.fixture
def released(change):
    """Lets claims run out, and failures be long ago."""

    def released():
        change("UPDATE hubspot_deals.connections SET launch_claimed_until = NULL")
        change("UPDATE hubspot_deals.sync_runs SET ended_at = ended_at - interval '2 hours'")

    return released


def days_ago(days):
    return (datetime.now(UTC) - timedelta(days=days)).date().isoformat()


def test_a_new_connection_is_loaded_with_all_its_partitions(
    connect, tick, carry_out, instance, query, load
):
    connect()
    (request,) = tick()
    assert (request.tags[START], request.tags[END]) == (days_ago(3), days_ago(1))
    result = carry_out(request)

    assert result.success
    assert {row[:2] for row in query("SELECT kind, outcome FROM hubspot_deals.sync_runs")} == {
        ("first_load", "completed")
    }
    assert query("SELECT count(*) FROM hubspot_deals_current.deals_current")[0][0] > 900
    for name in TABLES:
        key = dg.AssetKey(["acme", name])
        assert instance.get_materialized_partitions(key) == {days_ago(n) for n in (1, 2, 3)}
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert {name for name, check in checks.items() if check.passed} == {
        "is_fresh",
        "no_partition_is_missing",
        "ids_agree",
        "no_live_deal_has_an_end",
    }
    # What is told at length is told once, with the last partition.
    (newest, *others) = instance.fetch_materializations(
        dg.AssetKey(["acme", "deals_current"]), limit=3
    ).records
    assert newest.asset_materialization.metadata["kind"].value == "first_load"
    assert newest.asset_materialization.metadata["dagster/row_count"].value > 900
    assert all(not record.asset_materialization.metadata for record in others)
    assert tick() == []


def test_the_tables_that_dagster_shows_are_those_that_are_kept():
    assert set(TABLES) == set(TABLE_NAMES)


def test_two_ticks_launch_once(connect, tick):
    connect()
    assert len(tick()) == 1
    assert tick() == []


def test_a_wish_is_granted_at_once_when_the_run_before_has_ended(connect, tick, carry_out, change):
    connect()
    assert carry_out(tick()[0]).success
    change("UPDATE hubspot_deals.connections SET sync_wanted_at = now()")
    assert len(tick()) == 1
    assert tick() == []


def test_a_run_that_has_not_ended_is_waited_for(connect, tick, instance, released):
    connect()
    instance.add_run(
        dg.DagsterRun(
            job_name="sync_acme", status=dg.DagsterRunStatus.STARTING, tags={CONNECTION_TAG: "acme"}
        )
    )
    assert tick() == []


def test_sync_now_reads_up_to_now_though_no_partition_is_open(
    connect, tick, carry_out, change, query, released
):
    connect()
    carry_out(tick()[0])
    released()
    # HubSpot tells the time in whole seconds: two runs within one may end at the same.
    change(
        "UPDATE hubspot_deals.connections SET sync_wanted_at = now(),"
        " cursor = cursor - interval '1 minute'"
    )
    (request,) = tick()
    assert request.tags[UNTIL_NOW_TAG] == "true"
    before = query("SELECT cursor FROM hubspot_deals.connections")
    assert carry_out(request).success
    assert query("SELECT kind, window_end FROM hubspot_deals.sync_runs ORDER BY run_no")[1] == (
        "changes",
        None,
    )
    assert query("SELECT cursor FROM hubspot_deals.connections") > before
    released()
    assert tick() == []


def test_a_failed_partition_is_tried_again_with_all_that_was_missed(
    connect, tick, carry_out, change, query, released
):
    connect()
    carry_out(tick()[0])
    # Two days later two schedules have not run.
    change("UPDATE hubspot_deals.sync_runs SET window_end = window_end - interval '2 days'")
    released()
    (request,) = tick()
    assert (request.tags[START], request.tags[END]) == (days_ago(2), days_ago(1))
    change("UPDATE hubspot_deals.sync_runs SET started_at = now()")
    change(
        "INSERT INTO hubspot_deals.sync_runs (connection_id, run_no, run_id, epoch, kind,"
        " started_at, ended_at, outcome) VALUES ('acme', 2, 'x', 2, 'changes', now(), now(),"
        " 'failed')"
    )
    change("UPDATE hubspot_deals.connections SET launch_claimed_until = NULL")
    assert tick() == []
    released()
    assert carry_out(tick()[0]).success
    released()
    assert tick() == []


def test_a_tick_goes_on_where_the_last_one_found_no_gap(connect, tick, carry_out, released, change):
    connect()
    carry_out(tick()[0])
    released()
    assert tick() == []
    cursor = tick.cursor
    change("UPDATE hubspot_deals.sync_runs SET window_start = window_start + interval '1 day'")
    assert tick(cursor) == []
    assert len(tick()) == 1


def test_a_refused_token_fails_the_run_for_good(connect, tick, carry_out, query, settings):
    connect(token=type(TEST_TOKEN)("expired-token"))
    result = carry_out(tick()[0])
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data.metadata["error"].value == (
        "HubSpotAuthenticationError"
    )
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert query("SELECT outcome FROM hubspot_deals.sync_runs") == [("failed",)]


def test_no_secret_in_an_error_gets_into_dagsters_records(
    connect, tick, carry_out, instance, query, monkeypatch, capfd
):
    def fail(*_):
        msg = f"it broke with {TEST_TOKEN.get_secret_value()} in its hands"
        raise RuntimeError(msg)

    connect()
    monkeypatch.setattr(SyncSteps, "_read_archived", fail)
    result = carry_out(tick()[0])
    records = instance.all_logs(result.run_id)
    stored = "".join(dg.serialize_value(record) for record in records)
    assert "it broke with [hidden] in its hands" in stored
    assert TEST_TOKEN.get_secret_value() not in stored
    ((message,),) = query("SELECT DISTINCT error_message FROM hubspot_deals.sync_runs")
    assert message.startswith("Unexpected RuntimeError")
    told = [line for line in capfd.readouterr().err.splitlines() if "run ended" in line]
    assert told
    assert f"connection_id=acme run_id={result.run_id} outcome=failed" in told[0]


def test_a_run_without_a_worker_is_ended_and_launched_anew(connect, tick, change, query, instance):
    connect()
    tick()
    run = instance.add_run(
        dg.DagsterRun(
            job_name="sync_acme", status=dg.DagsterRunStatus.STARTED, tags={CONNECTION_TAG: "acme"}
        )
    )
    change(
        "INSERT INTO hubspot_deals.sync_runs (connection_id, run_no, run_id, epoch, kind)"
        " VALUES ('acme', 1, %s, 1, 'first_load')",
        run.run_id,
    )
    change("UPDATE hubspot_deals.connections SET launch_claimed_until = NULL")
    assert tick() == []
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
    assert query("SELECT outcome FROM hubspot_deals.sync_runs") == [("crashed",)]
    change("UPDATE hubspot_deals.sync_runs SET ended_at = now() - interval '1 minute'")
    assert len(tick()) == 1


def test_the_schedule_launches_the_partition_that_has_just_ended(connect, load, instance, change):
    connect("globex", cadence=Cadence.HOURLY, time_zone="Europe/Berlin")
    (schedule,) = load().schedules
    repository = load().get_repository_def()
    schedule = repository.get_schedule_def("sync_globex_hourly")
    due = datetime(2030, 1, 1, 9, tzinfo=UTC)

    def evaluated():
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=due,
            repository_def=repository,
            resources={"pipeline": load().resources["pipeline"]},
        ) as context:
            return schedule.evaluate_tick(context)

    (request,) = evaluated().run_requests
    assert request.partition_key == "2030-01-01-09:00"
    change("UPDATE hubspot_deals.connections SET is_enabled = false")
    assert "paused" in evaluated().skip_message


def test_checks_are_repeated_between_the_runs(connect, settings, instance, change):
    connect(start_date=date(2020, 1, 1))
    with dg.build_sensor_context(instance=instance) as context:
        result = watching.report_verdicts(context, settings.database_url, KNOWN)
    told = {event.check_name: event for event in result.asset_events}
    assert (told["is_fresh"].passed, told["no_partition_is_missing"].passed) == (False, False)
    assert told["no_partition_is_missing"].metadata["missing"].value > 2_000
    with dg.build_sensor_context(instance=instance, cursor=result.cursor) as context:
        again = watching.report_verdicts(context, settings.database_url, KNOWN)
    assert again.asset_events == []


def test_the_views_add_up_and_are_drawn(connect, tick, carry_out, settings, instance, query):
    connect()
    carry_out(tick()[0])
    with dg.build_sensor_context(instance=instance) as context:
        (request,) = watching.launch_analyses(context, settings.database_url, KNOWN).run_requests
    result = carry_out(request)
    assert result.success
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True] * 3
    drawn = instance.get_latest_materialization_event(dg.AssetKey(["acme", "won_lost"]))
    metadata = drawn.asset_materialization.metadata
    assert metadata["plot"].value.startswith("![Closed deals by month](data:image/svg+xml;base64,")
    assert "win_rate" in metadata["table"].value
    ((won, lost),) = query("SELECT sum(won), sum(lost) FROM hubspot_deals_analysis.won_lost")
    assert won > 0 < lost


def test_a_removed_connection_leaves_nothing(
    connect, tick, carry_out, change, instance, settings, query
):
    connect()
    carry_out(tick()[0])
    change("UPDATE hubspot_deals.connections SET removed_at = now()")
    for run in instance.get_runs():
        instance.add_run_tags(run.run_id, {CONNECTION_TAG: "acme"})
    for _ in range(2):
        with dg.build_sensor_context(instance=instance) as context:
            upkeep.remove_connections(context, settings.database_url)
    assert query("SELECT * FROM hubspot_deals.connections") == []
    assert query("SELECT count(*) FROM hubspot_deals_current.deals_current") == [(0,)]
    assert instance.get_runs() == []
    assert not instance.get_materialized_partitions(dg.AssetKey(["acme", "deals_current"]))
