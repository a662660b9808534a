"""The second code location: `dagster code-server start -m hubspot_deals.sync_definitions`.

It is built from the connections in PostgreSQL, and loaded anew when one comes or goes.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from hubspot_deals.defs.resources import PipelineSettingsResource, build_pipeline_resource
from hubspot_deals.settings import PipelineSettings, load_settings
from hubspot_deals.sync_defs.analysis import build_analysis
from hubspot_deals.sync_defs.assets import account_spec, build_tables, hubspot
from hubspot_deals.sync_defs.focus import is_in_focus
from hubspot_deals.sync_defs.jobs import build_analysis_job, build_sync_job
from hubspot_deals.sync_defs.schedules import build_schedule
from hubspot_deals.sync_defs.sensors import build_sensors
from hubspot_deals.warehouse.syncs.connections import StoredConnection, list_connections


def build_sync_definitions(
    pipeline: PipelineSettingsResource, connections: Sequence[StoredConnection]
) -> dg.Definitions:
    """Return the definitions of these connections around one set of settings."""
    assets: list[Any] = [hubspot]
    jobs, schedules = [], []
    for connection in connections:
        tables, views = build_tables(connection), build_analysis(connection)
        job = build_sync_job(connection, tables)
        assets += [account_spec(connection), tables, views]
        jobs += [job, build_analysis_job(connection, views)]
        schedules.append(build_schedule(connection, job))
    return dg.Definitions(
        assets=assets,
        jobs=jobs,
        schedules=schedules,
        sensors=build_sensors(connections, jobs),
        resources={"pipeline": pipeline},
        # One step each: a process of its own for it would only start Python a second time.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Read the environment and the connections.

    PostgreSQL must answer. If it doesn't, the code server says so, and loads when it is asked to
    again: the daemon of the stack does that.
    """
    connections = list_connections(load_settings(PipelineSettings).database_url)
    return build_sync_definitions(
        build_pipeline_resource(),
        [each for each in connections if is_in_focus(each.connection_id)],
    )
