"""What keeps the syncs going between their schedules, and tells when they do not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from pydantic import SecretStr

from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.sync_contract import sync_job_name
from hubspot_deals.sync_defs import checks
from hubspot_deals.sync_defs.due import Launch, decide
from hubspot_deals.sync_defs.focus import connections_of
from hubspot_deals.sync_defs.jobs import analysis_job_name
from hubspot_deals.sync_defs.partitions import build_partitions, complete_windows, keys_within
from hubspot_deals.warehouse.syncs.connections import StoredConnection
from hubspot_deals.warehouse.syncs.launches import (
    Standing,
    claim_launch,
    find_gaps,
    list_standings,
)

_Gaps = list[tuple[datetime, datetime]]


@dataclass(frozen=True, slots=True)
class Outlook:
    """A connection, its partitions up to now, and which of them are missing."""

    standing: Standing
    partitions: dg.TimeWindowPartitionsDefinition
    complete: dg.TimeWindow
    gaps: _Gaps

    @property
    def connection_id(self) -> str:
        """The connection's id."""
        return self.standing.connection.connection_id


def build_sensors(
    connections: Sequence[StoredConnection], jobs: Sequence[UnresolvedAssetJobDefinition]
) -> list[dg.SensorDefinition]:
    """Return the sensors over all connections."""
    known = frozenset(connection.connection_id for connection in connections)

    @dg.sensor(
        jobs=list(jobs) or None,
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def launch_due_syncs(
        context: dg.SensorEvaluationContext, pipeline: PipelineSettingsResource
    ) -> dg.SensorResult | dg.SkipReason:
        """Launch what no schedule does.

        First loads, syncs that somebody asked for, and partitions that were missed or have failed:
        a stretch of them in one run, after pauses that grow with each failure in a row.
        """
        return launch_due(context, pipeline.resolve().database_url, known)

    @dg.sensor(
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def watch_connections(
        context: dg.SensorEvaluationContext, pipeline: PipelineSettingsResource
    ) -> dg.SensorResult | dg.SkipReason:
        """Repeat the checks that time alone can break: whether deals are fresh, and no hole."""
        return report_verdicts(context, pipeline.resolve().database_url, known)

    @dg.sensor(
        jobs=list(jobs) or None,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def analyse_connections(
        context: dg.SensorEvaluationContext, pipeline: PipelineSettingsResource
    ) -> dg.SensorResult:
        """Have the views of each connection drawn and checked: after its first load, and daily.

        Not after each sync: the views are always current, and to add a million deals up takes
        longer than to synchronize a hundred.
        """
        return launch_analyses(context, pipeline.resolve().database_url, known)

    return [launch_due_syncs, watch_connections, analyse_connections]


def launch_due(
    context: dg.SensorEvaluationContext, database_url: SecretStr, known: frozenset[str]
) -> dg.SensorResult | dg.SkipReason:
    """Return requests for the runs that are due, each claimed so that it is launched once."""
    now = datetime.now(UTC)
    outlooks = _look(database_url, known, now, context.cursor)
    busy = _busy(context.instance)
    requests = []
    for outlook in outlooks:
        if outlook.connection_id in busy:
            continue
        decision = decide_for(outlook, now)
        if not isinstance(decision, Launch):
            context.log.debug("%s: %s", outlook.connection_id, decision.why)
            continue
        claimed = claim_launch(database_url, outlook.connection_id)
        if claimed is not None:
            context.log.info("%s is launched: %s", outlook.connection_id, decision.why)
            requests.append(_build_request(outlook, decision, claimed))
    cursor = _settled(outlooks)
    if not requests:
        context.update_cursor(cursor)
        return dg.SkipReason("No connection is due.")
    return dg.SensorResult(run_requests=requests, cursor=cursor)


def decide_for(outlook: Outlook, now: datetime) -> Any:
    """Decide what a connection needs that has no run."""
    last = outlook.partitions.get_prev_partition_window(outlook.complete.end)
    gaps = [dg.TimeWindow(start, end) for start, end in outlook.gaps]
    return decide(outlook.standing, outlook.complete, last or outlook.complete, gaps, now)


def report_verdicts(
    context: dg.SensorEvaluationContext, database_url: SecretStr, known: frozenset[str]
) -> dg.SensorResult | dg.SkipReason:
    """Report the checks whose result is another than when they were reported last."""
    now = datetime.now(UTC)
    told: dict[str, bool] = json.loads(context.cursor or "{}")
    events = []
    outcomes: dict[str, bool] = {}
    for outlook in _look(database_url, known, now, None):
        connection = outlook.standing.connection
        for verdict in (
            checks.judge_freshness(connection, connection.fresh_as_of, now),
            checks.judge_gaps(connection, outlook.gaps, now),
        ):
            name = f"{connection.connection_id}/{verdict.check_name}"
            outcomes[name] = verdict.passed
            if told.get(name, True) != verdict.passed:
                events.append(verdict.event(connection.connection_id))
    return dg.SensorResult(
        asset_events=events,
        cursor=json.dumps(outcomes),
        skip_reason=dg.SkipReason(f"{len(events)} checks have changed."),
    )


def launch_analyses(
    context: dg.SensorEvaluationContext, database_url: SecretStr, known: frozenset[str]
) -> dg.SensorResult:
    """Return requests for the connections whose views were not looked at today, by their zones."""
    days = {
        standing.connection.connection_id: _today(standing.connection)
        for standing in list_standings(database_url)
        if standing.is_loaded and standing.connection.connection_id in known
    }
    told: dict[str, str] = json.loads(context.cursor or "{}")
    requests = [
        dg.RunRequest(run_key=f"{each}/{day}", job_name=analysis_job_name(each))
        for each, day in days.items()
        if told.get(each) != day
    ]
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(days))


def _today(connection: StoredConnection) -> str:
    return datetime.now(ZoneInfo(connection.settings.time_zone)).date().isoformat()


def _look(
    database_url: SecretStr, known: frozenset[str], now: datetime, cursor: str | None
) -> list[Outlook]:
    settled: Mapping[str, str] = json.loads(cursor or "{}")
    found = []
    for standing in list_standings(database_url):
        connection = standing.connection
        partitions = build_partitions(connection)
        complete = complete_windows(partitions, now)
        if connection.connection_id in known and complete is not None:
            found.append((standing, partitions, complete))
    gaps = find_gaps(
        database_url,
        [
            (
                standing.connection.connection_id,
                _begin(complete, settled.get(standing.connection.connection_id)),
                complete.end,
            )
            for standing, _, complete in found
        ],
    )
    return [
        Outlook(standing, partitions, complete, gaps[standing.connection.connection_id])
        for standing, partitions, complete in found
    ]


def _begin(complete: dg.TimeWindow, settled: str | None) -> datetime:
    """Go on where the last tick found everything before in its place, if the start is the same."""
    first, _, until = (settled or "").partition(" ")
    if first != complete.start.isoformat():
        return complete.start
    return min(datetime.fromisoformat(until), complete.end)


def _settled(outlooks: Sequence[Outlook]) -> str:
    return json.dumps(
        {
            each.connection_id: f"{each.complete.start.isoformat()} {until.isoformat()}"
            for each in outlooks
            for until in [each.gaps[0][0] if each.gaps else each.complete.end]
        }
    )


def _busy(instance: dg.DagsterInstance) -> frozenset[str]:
    """Return the connections that have a run which has not ended."""
    runs = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return frozenset().union(*map(connections_of, runs))


def _build_request(outlook: Outlook, launch: Launch, claimed: datetime) -> dg.RunRequest:
    keys = keys_within(outlook.partitions, launch.window.start, launch.window.end)
    run_key = f"{outlook.connection_id}/{claimed.isoformat()}"
    tags = {ASSET_PARTITION_RANGE_START_TAG: keys.start, ASSET_PARTITION_RANGE_END_TAG: keys.end}
    if keys.start == keys.end:
        tags = {PARTITION_NAME_TAG: keys.start}
    return dg.RunRequest(run_key=run_key, job_name=sync_job_name(outlook.connection_id), tags=tags)
