"""Scan rows as callers ask for them: accept one, look it up, list and count them.

What the worker of a scan writes is in `leases.py`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row, scalar_row
from psycopg.types.json import Jsonb

from hubspot_deals.contract import Outcome, ScanConfig, ScanFacts, ScanStatus, derive_status
from hubspot_deals.errors import IdempotencyConflictError, ScanExistsError, ScanNotFoundError
from hubspot_deals.warehouse.credentials import SealedToken
from hubspot_deals.warehouse.states import (
    IS_HELD,
    IS_VISIBLE,
    LAUNCH_CLAIM_SECONDS,
    LOCK_ID,
    LOOK_AGAIN_SECONDS,
    WILL_RESUME,
)

_COLUMNS: Final = f"""
    s.seq, s.scan_id, s.organization_id, s.config, s.created_at, s.run_id, s.epoch,
    s.started_at, s.heartbeat_at, s.records_expected, s.generation, s.outcome, s.ended_at,
    s.error_message, s.records_extracted, s.metadata, s.attempts, s.resume_at,
    s.results_removed_at, s.requested = 'pause' AS is_paused,
    s.resuming_since IS NOT NULL AS is_resuming, {IS_HELD} AS is_held,
    {WILL_RESUME} AS will_resume
"""


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """One scan row, with whether a live worker holds it right now."""

    seq: int
    scan_id: str
    organization_id: str
    config: dict[str, Any]
    created_at: datetime
    run_id: str | None
    epoch: int
    started_at: datetime | None
    heartbeat_at: datetime | None
    records_expected: int | None
    generation: int
    outcome: str | None
    ended_at: datetime | None
    error_message: str | None
    records_extracted: int
    metadata: dict[str, Any]
    attempts: list[dict[str, str]]
    resume_at: datetime | None
    results_removed_at: datetime | None
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


@dataclass(frozen=True, slots=True)
class ScanStatistics:
    """Counts over all scans, or over one organization's."""

    total: int
    by_status: dict[str, int]
    created_in_7_days: int
    records_extracted: int


async def create_scan(  # noqa: PLR0913 - one parameter per fact of a start
    connection: AsyncConnection[Any],
    config: ScanConfig,
    token: SealedToken,
    *,
    request_hash: str,
    idempotency_key: str | None = None,
    auto_resume_limit: int = 5,
) -> bool:
    """Accept a scan and its credential in one transaction, with the launch claimed by the caller.

    Returns False when the same request was already accepted under the same idempotency key.
    Raises ScanExistsError, or IdempotencyConflictError when the key came with another request.
    """
    async with connection.transaction():
        await connection.execute(LOCK_ID.format(kind="xact_lock"), (config.scan_id,))
        inserted = await connection.execute(
            f"""
            INSERT INTO hubspot_deals.scans
                (scan_id, organization_id, config, request_hash, idempotency_key,
                 auto_resume_limit, launch_claimed_until)
            VALUES (%s, %s, %s, %s, %s, %s, now() + interval '{LAUNCH_CLAIM_SECONDS} seconds')
            ON CONFLICT DO NOTHING
            """,
            (
                config.scan_id,
                config.organization_id,
                Jsonb(config.to_json()),
                request_hash,
                idempotency_key,
                auto_resume_limit,
            ),
        )
        if inserted.rowcount == 0:
            await _raise_unless_replayed(connection, config, request_hash, idempotency_key)
            return False
        await connection.execute(
            "INSERT INTO hubspot_deals.credentials (scan_id, key_id, nonce, ciphertext)"
            " VALUES (%s, %s, %s, %s)",
            (config.scan_id, token.key_id, token.nonce, token.ciphertext),
        )
    return True


async def _raise_unless_replayed(
    connection: AsyncConnection[Any],
    config: ScanConfig,
    request_hash: str,
    idempotency_key: str | None,
) -> None:
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute(
        "SELECT request_hash FROM hubspot_deals.scans"
        f" s WHERE organization_id = %s AND idempotency_key = %s AND {IS_VISIBLE}",
        (config.organization_id, idempotency_key),
    )
    earlier = await cursor.fetchone()
    if earlier is None:
        raise ScanExistsError(config.scan_id)
    if earlier != request_hash:
        raise IdempotencyConflictError


