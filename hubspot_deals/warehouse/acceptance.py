"""Accepts scans: under a new id, or anew under the id of one that has ended."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from hubspot_deals.contract import LaunchReason, Outcome, ScanConfig
from hubspot_deals.errors import (
    IdempotencyConflictError,
    ScanActiveError,
    ScanExistsError,
    ScanNotFoundError,
)
from hubspot_deals.warehouse.credentials import SealedToken
from hubspot_deals.warehouse.scans import get_scan
from hubspot_deals.warehouse.states import (
    HAS_ENDED,
    IS_HELD,
    IS_VISIBLE,
    LAUNCH_CLAIM_SECONDS,
    LOCK_ID,
)

_CLAIM: Final = f"now() + interval '{LAUNCH_CLAIM_SECONDS} seconds'"
_MOMENT: Final = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""

_INSERT: Final = f"""
    INSERT INTO hubspot_deals.scans (scan_id, organization_id, config, request_hash,
        idempotency_key, auto_resume_limit, request_id, trace_parent, launch_claimed_until)
    VALUES (%(scan)s, %(organization)s, %(config)s, %(hash)s, %(key)s, %(limit)s, %(request)s,
        %(trace)s, {_CLAIM})
    ON CONFLICT DO NOTHING RETURNING true AS is_new, created_at AS accepted_at, epoch
"""

_CAN_RESTART: Final = f"""
    s.scan_id = %(scan)s AND s.organization_id = %(organization)s AND s.removal IS NULL
    AND {HAS_ENDED} AND NOT {IS_HELD}
"""

_KEEP_REQUEST: Final = f"""
    INSERT INTO hubspot_deals.earlier_requests
    SELECT s.organization_id, s.idempotency_key, s.scan_id, s.request_hash,
        coalesce(s.restarted_at, s.created_at)
    FROM hubspot_deals.scans s WHERE s.idempotency_key IS NOT NULL AND {_CAN_RESTART}
    ON CONFLICT DO NOTHING
"""

# The result that is served stays; what else was known of it is told by `metadata.served`, until the
# new attempt completes. A cleaned-up scan has none: its rows are gone, only their number is left.
_RESTART: Final = f"""
    UPDATE hubspot_deals.scans s SET config = %(config)s, request_hash = %(hash)s,
        idempotency_key = %(key)s, auto_resume_limit = %(limit)s, auto_resumes = 0,
        request_id = %(request)s, trace_parent = %(trace)s,
        restarted_at = now(), launch_claimed_until = {_CLAIM}, run_id = NULL,
        launch_reason = '{LaunchReason.RESTART}', requested = 'run', epoch = epoch + 1,
        outcome = NULL, error_message = NULL, started_at = NULL, ended_at = NULL,
        heartbeat_at = NULL, progress_at = NULL, lost_at = NULL, resume_at = NULL,
        resuming_since = NULL, records_expected = NULL, records_extracted = 0,
        working_generation = working_generation + 1,
        generation = CASE WHEN results_removed_at IS NULL THEN generation ELSE 0 END,
        results_removed_at = NULL,
        metadata = CASE WHEN generation = 0 OR results_removed_at IS NOT NULL THEN '{{}}'
            WHEN outcome = '{Outcome.COMPLETED}' THEN jsonb_build_object('served',
                jsonb_build_object('snapshot', generation, 'config', config,
                'startTime', {_MOMENT.format("started_at")},
                'endTime', {_MOMENT.format("ended_at")}))
            ELSE jsonb_build_object('served', metadata -> 'served') END
    WHERE {_CAN_RESTART} RETURNING true AS is_new, restarted_at AS accepted_at, epoch
"""

_SEAL: Final = """
    INSERT INTO hubspot_deals.credentials (scan_id, key_id, nonce, ciphertext, account)
    VALUES (%s, %s, %s, %s, %s) ON CONFLICT (scan_id) DO UPDATE SET key_id = EXCLUDED.key_id,
        nonce = EXCLUDED.nonce, ciphertext = EXCLUDED.ciphertext, account = EXCLUDED.account
