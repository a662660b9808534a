"""What a sync tells about each of its tables in Dagster."""

from typing import Any, Final

import dagster as dg

from hubspot_deals.sync import SyncReport

_MAIN: Final = "deals_current"


def metadata_of(report: SyncReport, table_name: str) -> dict[str, dg.MetadataValue[Any]]:
    """Return a table's metadata; the deals tell of the whole run."""
    rows = report.counts.get(table_name)
    metadata: dict[str, dg.MetadataValue[Any]] = {}
    if rows is not None:
        metadata["dagster/row_count"] = dg.MetadataValue.int(rows)
    if table_name != _MAIN:
        return metadata
    return metadata | {
        "kind": dg.MetadataValue.text(report.kind),
        "read_until": dg.MetadataValue.timestamp(report.read_until),
        "is_proved": dg.MetadataValue.bool(report.is_proved),
        "unlocated": dg.MetadataValue.int(report.unlocated),
        "requests": dg.MetadataValue.int(report.requests),
        "seconds": dg.MetadataValue.float(round(report.seconds, 3)),
    }
