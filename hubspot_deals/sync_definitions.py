"""The second code location: `dagster code-server start -m hubspot_deals.sync_definitions`.

It is built from the connections in PostgreSQL, and loaded anew when one comes or goes.
"""

import logging
from collections.abc import Sequence
from typing import Any

import dagster as dg

from hubspot_deals.defs.resources import PipelineSettingsResource, build_pipeline_resource
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.settings import PipelineSettings, load_settings
from hubspot_deals.sync_defs.analysis import build_analysis
from hubspot_deals.sync_defs.assets import account_spec, build_tables, hubspot
from hubspot_deals.sync_defs.focus import is_focused, is_in_focus
from hubspot_deals.sync_defs.jobs import build_analysis_job, build_sync_job
from hubspot_deals.sync_defs.schedules import build_schedule
from hubspot_deals.sync_defs.sensors import build_sensors
from hubspot_deals.warehouse.syncs.connections import StoredConnection, list_connections

logger = logging.getLogger(__name__)


def build_sync_definitions(
    pipeline: PipelineSettingsResource, connections: Sequence[StoredConnection]
) -> dg.Definitions:
    """Return the definitions of these connections around one set of settings."""
    assets: list[Any] = [hubspot]
    sync_jobs, analysis_jobs, schedules = [], [], []
    for connection in connections:
        tables, views = build_tables(connection), build_analysis(connection)
        assets += [account_spec(connection), tables, views]
        sync_jobs.append(build_sync_job(connection, tables))
        analysis_jobs.append(build_analysis_job(connection, views))
        schedules.append(build_schedule(connection, sync_jobs[-1]))
    return dg.Definitions(
        assets=assets,
        jobs=[*sync_jobs, *analysis_jobs],
        schedules=schedules,
        sensors=build_sensors(connections, sync_jobs, analysis_jobs),
        resources={"pipeline": pipeline},
        # One step each: a process of its own for it would only start Python a second time.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Read the environment and the connections; a missing setting is an error that names it.

    Without PostgreSQL there are no connections, only the sensor that loads these definitions anew
    as soon as there are some: nobody has to notice.
    """
    pipeline = build_pipeline_resource()  # first: it keeps secrets out of what is logged here
    try:
        connections = list_connections(load_settings(PipelineSettings).database_url)
    except ConfigurationError:
        if is_focused():
            raise
        logger.exception("The connections are not known yet")
        connections = []
    return build_sync_definitions(
        pipeline,
        [each for each in connections if is_in_focus(each.connection_id)],
    )