async def get_scan(connection: AsyncConnection[Any], scan_id: str) -> ScanRecord:
    """Return one scan; raises ScanNotFoundError."""
    wanted = f"WHERE s.scan_id = %(scan)s AND {IS_VISIBLE}"
    records = await _select_scans(connection, wanted, {"scan": scan_id})
    if not records:
        raise ScanNotFoundError(scan_id)
    return records[0]


async def page_of_scans(
    connection: AsyncConnection[Any], organization_id: str | None, *, limit: int, offset: int
) -> tuple[list[ScanRecord], int]:
    """Return one page of scans, newest first, and the number of all that match."""
    wanted = (
        "WHERE (%(organization)s::text IS NULL OR s.organization_id = %(organization)s)"
        f" AND {IS_VISIBLE}"
    )
    values = {"organization": organization_id, "limit": limit, "offset": offset}
    page = f"{wanted} ORDER BY s.seq DESC LIMIT %(limit)s OFFSET %(offset)s"
    records = await _select_scans(connection, page, values)
    counter = connection.cursor(row_factory=scalar_row)
    await counter.execute(f"SELECT count(*) FROM hubspot_deals.scans s {wanted}", values)
    return records, await counter.fetchone() or 0


async def _select_scans(
    connection: AsyncConnection[Any], clauses: str, values: dict[str, Any]
) -> list[ScanRecord]:
    """Read scans with their locks. A crash is believed when it is read twice.

    The locks are not part of the statement's snapshot: a worker that records its outcome and goes
    while the statement runs is seen without outcome and without lock.
    """
    cursor = connection.cursor(row_factory=class_row(ScanRecord))
    for _ in range(2):
        await cursor.execute(f"SELECT {_COLUMNS} FROM hubspot_deals.scans s {clauses}", values)
        records = await cursor.fetchall()
        if not any(record.seems_lost for record in records):
            break
    return records


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
    connection: AsyncConnection[Any], organization_id: str | None = None
) -> ScanStatistics:
    """Count scans by status and the deals they extracted."""
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(
        f"""
        SELECT s.outcome, s.requested = 'pause' AS is_paused,
            s.outcome IS NULL AND {IS_HELD} AS is_held,
            s.resuming_since IS NOT NULL AS is_resuming, s.started_at IS NOT NULL AS has_started,
            {WILL_RESUME} AS will_resume, count(*) AS scans,
            count(*) FILTER (WHERE s.created_at > now() - interval '7 days') AS recent,
            coalesce(sum(s.records_extracted), 0)::bigint AS records
        FROM hubspot_deals.scans s
        WHERE (%(organization)s::text IS NULL OR s.organization_id = %(organization)s)
        AND {IS_VISIBLE} GROUP BY 1, 2, 3, 4, 5, 6
        """,
        {"organization": organization_id},
    )
    groups = await cursor.fetchall()
    by_status: dict[str, int] = {}
    for group in groups:
        facts = {name: group[name] for name in ScanFacts.__dataclass_fields__}
        outcome = Outcome(group["outcome"]) if group["outcome"] else None
        status = derive_status(ScanFacts(**facts | {"outcome": outcome}))
        by_status[status] = by_status.get(status, 0) + group["scans"]
    return ScanStatistics(
        total=sum(group["scans"] for group in groups),
        by_status=by_status,
        created_in_7_days=sum(group["recent"] for group in groups),
        records_extracted=sum(group["records"] for group in groups),
    )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The end of the last committed chunk."""

    position: dict[str, Any] | None
    committed_at: datetime


async def find_latest_checkpoint(
    connection: AsyncConnection[Any], scan_id: str
) -> Checkpoint | None:
    """Return where reading deals ended, or got to in an unfinished scan; None at first."""
    cursor = connection.cursor(row_factory=class_row(Checkpoint))
    await cursor.execute(
        """
        SELECT c.checkpoint AS position, c.committed_at
        FROM hubspot_deals.scans s JOIN hubspot_deals.scan_chunks c USING (scan_id)
        WHERE s.scan_id = %s AND c.table_name = 'deals' AND c.generation =
            CASE s.outcome WHEN 'completed' THEN s.generation ELSE s.working_generation END
        ORDER BY c.chunk_no DESC LIMIT 1
        """,
        (scan_id,),
    )
    return await cursor.fetchone()
