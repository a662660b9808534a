"""Scan rows as callers ask for them: look one up, list and count them.

They are accepted in `acceptance.py`; what the worker of a scan writes is in `leases.py`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import AsyncRowFactory, class_row, dict_row, scalar_row

from hubspot_deals.contract import Outcome, ScanFacts, ScanStatus, derive_status
from hubspot_deals.errors import ScanNotFoundError
from hubspot_deals.warehouse.states import (
    IS_HELD,
    IS_VISIBLE,
    LOOK_AGAIN_SECONDS,
    WILL_RESUME,
)

_Scan = TypeVar("_Scan", bound="ScanHead")

_HEAD_COLUMNS: Final = f"""
    s.scan_id, s.seq, s.organization_id, s.started_at, s.ended_at, s.records_extracted, s.outcome,
    s.requested = 'pause' AS is_paused, s.resuming_since IS NOT NULL AS is_resuming,
    {IS_HELD} AS is_held, {WILL_RESUME} AS will_resume
"""
_COLUMNS: Final = f"""{_HEAD_COLUMNS},
    s.config, s.created_at, s.run_id, s.epoch, s.heartbeat_at,
    s.records_expected, s.generation, s.error_message, s.metadata, s.attempts, s.resume_at,
    s.results_removed_at, s.restarted_at
"""
_ONE: Final = f"""
    SELECT {_COLUMNS} FROM hubspot_deals.scans s WHERE s.scan_id = %(scan)s AND {IS_VISIBLE}
"""
_WITH_CHECKPOINT: Final = f"""
    SELECT {_COLUMNS}, c.checkpoint AS position, c.committed_at
    FROM hubspot_deals.scans s LEFT JOIN LATERAL (
        SELECT c.checkpoint, c.committed_at FROM hubspot_deals.scan_chunks c
        WHERE c.scan_id = s.scan_id AND c.table_name = 'deals' AND c.generation =
            CASE s.outcome WHEN 'completed' THEN s.generation ELSE s.working_generation END
        ORDER BY c.chunk_no DESC LIMIT 1
    ) c ON true
    WHERE s.scan_id = %(scan)s AND {IS_VISIBLE}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanHead:
    """What a list shows of a scan, with whether a live worker holds it right now."""

    scan_id: str
    seq: int
    organization_id: str
    started_at: datetime | None
    ended_at: datetime | None
    records_extracted: int
    outcome: str | None
    is_paused: bool
    is_resuming: bool
    is_held: bool
    will_resume: bool

    @property
    def status(self) -> ScanStatus:
        """The status that these facts allow."""
        return derive_status(
            ScanFacts(
                outcome=Outcome(self.outcome) if self.outcome else None,
                is_paused=self.is_paused,
                is_held=self.is_held,
                is_resuming=self.is_resuming,
                has_started=self.started_at is not None,
                will_resume=self.will_resume,
            )
        )

    @property
    def seems_lost(self) -> bool:
        """Whether the worker is gone, or was caught between its last write and its end."""
        is_at_rest = self.outcome or self.is_paused or self.is_held or self.is_resuming
        return self.started_at is not None and not is_at_rest


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRecord(ScanHead):
    """One scan row, with whether a live worker holds it right now."""

    config: dict[str, Any]
    created_at: datetime
    run_id: str | None
    epoch: int
    heartbeat_at: datetime | None
    records_expected: int | None
    generation: int
    error_message: str | None
    metadata: dict[str, Any]
    attempts: list[dict[str, str]]
    resume_at: datetime | None
    results_removed_at: datetime | None
    restarted_at: datetime | None = None

    @property
    def served_config(self) -> dict[str, Any]:
        """What was asked for when what is served was read: not what a restart asks for."""
        config: dict[str, Any] = self._served.get("config", self.config)
        return config

    @property
    def served_end(self) -> datetime | None:
        """When what is served was completed, whatever came of a restart since."""
        end = self._served.get("endTime")
        return self.ended_at if end is None else datetime.fromisoformat(end)

    @property
    def _served(self) -> dict[str, Any]:
        return self.metadata.get("served") or {}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The end of the last committed chunk."""

    position: dict[str, Any] | None
    committed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _CheckpointedScan(ScanRecord):
    position: dict[str, Any] | None
    committed_at: datetime | None

    @property
    def latest(self) -> Checkpoint | None:
        return Checkpoint(self.position, self.committed_at) if self.committed_at else None


@dataclass(frozen=True, slots=True)
class ScanStatistics:
    """Counts over all scans, or over one organization's."""

    total: int
    by_status: dict[str, int]
    created_in_7_days: int
    records_extracted: int


async def find_account(connection: AsyncConnection[Any], scan_id: str) -> str | None:
    """Return what stands for the scan's access token; None when it is from an older release."""
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute(
        "SELECT account FROM hubspot_deals.credentials WHERE scan_id = %s", (scan_id,)
    )
    return await cursor.fetchone()


async def get_scan(connection: AsyncConnection[Any], scan_id: str) -> ScanRecord:
    """Return one scan; raises ScanNotFoundError."""
    records = await _select(connection, class_row(ScanRecord), _ONE, {"scan": scan_id})
    if not records:
        raise ScanNotFoundError(scan_id)
    return records[0]


async def get_scan_with_checkpoint(
    connection: AsyncConnection[Any], scan_id: str
) -> tuple[ScanRecord, Checkpoint | None]:
    """Return one scan, and where reading deals ended or got to; raises ScanNotFoundError."""
    factory = class_row(_CheckpointedScan)
    found = await _select(connection, factory, _WITH_CHECKPOINT, {"scan": scan_id})
    if not found:
        raise ScanNotFoundError(scan_id)
    return found[0], found[0].latest


