"""Starts, describes, lists, steers and removes scans."""

import hashlib
from datetime import UTC, datetime
from typing import Final

import orjson

from api.cursors import Place
from api.database import ConnectionPool, read
from api.logs import request_id
from api.scans.launcher import ScanLauncher
from api.scans.remover import ScanRemover
from api.scans.run_statuses import RunStatuses
from api.scans.schemas import (
    AcceptedScan,
    ChangedScan,
    CheckpointInfo,
    RemovedScan,
    Scan,
    ScanAccepted,
    ScanCreate,
    ScanPage,
    ScanSummary,
)
from api.scans.stopper import RunStopper
from api.schemas import Confirmation, format_timestamp
from hubspot_deals.contract import ScanConfig, ScanStatus
from hubspot_deals.tracing import trace_parent
from hubspot_deals.warehouse import acceptance, removal, scans, transitions
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.scans import Checkpoint, ScanHead, ScanRecord

_REMOVE_SECONDS: Final = 10
"""How long an answer waits for a removal, which goes on behind it."""

_WAITS_FOR_RUN: Final = {ScanStatus.PENDING, ScanStatus.RESUMING}
_RESTS: Final = {ScanStatus.PAUSED, ScanStatus.RESUMING, ScanStatus.CRASHED}
_ALMOST: Final = 99.9
"""The most progress of a scan that is not completed."""


async def start_scan(  # noqa: PLR0913 - what a start is made of
    pool: ConnectionPool,
    keys: KeyRing,
    launcher: ScanLauncher,
    request: ScanCreate,
    *,
    idempotency_key: str | None,
    auto_resumes: int,
    restarts: bool = False,
) -> ScanAccepted:
    """Store the scan and its sealed token, then have it launched in the background.

    With `restarts`, one that has ended begins anew under its id.
    """
    config = request.to_config()
    token = keys.seal(request.config.auth.access_token, bound_to=config.scan_id)
    async with pool.connection() as connection:
        accepted = await acceptance.create_scan(
            connection,
            config,
            token,
            request_hash=request_hash(config),
            idempotency_key=idempotency_key,
            auto_resume_limit=auto_resumes,
            restarts=restarts,
            request_id=request_id.get() or None,
            trace_parent=trace_parent(),
        )
    if accepted.is_new:
        launcher.launch(config.scan_id, config.organization_id, accepted.epoch)
    return ScanAccepted(
        scan_id=config.scan_id,
        timestamp=accepted.accepted_at,
        data=AcceptedScan(scan_id=config.scan_id, warnings=request.warnings()),
    )


async def get_scan(pool: ConnectionPool, runs: RunStatuses, scan_id: str) -> Scan:
    """Describe one scan, asking Dagster about its run only while the scan waits for it."""
    record, checkpoint = await read(
        pool, lambda connection: scans.get_scan_with_checkpoint(connection, scan_id)
    )
    run_status = None
    if record.status in _WAITS_FOR_RUN and record.run_id is not None:
        run_status = await runs.find(record.run_id)
    return describe_scan(record, checkpoint, run_status=run_status, now=datetime.now(UTC))


async def page_of_scans(
    pool: ConnectionPool, organizations: list[str] | None, place: Place
) -> ScanPage:
    """Return a page of these organizations' scans (None: all), newest first."""
    found, total = await read(
        pool,
        lambda connection: scans.page_of_scans(
            connection,
            organizations,
            # One more tells whether there are more, also where scans come and go between pages.
            limit=place.limit + 1,
            offset=place.offset,
            before=place.before,
        ),
    )
    heads, pagination = place.cut(found, total)
    return ScanPage(scans=[_summarize(head) for head in heads], pagination=pagination)


async def cancel_scan(
    pool: ConnectionPool, stopper: RunStopper, scan_id: str
) -> Confirmation[ChangedScan]:
    """End a scan for good; its run is terminated in the background."""
    async with pool.connection() as connection:
        record = await transitions.cancel_scan(connection, scan_id)
    stopper.stop(record.run_id, scan_id=scan_id)
    return _confirm("Scan cancelled successfully", scan_id, ScanStatus.CANCELLED)


