"""Access tokens are deleted when their scans can no longer need them."""

import dagster as dg
import pytest

from hubspot_deals.defs.sensors import remove_scans
from hubspot_deals.warehouse.leases import hold_lease


@pytest.fixture
def tick(instance, definitions):
    def tick(**changes):
        resource = definitions.resources["pipeline"]
        if changes:
            resource = type(resource)(**{**resource.model_dump(), **changes})
        with dg.build_sensor_context(
            instance=instance, resources={"pipeline": resource}
        ) as context:
            return remove_scans(context)

    return tick


def test_a_token_is_dropped_when_its_scan_can_no_longer_need_it(
    accept, run_job, tick, look_up, query, change
):
    for scan_id in ("done", "fresh", "waiting", "paused"):
        accept(scan_id)
    assert run_job("done").success
    assert run_job("fresh").success
    change("UPDATE hubspot_deals.scans SET ended_at = now() - interval '25 hours'")
    change("UPDATE hubspot_deals.scans SET ended_at = now() WHERE scan_id = 'fresh'")
    change("UPDATE hubspot_deals.scans SET requested = 'pause' WHERE scan_id = 'paused'")
    tick()
    kept = "SELECT scan_id FROM hubspot_deals.credentials ORDER BY scan_id"
    assert query(kept) == [("fresh",), ("paused",), ("waiting",)]
    assert run_job("fresh").success

    served = look_up("done").generation
    assert not run_job("done").success
    after = look_up("done")
    assert (after.status, after.generation) == ("completed", served)
    assert "HUBSPOT_DEALS_CREDENTIAL_HOURS" in after.metadata["lastRerun"]["error"]
    assert "Start a new scan" in after.metadata["lastRerun"]["error"]

    tick(credential_hours=0)
    assert query(kept) == [("paused",), ("waiting",)]


def test_a_token_stays_while_its_scan_is_run_again(accept, run_job, tick, query, settings, change):
    accept()
    assert run_job().success
    change("UPDATE hubspot_deals.scans SET ended_at = now() - interval '25 hours'")
    with hold_lease(settings.database_url, "scan-1", "run-2", launch_epoch=None):
        tick()
        assert query("SELECT count(*) FROM hubspot_deals.credentials") == [(1,)]
    tick()
    assert query("SELECT count(*) FROM hubspot_deals.credentials") == [(0,)]


def test_a_scan_that_starts_anew_keeps_its_new_token(accept, run_job, tick, query, change):
    accept()
    assert run_job().success
    change("UPDATE hubspot_deals.scans SET ended_at = now() - interval '25 hours'")
    # As a restart does: in one transaction, before the sensor comes by.
    change("UPDATE hubspot_deals.scans SET outcome = NULL, ended_at = NULL")
    tick()
    assert query("SELECT count(*) FROM hubspot_deals.credentials") == [(1,)]
