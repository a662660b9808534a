"""The stretches of time that a connection is synchronized in, as Dagster partitions."""

from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg

from hubspot_deals.sync_contract import Cadence
from hubspot_deals.warehouse.syncs.connections import StoredConnection


def build_partitions(connection: StoredConnection) -> dg.TimeWindowPartitionsDefinition:
    """Return the hours or days of a connection, in its own time zone.

    They begin at midnight of its start date, or else with the one before it was made: a connection
    has a complete partition from its first moment on, and with it something to launch.
    """
    settings = connection.settings
    zone = ZoneInfo(settings.time_zone)
    made = connection.created_at.astimezone(zone) - settings.cadence.length
    if settings.cadence is Cadence.DAILY:
        start = min(settings.start_date, made.date())
        return dg.DailyPartitionsDefinition(
            start_date=start.isoformat(), timezone=settings.time_zone
        )
    first = datetime.combine(min(settings.start_date, made.date()), datetime.min.time())
    return dg.HourlyPartitionsDefinition(start_date=first, timezone=settings.time_zone)


def complete_windows(
    partitions: dg.TimeWindowPartitionsDefinition, now: datetime
) -> dg.TimeWindow | None:
    """Return the stretch from the first partition to the last one that is over."""
    with dg.partition_loading_context(effective_dt=now):
        first, last = (
            partitions.get_first_partition_window(),
            partitions.get_last_partition_window(),
        )
    if first is None or last is None:
        return None
    return dg.TimeWindow(first.start, last.end)


def keys_within(
    partitions: dg.TimeWindowPartitionsDefinition, start: datetime, end: datetime
) -> dg.PartitionKeyRange:
    """Return the first and the last partition that lie in a stretch of whole partitions."""
    last = partitions.get_prev_partition_window(end)
    if last is None or last.start < start:
        msg = f"No whole partition lies between {start} and {end}."
        raise ValueError(msg)
    return dg.PartitionKeyRange(
        partitions.get_partition_key_for_timestamp(start.timestamp()),
        partitions.get_partition_key_for_timestamp(last.start.timestamp()),
    )