async def pause_scan(
    pool: ConnectionPool, stopper: RunStopper, scan_id: str
) -> Confirmation[ChangedScan]:
    """Let a scan rest; its run is terminated in the background."""
    async with pool.connection() as connection:
        record = await transitions.pause_scan(connection, scan_id)
    stopper.stop(record.run_id, scan_id=scan_id)
    return _confirm("Scan paused successfully", scan_id, ScanStatus.PAUSED)


async def resume_scan(
    pool: ConnectionPool, launcher: ScanLauncher, scan_id: str
) -> Confirmation[ChangedScan]:
    """Let a scan go on; its run is launched in the background."""
    async with pool.connection() as connection:
        record = await transitions.resume_scan(connection, scan_id)
    launcher.launch(scan_id, record.organization_id, record.epoch)
    message = "Scan resumption accepted; it goes on from its last checkpoint in the background."
    return _confirm(message, scan_id, ScanStatus.RESUMING)


async def remove_scan(
    pool: ConnectionPool, remover: ScanRemover, scan_id: str
) -> Confirmation[RemovedScan]:
    """Hide a scan from every reader at once, and give its removal some time before answering."""
    async with pool.connection() as connection:
        marked = await removal.mark_scan_for_removal(connection, scan_id)
    await remover.remove([marked], wait_seconds=_REMOVE_SECONDS)
    return Confirmation(
        message="Scan removed successfully",
        data=RemovedScan(scan_id=scan_id, records_deleted=marked.records),
    )


def request_hash(config: ScanConfig) -> str:
    """Return what makes two requests the same one: everything in them but the credential."""
    text = orjson.dumps(config.to_json(), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()


def describe_scan(
    record: ScanRecord, checkpoint: Checkpoint | None, *, run_status: str | None, now: datetime
) -> Scan:
    """Project the recorded facts, and Dagster's word on the run if it was asked, onto the body."""
    metadata = {"runId": record.run_id, **record.metadata, "attempts": record.attempts}
    if run_status is not None:
        metadata["runStatus"] = run_status
    if record.results_removed_at is not None:
        metadata["resultsRemovedAt"] = format_timestamp(record.results_removed_at)
    return Scan(
        **_summarize(record).model_dump(),
        type=record.config["type"][0],
        last_heartbeat=record.heartbeat_at,
        resume_at=record.resume_at,
        duration=_duration(record, now),
        error_message=record.error_message,
        metadata=metadata,
        config={name: value for name, value in record.config.items() if name != "auth"},
        checkpoint_info=CheckpointInfo(
            latest_checkpoint=(checkpoint.position if checkpoint else None) or {},
            progress=progress(record.records_extracted, record.records_expected, record.status),
            last_checkpoint_at=checkpoint.committed_at if checkpoint else None,
        ),
    )


def progress(extracted: int, expected: int | None, status: ScanStatus) -> float | None:
    """Return percent done: 100 only for a completed scan, None while the whole is unknown."""
    if status is ScanStatus.COMPLETED:
        return 100.0
    if not expected:
        return None
    return min(round(100 * extracted / expected, 1), _ALMOST)


def _confirm(message: str, scan_id: str, status: ScanStatus) -> Confirmation[ChangedScan]:
    return Confirmation(message=message, data=ChangedScan(scan_id=scan_id, status=status))


def _summarize(record: ScanHead) -> ScanSummary:
    return ScanSummary(
        scan_id=record.scan_id,
        organization_id=record.organization_id,
        status=record.status,
        start_time=record.started_at,
        end_time=record.ended_at,
        records_extracted=record.records_extracted,
    )


def _duration(record: ScanRecord, now: datetime) -> float | None:
    """The time of a scan that nobody works on ends with its worker's last sign of life."""
    if record.started_at is None:
        return None
    last_seen = record.heartbeat_at if record.status in _RESTS else now
    end = record.ended_at or last_seen or record.started_at
    return max(round((end - record.started_at).total_seconds(), 3), 0.0)
