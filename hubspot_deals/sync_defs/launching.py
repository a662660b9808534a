"""Launches what no schedule does: first loads, wishes, and what was missed or has failed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from pydantic import SecretStr

from hubspot_deals.contract import REQUEST_ID_TAG, TRACE_PARENT_TAG
from hubspot_deals.sync_contract import UNTIL_NOW_TAG, sync_job_name
from hubspot_deals.sync_defs.due import Launch, Rest, decide
from hubspot_deals.sync_defs.focus import connections_of
from hubspot_deals.sync_defs.partitions import build_partitions, complete_windows, keys_within
from hubspot_deals.warehouse.syncs.launches import (
    Standing,
    claim_launch,
    end_lost_runs,
    find_gaps,
    list_standings,
)

_GONE: Final = "The worker of this run is gone."


@dataclass(frozen=True, slots=True)
class Outlook:
    """A connection, its partitions up to now, and which of them are missing."""

    standing: Standing
    partitions: dg.TimeWindowPartitionsDefinition
    complete: dg.TimeWindow
    gaps: Sequence[tuple[datetime, datetime]]

    @property
    def connection_id(self) -> str:
        """The connection's id."""
        return self.standing.connection.connection_id

    def decide(self, now: datetime) -> Launch | Rest:
        """Decide what it needs if it has no run."""
        last = self.partitions.get_prev_partition_window(self.complete.end) or self.complete
        gaps = [dg.TimeWindow(start, end) for start, end in self.gaps]
        return decide(self.standing, self.complete, last, gaps, now)


def launch_due(
    context: dg.SensorEvaluationContext, database_url: SecretStr, known: frozenset[str]
) -> dg.SensorResult | dg.SkipReason:
    """Return requests for the runs that are due, each claimed so that it is launched once.

    The cursor says up to where each connection's partitions are all there, so that years of runs
    are not looked through at each tick.
    """
    for run_id in end_lost_runs(database_url):
        run = context.instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            context.log.warning("run %s has no worker any more", run_id)
            context.instance.report_run_failed(run, _GONE)
    now, requests = datetime.now(UTC), []
    outlooks = look_out(database_url, known, now, context.cursor)
    busy = _busy(context.instance)
    for outlook in outlooks:
        connection_id = outlook.connection_id
        if connection_id in busy:
            continue
        decision = outlook.decide(now)
        if isinstance(decision, Rest):
            context.log.debug("%s: %s", connection_id, decision.why)
        elif (claimed := claim_launch(database_url, connection_id)) is not None:
            context.log.info("%s is launched: %s", connection_id, decision.why)
            requests.append(_build_request(outlook, decision, claimed))
    context.update_cursor(settled(outlooks))
    if not requests:
        return dg.SkipReason("No connection is due.")
    return dg.SensorResult(run_requests=requests)


def look_out(
    database_url: SecretStr, known: frozenset[str], now: datetime, cursor: str | None
) -> list[Outlook]:
    """Return where the connections stand whose definitions are loaded.

    Gaps are looked for from where an earlier look's cursor says that none is left.
    """
    known_gapless: Mapping[str, str] = json.loads(cursor or "{}")
    found, stretches = [], []
    for standing in list_standings(database_url):
        connection_id = standing.connection.connection_id
        partitions = build_partitions(standing.connection)
        complete = complete_windows(partitions, now)
        if connection_id in known and complete is not None:
            begin = _begin(complete, known_gapless.get(connection_id))
            found.append((standing, partitions, complete))
            stretches.append((connection_id, begin, complete.end))
    gaps = find_gaps(database_url, stretches)
    return [
        Outlook(standing, partitions, complete, gaps[standing.connection.connection_id])
        for standing, partitions, complete in found
    ]


def _begin(complete: dg.TimeWindow, gapless: str | None) -> datetime:
    """Go on where the last tick found everything before in its place, if the start is the same."""
    first, _, until = (gapless or "").partition(" ")
    if first != complete.start.isoformat():
        return complete.start
    return min(datetime.fromisoformat(until), complete.end)


def settled(outlooks: Sequence[Outlook]) -> str:
    """Return the cursor of a look: up to where no partition of a connection is missing."""
    untils = {
        each.connection_id: each.gaps[0][0] if each.gaps else each.complete.end for each in outlooks
    }
    return json.dumps(
        {
            each.connection_id: f"{each.complete.start.isoformat()}"
            f" {untils[each.connection_id].isoformat()}"
            for each in outlooks
        }
    )


def _busy(instance: dg.DagsterInstance) -> frozenset[str]:
    """Return the connections that have a run which has not ended."""
    runs = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return frozenset().union(*map(connections_of, runs))


def _build_request(outlook: Outlook, launch: Launch, claimed: datetime) -> dg.RunRequest:
    keys = keys_within(outlook.partitions, launch.window.start, launch.window.end)
    tags = {ASSET_PARTITION_RANGE_START_TAG: keys.start, ASSET_PARTITION_RANGE_END_TAG: keys.end}
    if keys.start == keys.end:
        tags = {PARTITION_NAME_TAG: keys.start}
    standing = outlook.standing
    origin = {REQUEST_ID_TAG: standing.request_id, TRACE_PARENT_TAG: standing.trace_parent}
    tags |= {name: value for name, value in origin.items() if value}
    return dg.RunRequest(
        run_key=f"{outlook.connection_id}/{claimed.isoformat()}",
        job_name=sync_job_name(outlook.connection_id),
        tags=tags | ({UNTIL_NOW_TAG: "true"} if launch.is_until_now else {}),
    )
