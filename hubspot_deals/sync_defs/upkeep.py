"""Keeps this code location in step with the connections, and deletes what removed ones left."""

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Final

import dagster as dg
from pydantic import SecretStr

from hubspot_deals.sync_contract import CONNECTION_TAG
from hubspot_deals.sync_defs.assets import pool_of
from hubspot_deals.sync_defs.server import load_anew
from hubspot_deals.warehouse.syncs.connections import StoredConnection, list_connections
from hubspot_deals.warehouse.syncs.launches import list_removed
from hubspot_deals.warehouse.syncs.removal import remove_connection_data

_REMOVAL_SECONDS: Final = 20.0
"""A tick of a sensor that takes over a minute is cut off."""
_RUNS_A_TICK: Final = 100


def fingerprint(connections: Sequence[StoredConnection]) -> str:
    """Return what changes with whatever the definitions of connections are made of."""
    facts = [
        (
            each.connection_id,
            each.organization_id,
            each.portal_id,
            each.account,
            each.settings.cadence,
            each.settings.time_zone,
            each.settings.start_date.isoformat(),
            each.created_at.isoformat(),
        )
        for each in connections
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def reload_if_changed(database_url: SecretStr, loaded: str) -> dg.SkipReason:
    """Have the definitions built anew when the connections are others than those in them.

    The REST interface asks for that too, and sooner; this catches what it could not.
    """
    if fingerprint(list_connections(database_url)) == loaded:
        return dg.SkipReason("The definitions are those of the connections.")
    load_anew()
    return dg.SkipReason("The connections have changed; their definitions were loaded anew.")


def remove_connections(
    context: dg.SensorEvaluationContext, database_url: SecretStr
) -> dg.SkipReason:
    """Delete removed connections, from Dagster first: in PostgreSQL they would be found no more."""
    give_up_at = time.monotonic() + _REMOVAL_SECONDS
    removed = list_removed(database_url)
    for seq, connection_id in removed:
        seconds = give_up_at - time.monotonic()
        if seconds > 0 and _forget(context.instance, connection_id):
            is_gone = remove_connection_data(database_url, seq, seconds=seconds)
            context.log.info("%s: %s", connection_id, "removed" if is_gone else "being removed")
    return dg.SkipReason(f"{len(removed)} connections were being removed.")


def _forget(instance: dg.DagsterInstance, connection_id: str) -> bool:
    """Delete a connection's runs and assets in Dagster; False while some are left."""
    of_it = dg.RunsFilter(tags={CONNECTION_TAG: connection_id})
    runs = instance.get_runs(of_it, limit=_RUNS_A_TICK)
    for run in runs:
        if run.is_finished:
            instance.compute_log_manager.delete_logs(prefix=[run.run_id])
            instance.delete_run(run.run_id)
    if runs:
        return False
    keys = [key for key in instance.all_asset_keys() if key.path[0] == connection_id]
    if keys:
        instance.wipe_assets(keys)
    instance.event_log_storage.delete_concurrency_limit(pool_of(connection_id))
    return True
