"""What loaded packages leave in the memory of a worker; a big scan loads hundreds of them."""

import gc

from hubspot_deals.source.arrow import rows_to_arrow
from hubspot_deals.tables import DEALS
from hubspot_deals.warehouse.pipeline import ScanPipeline

OBJECTS_PER_PACKAGE = 50
"""dlt's log of looked-up settings alone was more than a thousand."""


def test_packages_leave_nothing_behind(settings, accept):
    accept()
    rows = [{"id": "1", "properties": {"dealname": "one"}}]
    with ScanPipeline(settings.database_url, "test_memory", session_name="test") as pipeline:

        def load(first_row):
            pipeline.load(
                {DEALS: [rows_to_arrow(DEALS, rows)]},
                scan_id="scan-1",
                first_rows={"deals": first_row},
            )
            gc.collect()
            return len(gc.get_objects())

        load(1)
        before = load(2)
        after = [load(row) for row in range(3, 9)][-1]

    assert after - before < 6 * OBJECTS_PER_PACKAGE
