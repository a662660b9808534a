"""What a connection needs next, from what is known of it."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from hubspot_deals.sync_contract import CONNECTION_TAG, Cadence, SyncSettings
from hubspot_deals.sync_defs.due import FIRST_PAUSE, LONGEST_PAUSE, Launch, Rest, decide
from hubspot_deals.sync_defs.focus import connections_of, focus_on, is_focused, is_in_focus
from hubspot_deals.sync_defs.partitions import build_partitions, complete_windows, keys_within
from hubspot_deals.sync_defs.plots import plot_bars
from hubspot_deals.warehouse.syncs.connections import StoredConnection
from hubspot_deals.warehouse.syncs.launches import Standing

NOW = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
LAST_END = datetime(2026, 11, 23, 10, tzinfo=UTC)
COMPLETE = dg.TimeWindow(datetime(2026, 11, 1, tzinfo=UTC), LAST_END)
LAST = dg.TimeWindow(LAST_END - HOUR, LAST_END)


def connection(created_at=NOW, *, is_enabled=True, **settings):
    return StoredConnection(
        seq=1,
        connection_id="acme",
        organization_id="org-1",
        name="",
        portal_id=None,
        settings=SyncSettings(**({"start_date": date(2026, 11, 1)} | settings)),
        is_enabled=is_enabled,
        created_at=created_at,
        updated_at=created_at,
        fresh_as_of=None,
        account=None,
    )


def decided(gaps=(), now=NOW, *, is_enabled=True, **facts):
    facts = {"is_loaded": True, "is_wanted": False, "failures": 0, "last_end": None} | facts
    standing = Standing(connection(is_enabled=is_enabled), **facts)
    return decide(standing, COMPLETE, LAST, list(gaps), now)


def test_what_was_never_read_is_read_with_all_its_partitions():
    assert decided([COMPLETE], is_loaded=False).window == COMPLETE


def test_what_is_complete_rests():
    assert isinstance(decided(), Rest)


def test_a_paused_connection_rests_whatever_it_lacks():
    assert "paused" in decided([COMPLETE], is_enabled=False, is_loaded=False, is_wanted=True).why


def test_the_latest_hole_is_filled_first_and_in_one_run():
    older = dg.TimeWindow(COMPLETE.start, COMPLETE.start + HOUR)
    newer = dg.TimeWindow(LAST.start - 3 * HOUR, LAST.end)
    assert decided([older, newer]).window == newer
    assert decided([older]).window == older


def test_the_partition_that_has_just_ended_is_its_schedules():
    just = LAST_END + timedelta(seconds=30)
    assert isinstance(decided([LAST], now=just), Rest)
    assert decided([LAST], now=LAST_END + timedelta(minutes=2)).window == LAST
    # What was missed before it does not wait for the schedule.
    both = dg.TimeWindow(LAST.start - 2 * HOUR, LAST.end)
    assert decided([both], now=just).window == dg.TimeWindow(both.start, LAST.start)


def test_a_wish_takes_the_open_partitions_along():
    both = dg.TimeWindow(LAST.start - 2 * HOUR, LAST.end)
    assert decided([both], is_wanted=True) == Launch(both, "somebody wants it now")


def test_a_wish_reads_up_to_now_where_no_partition_is_open():
    launch = decided(is_wanted=True)
    assert (launch.window, launch.is_until_now) == (LAST, True)


@pytest.mark.parametrize(
    ("failures", "pause"),
    [(1, FIRST_PAUSE), (2, 2 * FIRST_PAUSE), (3, 4 * FIRST_PAUSE), (500, LONGEST_PAUSE)],
)
def test_pauses_double_with_each_failure_up_to_an_hour(failures, pause):
    tried = {"failures": failures, "last_end": NOW}
    assert isinstance(decided([LAST], now=NOW + pause - timedelta(seconds=1), **tried), Rest)
    assert decided([LAST], now=NOW + pause, **tried).window == LAST


def test_a_wish_waits_for_no_pause():
    assert isinstance(decided([LAST], failures=9, last_end=NOW, is_wanted=True), Launch)


def test_partitions_begin_at_the_start_date_in_the_connections_zone():
    partitions = build_partitions(connection(time_zone="Europe/Berlin", cadence=Cadence.DAILY))
    complete = complete_windows(partitions, NOW)
    assert complete.start == datetime(2026, 10, 31, 23, tzinfo=UTC)
    assert complete.end == datetime(2026, 11, 22, 23, tzinfo=UTC)
    keys = keys_within(partitions, complete.start, complete.end)
    assert (keys.start, keys.end) == ("2026-11-01", "2026-11-22")


@pytest.mark.parametrize("cadence", list(Cadence))
def test_a_connection_has_a_complete_partition_from_its_first_moment_on(cadence):
    created_at = datetime(2026, 11, 23, 0, 0, 1, tzinfo=UTC)
    made = connection(cadence=cadence, start_date=date(2026, 12, 24), created_at=created_at)
    complete = complete_windows(build_partitions(made), created_at)
    assert complete.end == datetime(2026, 11, 23, tzinfo=UTC)


def test_the_hour_that_comes_twice_is_two_partitions():
    partitions = build_partitions(
        connection(time_zone="Europe/Berlin", start_date=date(2026, 10, 25))
    )
    midnight = datetime(2026, 10, 24, 22, tzinfo=UTC)
    keys = partitions.get_partition_keys_in_time_window(
        dg.TimeWindow(midnight, midnight + 25 * HOUR)
    )
    assert len(set(keys)) == 25
    twice = keys_within(partitions, midnight + 2 * HOUR, midnight + 4 * HOUR)
    assert (twice.start, twice.end) == ("2026-10-25-02:00", "2026-10-25-02:00+0100")


def test_a_stretch_without_a_whole_partition_has_no_keys():
    partitions = build_partitions(connection(cadence=Cadence.DAILY))
    with pytest.raises(ValueError, match="No whole partition"):
        keys_within(partitions, NOW, NOW + HOUR)


def test_a_run_names_its_connection_by_tag_or_by_its_assets():
    tagged = dg.DagsterRun(job_name="j", tags={CONNECTION_TAG: "acme"})
    selected = dg.DagsterRun(
        job_name="__ASSET_JOB", asset_selection=frozenset({dg.AssetKey(["globex", "owners"])})
    )
    assert connections_of(tagged) == {"acme"}
    assert connections_of(selected) == {"globex"}
    assert connections_of(dg.DagsterRun(job_name="j")) == frozenset()


def test_a_worker_builds_what_its_run_needs():
    try:
        focus_on({"acme"})
        assert is_focused()
        assert is_in_focus("acme")
        assert not is_in_focus("globex")
    finally:
        focus_on(())
    assert not is_focused()
    assert is_in_focus("globex")


def test_a_plot_is_a_picture_within_markdown():
    text = plot_bars("Won & lost", ["2026-01"], {"won": [3.0], "lost": [0.0]})
    assert text.startswith("![Won & lost](data:image/svg+xml;base64,")
    assert plot_bars("Nothing", [], {"won": []}).endswith(")")
