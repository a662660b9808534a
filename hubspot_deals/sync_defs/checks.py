"""What must hold of a connection's tables, and whether it does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg
from pydantic import SecretStr

from hubspot_deals.sync_defs.partitions import build_partitions, complete_windows
from hubspot_deals.syncing.reports import SyncReport
from hubspot_deals.tables import DEALS_CURRENT
from hubspot_deals.warehouse.syncs.connections import StoredConnection
from hubspot_deals.warehouse.syncs.launches import find_gaps, get_freshness
from hubspot_deals.warehouse.syncs.tallies import Tally

MAIN_TABLE: Final = DEALS_CURRENT.name
FRESH_CHECK: Final = "is_fresh"
GAPS_CHECK: Final = "no_partition_is_missing"
IDS_CHECK: Final = "ids_agree"
ENDS_CHECK: Final = "no_live_deal_has_an_end"
_LATE: Final = timedelta(minutes=15)
"""A partition that ended so long ago should be there."""
_MOST_SHOWN: Final = 20
_SPECS: Final[Mapping[str, str]] = {
    FRESH_CHECK: "Every deal is as it was two partitions ago, or later.",
    GAPS_CHECK: "Every partition that is over was synchronized.",
    IDS_CHECK: "The live deals are those that HubSpot counts.",
    ENDS_CHECK: "No deal is both live and archived, merged or deleted.",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found, for a run's result or a sensor's event."""

    check_name: str
    passed: bool
    description: str
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    metadata: dict[str, dg.MetadataValue[Any]] = field(default_factory=dict)

    def result(self, connection_id: str) -> dg.AssetCheckResult:
        """Return it as what a run yields."""
        return dg.AssetCheckResult(
            asset_key=[connection_id, MAIN_TABLE],
            check_name=self.check_name,
            passed=self.passed,
            severity=self.severity,
            description=self.description,
            metadata=self.metadata,
        )

    def event(self, connection_id: str) -> dg.AssetCheckEvaluation:
        """Return it as what a sensor reports."""
        return dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey([connection_id, MAIN_TABLE]),
            check_name=self.check_name,
            passed=self.passed,
            severity=self.severity,
            description=self.description,
            metadata=self.metadata,
        )


def build_check_specs(connection_id: str) -> list[dg.AssetCheckSpec]:
    """Return the checks that each run makes; between the runs a sensor repeats the first two."""
    return [
        dg.AssetCheckSpec(name, asset=[connection_id, MAIN_TABLE], description=description)
        for name, description in _SPECS.items()
    ]


def check_sync(
    database_url: SecretStr, connection: StoredConnection, report: SyncReport, tallied: Tally
) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the checks for what a run has done."""
    connection_id, now = connection.connection_id, datetime.now(UTC)
    complete = complete_windows(build_partitions(connection), now)
    if complete is None:
        msg = f"Connection {connection_id} has no complete partition."
        raise ValueError(msg)
    stretch = (connection_id, complete.start, complete.end)
    gaps = find_gaps(database_url, [stretch])[connection_id]
    fresh_as_of = get_freshness(database_url, connection_id)
    yield judge_gaps(connection, gaps, now).result(connection_id)
    yield judge_freshness(connection, fresh_as_of, now).result(connection_id)
    yield Verdict(
        ENDS_CHECK,
        passed=not tallied.live_and_gone,
        description="No live deal has a tombstone."
        if not tallied.live_and_gone
        else "Live deals have tombstones.",
        metadata={"deals": dg.MetadataValue.json(list(tallied.live_and_gone))},
    ).result(connection_id)
    yield Verdict(
        IDS_CHECK,
        passed=report.unlocated == 0,
        description=f"{report.unlocated} deals differ from HubSpot's count and are being looked"
        " for; each sync gets nearer to them."
        if report.unlocated
        else "The live deals are as many as HubSpot counts.",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "unlocated": dg.MetadataValue.int(report.unlocated),
            "is_proved": dg.MetadataValue.bool(report.is_proved),
        },
    ).result(connection_id)


def judge_freshness(
    connection: StoredConnection, fresh_as_of: datetime | None, now: datetime
) -> Verdict:
    """Tell whether a connection's deals are as new as its settings promise."""
    allowed = connection.settings.cadence.allowed_lag
    passed = fresh_as_of is not None and now - fresh_as_of <= allowed
    state = f"as of {fresh_as_of:%Y-%m-%d %H:%M:%S} UTC" if fresh_as_of else "not yet loaded"
    return Verdict(
        FRESH_CHECK,
        passed,
        f"The deals are {state}." + ("" if connection.is_enabled else " Its syncs are paused."),
        _severity(connection),
        {"fresh_as_of": dg.MetadataValue.timestamp(fresh_as_of)} if fresh_as_of else {},
    )


def judge_gaps(
    connection: StoredConnection, gaps: Sequence[tuple[datetime, datetime]], now: datetime
) -> Verdict:
    """Tell whether partitions are missing that ended long enough ago."""
    partitions = build_partitions(connection)
    period = connection.settings.cadence.length
    late = [
        dg.TimeWindow(start, min(end, now - _LATE))
        for start, end in gaps
        if start + period <= now - _LATE
    ]
    missing = [key for gap in late for key in partitions.get_partition_keys_in_time_window(gap)]
    said = f"{len(missing)} partitions are missing." if missing else "No partition is missing."
    return Verdict(
        GAPS_CHECK,
        not missing,
        said + ("" if connection.is_enabled else " Its syncs are paused."),
        _severity(connection),
        {
            "missing": dg.MetadataValue.int(len(missing)),
            "last_missing": dg.MetadataValue.json(missing[-_MOST_SHOWN:]),
        },
    )


def _severity(connection: StoredConnection) -> dg.AssetCheckSeverity:
    """What nobody wants to be kept current may lag behind."""
    is_expected = not connection.is_enabled
    return dg.AssetCheckSeverity.WARN if is_expected else dg.AssetCheckSeverity.ERROR