"""

_REQUEST: Final = f"""
    SELECT s.request_hash, coalesce(s.restarted_at, s.created_at) AS accepted_at
    FROM hubspot_deals.scans s WHERE s.organization_id = %(organization)s
    AND s.idempotency_key = %(key)s AND {IS_VISIBLE}
    UNION ALL
    SELECT e.request_hash, e.accepted_at FROM hubspot_deals.earlier_requests e
    JOIN hubspot_deals.scans s USING (scan_id) WHERE e.organization_id = %(organization)s
    AND e.idempotency_key = %(key)s AND {IS_VISIBLE}
"""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A request that was granted, now or (`is_new` False) when it came for the first time."""

    is_new: bool
    accepted_at: datetime
    epoch: int
    """For which the run is to be launched."""


@dataclass(frozen=True, slots=True)
class _Request:
    request_hash: str
    accepted_at: datetime


async def create_scan(  # noqa: PLR0913 - one parameter per fact of a start
    connection: AsyncConnection[Any],
    config: ScanConfig,
    token: SealedToken,
    *,
    request_hash: str,
    idempotency_key: str | None = None,
    auto_resume_limit: int = 5,
    restarts: bool = False,
    request_id: str | None = None,
    trace_parent: str | None = None,
) -> Acceptance:
    """Accept a scan and its credential in one transaction, with the launch claimed by the caller.

    With `restarts`, a scan of the same organization that has ended begins anew under its id; what
    it serves is served until the new attempt completes. Raises ScanExistsError, ScanActiveError
    (only with `restarts`), or IdempotencyConflictError when the key came with another request.
    """
    values = {
        "scan": config.scan_id,
        "organization": config.organization_id,
        "config": Jsonb(config.to_json()),
        "hash": request_hash,
        "key": idempotency_key,
        "limit": auto_resume_limit,
        "request": request_id,
        "trace": trace_parent,
    }
    try:
        async with connection.transaction():
            await connection.execute(LOCK_ID.format(kind="xact_lock"), (config.scan_id,))
            accepted = await _accept(connection, values, restarts=restarts)
            if accepted.is_new:
                await connection.execute(
                    _SEAL,
                    (config.scan_id, token.key_id, token.nonce, token.ciphertext, token.account),
                )
    except UniqueViolation:
        # Only a restart can meet it: another scan has got the key meanwhile.
        raise IdempotencyConflictError from None
    return accepted


async def _accept(
    connection: AsyncConnection[Any], values: dict[str, Any], *, restarts: bool
) -> Acceptance:
    if (replayed := await _find_replayed(connection, values)) is not None:
        return replayed
    cursor = connection.cursor(row_factory=class_row(Acceptance))
    await cursor.execute(_INSERT, values)
    if (accepted := await cursor.fetchone()) is not None:
        return accepted
    # Either the id is taken, or the key since it was looked for.
    if (replayed := await _find_replayed(connection, values)) is not None:
        return replayed
    if restarts:
        await connection.execute(_KEEP_REQUEST, values)
        await cursor.execute(_RESTART, values)
        if (accepted := await cursor.fetchone()) is not None:
            return accepted
        await _raise_if_active(connection, values["scan"], values["organization"])
    raise ScanExistsError(values["scan"])


async def _find_replayed(
    connection: AsyncConnection[Any], values: dict[str, Any]
) -> Acceptance | None:
    """Return what was granted under the key; raises IdempotencyConflictError."""
    if values["key"] is None:
        return None
    cursor = connection.cursor(row_factory=class_row(_Request))
    await cursor.execute(_REQUEST, values)
    if (earlier := await cursor.fetchone()) is None:
        return None
    if earlier.request_hash != values["hash"]:
        raise IdempotencyConflictError
    return Acceptance(is_new=False, accepted_at=earlier.accepted_at, epoch=0)


async def _raise_if_active(
    connection: AsyncConnection[Any], scan_id: str, organization_id: str
) -> None:
    """Say of an own scan that it is at work; of a foreign one nothing but that it exists."""
    try:
        scan = await get_scan(connection, scan_id)
    except ScanNotFoundError:
        return
    if scan.organization_id == organization_id and (scan.is_held or scan.outcome is None):
        raise ScanActiveError(scan_id, scan.status)