async def page_of_scans(
    connection: AsyncConnection[Any],
    organizations: list[str] | None,
    *,
    limit: int,
    offset: int = 0,
    before: int | None = None,
) -> tuple[list[ScanHead], int]:
    """Return one page of scans of these organizations (None: all), newest first, and their number.

    `before` the scan with that `seq`, if one is named: no other scan comes in between.
    """
    own = _condition(organizations)
    older = "" if before is None else "AND s.seq < %(before)s"
    values = _condition_values(organizations) | {
        "limit": limit,
        "offset": offset,
        "before": before,
    }
    page = f"""
        SELECT {_HEAD_COLUMNS} FROM hubspot_deals.scans s WHERE {IS_VISIBLE} {own} {older}
        ORDER BY s.seq DESC LIMIT %(limit)s OFFSET %(offset)s
    """
    heads = await _select(connection, class_row(ScanHead), page, values)
    counter = connection.cursor(row_factory=scalar_row)
    await counter.execute(
        "SELECT coalesce(sum(s.scans), 0)::bigint FROM hubspot_deals.scan_counts s"
        f" WHERE true {own}",
        values,
    )
    return heads, await counter.fetchone() or 0


def _condition(organizations: list[str] | None) -> str:
    """Return a condition of its own for each case, so that each has a plan of its own."""
    if organizations is None:
        return ""
    if len(organizations) == 1:
        return "AND s.organization_id = %(organization)s"
    return "AND s.organization_id = ANY(%(organizations)s)"


def _condition_values(organizations: list[str] | None) -> dict[str, Any]:
    only = organizations[0] if organizations and len(organizations) == 1 else None
    return {"organization": only, "organizations": organizations}


async def _select(
    connection: AsyncConnection[Any],
    factory: AsyncRowFactory[_Scan],
    statement: str,
    values: dict[str, Any],
) -> list[_Scan]:
    """Read scans with their locks. A crash is believed when it is read twice.

    The locks are not part of the statement's snapshot: a worker that records its outcome and goes
    while the statement runs is seen without outcome and without lock.
    """
    cursor = connection.cursor(row_factory=factory)
    for _ in range(2):
        await cursor.execute(statement, values)
        found = await cursor.fetchall()
        if not any(scan.seems_lost for scan in found):
            break
    return found


async def record_launch(
    connection: AsyncConnection[Any], scan_id: str, run_id: str, epoch: int
) -> None:
    """Note the run that was launched for an epoch, unless the scan has moved on by now."""
    await connection.execute(
        "UPDATE hubspot_deals.scans SET run_id = %s,"
        f" launch_claimed_until = now() + interval '{LOOK_AGAIN_SECONDS} seconds'"
        " WHERE scan_id = %s AND epoch = %s AND run_id IS NULL",
        (run_id, scan_id, epoch),
    )


async def release_launch_claim(connection: AsyncConnection[Any], scan_id: str, epoch: int) -> None:
    """Leave the launch for an epoch to the sensor at once instead of when the claim runs out."""
    await connection.execute(
        "UPDATE hubspot_deals.scans SET launch_claimed_until = NULL"
        " WHERE scan_id = %s AND epoch = %s",
        (scan_id, epoch),
    )


async def get_statistics(
    connection: AsyncConnection[Any], organizations: list[str] | None = None
) -> ScanStatistics:
    """Count scans of these organizations (None: all) by status, and the deals they extracted.

    What has ended is kept counted; what has not is few, and what it does can change any moment.
    """
    cursor = connection.cursor(row_factory=dict_row)
    statement = _STATISTICS.format(own=_condition(organizations))
    await cursor.execute(statement, _condition_values(organizations))
    ended = await cursor.fetchone() or {}
    groups = ended["unfinished"]
    by_status = {outcome.value: ended[outcome] for outcome in Outcome if ended[outcome]}
    for group in groups:
        facts = {name: group[name] for name in ScanFacts.__dataclass_fields__ if name in group}
        status = derive_status(ScanFacts(outcome=None, **facts))
        by_status[status] = by_status.get(status, 0) + group["scans"]
    return ScanStatistics(
        total=sum(by_status.values()),
        by_status=by_status,
        created_in_7_days=ended["recent"],
        records_extracted=ended["records"] + sum(group["records"] for group in groups),
    )


# One statement, so that a scan which ends meanwhile is counted once.
_STATISTICS: Final = f"""
    SELECT coalesce(sum(s.completed), 0)::bigint AS completed,
        coalesce(sum(s.failed), 0)::bigint AS failed,
        coalesce(sum(s.cancelled), 0)::bigint AS cancelled,
        coalesce(sum(s.records), 0)::bigint AS records, (
            SELECT count(*) FROM hubspot_deals.scans s
            WHERE s.created_at > now() - interval '7 days' AND {IS_VISIBLE} {{own}}
        ) AS recent, (
            SELECT coalesce(jsonb_agg(u), '[]') FROM (
                SELECT s.requested = 'pause' AS is_paused, {IS_HELD} AS is_held,
                    s.resuming_since IS NOT NULL AS is_resuming,
                    s.started_at IS NOT NULL AS has_started, {WILL_RESUME} AS will_resume,
                    count(*) AS scans, coalesce(sum(s.records_extracted), 0)::bigint AS records
                FROM hubspot_deals.scans s
                WHERE s.outcome IS NULL AND {IS_VISIBLE} {{own}} GROUP BY 1, 2, 3, 4, 5
            ) u
        ) AS unfinished
    FROM hubspot_deals.scan_counts s WHERE true {{own}}
"""
