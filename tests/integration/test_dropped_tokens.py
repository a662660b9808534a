"""Access tokens are deleted when their scans can no longer need them."""

from hubspot_deals.warehouse.leases import hold_lease


def test_a_token_is_dropped_when_its_scan_can_no_longer_need_it(
    accept, run_job, tick_removal, look_up, query, change
):
    for scan_id in ("done", "fresh", "waiting", "paused"):
        accept(scan_id)
    assert run_job("done").success
    assert run_job("fresh").success
    change("UPDATE hubspot_deals.scans SET ended_at = now() - interval '25 hours'")
    change("UPDATE hubspot_deals.scans SET ended_at = now() WHERE scan_id = 'fresh'")
    change("UPDATE hubspot_deals.scans SET requested = 'pause' WHERE scan_id = 'paused'")
    tick_removal()
    kept = "SELECT scan_id FROM hubspot_deals.credentials ORDER BY scan_id"
    assert query(kept) == [("fresh",), ("paused",), ("waiting",)]
    assert run_job("fresh").success

    served = look_up("done").generation
    assert not run_job("done").success
    after = look_up("done")
    assert (after.status, after.generation) == ("completed", served)
    assert "HUBSPOT_DEALS_CREDENTIAL_HOURS" in after.metadata["lastRerun"]["error"]
    assert "Start a new scan" in after.metadata["lastRerun"]["error"]

    tick_removal(credential_hours=0)
    assert query(kept) == [("paused",), ("waiting",)]


def test_a_token_stays_while_its_scan_is_run_again(
    accept, run_job, tick_removal, query, settings, change
):
    accept()
    assert run_job().success
    change("UPDATE hubspot_deals.scans SET ended_at = now() - interval '25 hours'")
    with hold_lease(settings.database_url, "scan-1", "run-2", launch_epoch=None):
        tick_removal()
        assert query("SELECT count(*) FROM hubspot_deals.credentials") == [(1,)]
    tick_removal()
    assert query("SELECT count(*) FROM hubspot_deals.credentials") == [(0,)]


def test_a_scan_that_starts_anew_keeps_its_new_token(accept, run_job, tick_removal, query, change):
    accept()
    assert run_job().success
    change("UPDATE hubspot_deals.scans SET ended_at = now() - interval '25 hours'")
    # As a restart does: in one transaction, before the sensor comes by.
    change("UPDATE hubspot_deals.scans SET outcome = NULL, ended_at = NULL")
    tick_removal()
    assert query("SELECT count(*) FROM hubspot_deals.credentials") == [(1,)]
