"""What loaded packages leave in the memory of a worker; a big scan loads hundreds of them."""

from dlt.common.configuration.utils import get_resolved_traces

from hubspot_deals.source.arrow import rows_to_arrow
from hubspot_deals.tables import DEALS
from hubspot_deals.warehouse.pipeline import ScanPipeline


def test_dlt_does_not_keep_the_settings_that_it_looks_up_for_each_package(settings, accept):
    accept()
    rows = [{"id": "1", "properties": {"dealname": "one"}}]
    with ScanPipeline(settings.database_url, "test_memory", session_name="test") as pipeline:
        get_resolved_traces().clear()
        for first_row in (1, 2):
            pipeline.load(
                {DEALS: [rows_to_arrow(DEALS, rows)]},
                scan_id="scan-1",
                first_rows={"deals": first_row},
            )

    assert not get_resolved_traces().all_traces
