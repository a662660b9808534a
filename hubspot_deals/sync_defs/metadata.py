"""What a sync tells about each of its tables in Dagster."""

from typing import Any

import dagster as dg

from hubspot_deals.defs.markdown import as_markdown
from hubspot_deals.sync_defs.checks import MAIN_TABLE
from hubspot_deals.syncing.reports import SyncReport
from hubspot_deals.warehouse.syncs.tallies import Tally


def metadata_of(
    report: SyncReport, tallied: Tally, table_name: str
) -> dict[str, dg.MetadataValue[Any]]:
    """Return a table's metadata: how many rows it has, and what the run has done to it.

    The deals tell of the whole run. Dagster's UI plots the numbers over the partitions.
    """
    rows = tallied.rows[table_name]
    metadata: dict[str, dg.MetadataValue[Any]] = {"dagster/row_count": dg.MetadataValue.int(rows)}
    if (counts := report.counts.get(table_name)) is not None:
        metadata |= {
            "inserted": dg.MetadataValue.int(counts.inserted),
            "updated": dg.MetadataValue.int(counts.updated),
            "deleted": dg.MetadataValue.int(counts.deleted),
        }
    if (preview := tallied.previews.get(table_name)) is not None:
        metadata["preview"] = dg.MetadataValue.md(as_markdown(preview, if_empty="nothing yet"))
    if table_name == "deal_tombstones":
        metadata["reasons"] = dg.MetadataValue.json(dict(report.tombstones))
    return metadata | (_of_run(report) if table_name == MAIN_TABLE else {})


def _of_run(report: SyncReport) -> dict[str, dg.MetadataValue[Any]]:
    read_until = report.read_until
    return {
        "kind": dg.MetadataValue.text(report.kind.value),
        "is_proved": dg.MetadataValue.bool(report.is_proved),
        "unlocated": dg.MetadataValue.int(report.unlocated),
        "tombstones": dg.MetadataValue.int(report.tombstones.total()),
        "refreshed": dg.MetadataValue.int(report.refreshed),
        "requests": dg.MetadataValue.int(report.requests),
        "retries": dg.MetadataValue.int(report.retries),
        "throttled_seconds": dg.MetadataValue.float(round(report.throttled_seconds, 3)),
        "seconds": dg.MetadataValue.float(round(report.seconds, 3)),
        "unfit_values": dg.MetadataValue.json(dict(report.unfit_values)),
        "notes": dg.MetadataValue.json(report.notes),
        **({"read_until": dg.MetadataValue.timestamp(read_until)} if read_until else {}),
    }
