"""Looks at connections from time to time: whether they are fresh, and what they add up to."""

import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from pydantic import SecretStr

from hubspot_deals.sync_defs.checks import judge_freshness, judge_gaps
from hubspot_deals.sync_defs.jobs import analysis_job_name
from hubspot_deals.sync_defs.launching import look_out, settled
from hubspot_deals.warehouse.syncs.launches import list_standings


def report_verdicts(
    context: dg.SensorEvaluationContext, database_url: SecretStr, known: frozenset[str]
) -> dg.SensorResult:
    """Report the checks whose result is another than when it was last looked."""
    now, events = datetime.now(UTC), []
    last: dict[str, Any] = json.loads(context.cursor or "{}")
    told, found = last.get("told", {}), {}
    outlooks = look_out(database_url, known, now, last.get("settled"))
    for outlook in outlooks:
        connection = outlook.standing.connection
        for verdict in (
            judge_freshness(connection, connection.fresh_as_of, now),
            judge_gaps(connection, outlook.gaps, now),
        ):
            name = f"{connection.connection_id}/{verdict.check_name}"
            found[name] = verdict.passed
            if told.get(name) is not verdict.passed:
                events.append(verdict.event(connection.connection_id))
    return dg.SensorResult(
        asset_events=events,
        cursor=json.dumps({"told": found, "settled": settled(outlooks)}),
        skip_reason=dg.SkipReason(f"{len(events)} checks have another result than before."),
    )


def launch_analyses(
    context: dg.SensorEvaluationContext, database_url: SecretStr, known: frozenset[str]
) -> dg.SensorResult:
    """Return requests for the connections whose views were not looked at today, by their zones."""
    days = {
        standing.connection.connection_id: _today(standing.connection.settings.time_zone)
        for standing in list_standings(database_url)
        if standing.is_loaded and standing.is_enabled and standing.connection.connection_id in known
    }
    told: dict[str, str] = json.loads(context.cursor or "{}")
    requests = [
        dg.RunRequest(run_key=f"{each}/{day}", job_name=analysis_job_name(each))
        for each, day in days.items()
        if told.get(each) != day
    ]
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(days))


def _today(time_zone: str) -> str:
    return datetime.now(ZoneInfo(time_zone)).date().isoformat()
