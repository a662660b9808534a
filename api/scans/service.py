"""Starts, describes and lists scans."""

import asyncio
import hashlib
from datetime import UTC, datetime
from typing import Final

import orjson

from api.dagster.gateway import ENDED_EARLY, DagsterGateway
from api.dependencies import ConnectionPool
from api.errors import DagsterRefusedError, DagsterUnavailableError
from api.scans.launcher import ScanLauncher
from api.scans.schemas import (
    AcceptedScan,
    CheckpointInfo,
    Scan,
    ScanAccepted,
    ScanCreate,
    ScanPage,
    ScanSummary,
)
from api.schemas import Pagination
from hubspot_deals.contract import Outcome, ScanConfig, ScanFacts, ScanStatus, derive_status
from hubspot_deals.warehouse import scans
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.scans import Checkpoint, ScanRecord

_ASK_SECONDS: Final = 2
"""How long a status waits for Dagster, whose word only refines it."""

_UNSTARTED: Final = {"FAILURE": Outcome.FAILED, "CANCELED": Outcome.CANCELLED}
"""What Dagster's word on a run means for a scan that the run has not taken up."""

_ALMOST: Final = 99.9
"""The most progress of a scan that is not completed."""


async def start_scan(
    pool: ConnectionPool,
    keys: KeyRing,
    launcher: ScanLauncher,
    request: ScanCreate,
    idempotency_key: str | None,
) -> ScanAccepted:
    """Store the scan and its sealed token, then have it launched in the background."""
    config = request.to_config()
    token = keys.seal(request.config.auth.access_token, bound_to=config.scan_id)
    async with pool.connection() as connection:
        is_new = await scans.create_scan(
            connection,
            config,
            token,
            request_hash=request_hash(config),
            idempotency_key=idempotency_key,
        )
    if is_new:
        launcher.launch(config.scan_id, config.organization_id)
    return ScanAccepted(data=AcceptedScan(scan_id=config.scan_id))


async def get_scan(pool: ConnectionPool, gateway: DagsterGateway, scan_id: str) -> Scan:
    """Describe one scan, asking Dagster about its run only while no worker has taken it up."""
    async with pool.connection() as connection:
        record = await scans.get_scan(connection, scan_id)
        checkpoint = await scans.find_latest_checkpoint(connection, scan_id)
    run_status = None
    if record.status is ScanStatus.PENDING and record.run_id is not None:
        run_status = await _find_run_status(gateway, record.run_id)
    return describe_scan(record, checkpoint, run_status=run_status, now=datetime.now(UTC))


async def page_of_scans(
    pool: ConnectionPool, organization_id: str | None, *, limit: int, offset: int
) -> ScanPage:
    """Return one page of scans, newest first."""
    async with pool.connection() as connection:
        records, total = await scans.page_of_scans(
            connection, organization_id, limit=limit, offset=offset
        )
    return ScanPage(
        scans=[_summarize(record, record.status) for record in records],
        pagination=Pagination.of(total=total, limit=limit, offset=offset, returned=len(records)),
    )


def request_hash(config: ScanConfig) -> str:
    """Return what makes two requests the same one: everything in them but the credential."""
    text = orjson.dumps(config.to_json(), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()


def describe_scan(
    record: ScanRecord, checkpoint: Checkpoint | None, *, run_status: str | None, now: datetime
) -> Scan:
    """Project the recorded facts, and Dagster's word on the run if it was asked, onto the body."""
    status = derive_status(
        ScanFacts(
            outcome=Outcome(record.outcome) if record.outcome else None,
            has_started=record.started_at is not None,
            is_lease_held=record.is_lease_held,
            unstarted_run=_UNSTARTED.get(run_status or ""),
        )
    )
    metadata = {"runId": record.run_id, **record.metadata}
    message = record.error_message
    if run_status is not None:
        metadata["runStatus"] = run_status
    if run_status in ENDED_EARLY and record.outcome is None and message is None:
        message = (
            f"Dagster run {record.run_id} ended as {run_status} before the scan began; "
            "its log in the Dagster UI says why"
        )
    return Scan(
        **_summarize(record, status).model_dump(),
        type=record.config["type"][0],
        last_heartbeat=record.heartbeat_at,
        duration=_duration(record, status, now),
        error_message=message,
        metadata=metadata,
        config={name: value for name, value in record.config.items() if name != "auth"},
        checkpoint_info=CheckpointInfo(
            latest_checkpoint=(checkpoint.position if checkpoint else None) or {},
            progress=progress(record.records_extracted, record.records_expected, status),
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


def _summarize(record: ScanRecord, status: ScanStatus) -> ScanSummary:
    return ScanSummary(
        scan_id=record.scan_id,
        organization_id=record.organization_id,
        status=status,
        start_time=record.started_at,
        end_time=record.ended_at,
        records_extracted=record.records_extracted,
    )


def _duration(record: ScanRecord, status: ScanStatus, now: datetime) -> float | None:
    """A crashed scan's time ends with its last sign of life."""
    if record.started_at is None:
        return None
    last_seen = record.heartbeat_at if status is ScanStatus.CRASHED else now
    end = record.ended_at or last_seen or record.started_at
    return max(round((end - record.started_at).total_seconds(), 3), 0.0)


async def _find_run_status(gateway: DagsterGateway, run_id: str) -> str | None:
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            return await gateway.find_run_status(run_id)
    except (TimeoutError, DagsterUnavailableError, DagsterRefusedError):
        return None
