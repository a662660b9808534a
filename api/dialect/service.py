"""Tells of scans in the words of the verb-first document."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

import orjson

from api.access.actor import Actor
from api.database import ConnectionPool, read
from api.dialect.schemas import (
    ChangedExtraction,
    Extraction,
    ExtractionPage,
    ExtractionProgress,
    PageNumbers,
    UnknownExtraction,
    Word,
)
from api.errors import ScanNotCompletedError
from api.results.service import FoundPage, PageRequest, ResultReader
from api.scans.schemas import ChangedScan, RemovedScan
from api.scans.service import progress
from api.schemas import Confirmation
from hubspot_deals.contract import ScanStatus
from hubspot_deals.errors import ScanNotFoundError
from hubspot_deals.warehouse import scans
from hubspot_deals.warehouse.scans import Checkpoint, ScanRecord

DEFAULT_TABLE: Final = "deals"

_CRASHED: Final = "The worker is gone, and nobody goes on with the extraction unless asked to"
_ENDED: Final[dict[ScanStatus, Word]] = {
    ScanStatus.COMPLETED: "completed",
    ScanStatus.FAILED: "failed",
    ScanStatus.CANCELLED: "cancelled",
    # It waits for somebody, and whoever polls for an end must not wait with it.
    ScanStatus.CRASHED: "failed",
}


@dataclass(frozen=True, slots=True)
class WrittenPage:
    """A page as JSON, and where it lies."""

    body: bytes
    numbers: PageNumbers


async def describe_extraction(
    pool: ConnectionPool, actor: Actor, scan_id: str
) -> Extraction | UnknownExtraction:
    """Say where a scan stands, also of one that does not exist, or not for this caller."""
    try:
        record, checkpoint = await read(
            pool, lambda connection: scans.get_scan_with_checkpoint(connection, scan_id)
        )
    except ScanNotFoundError:
        return UnknownExtraction()
    if not actor.may_see(record.organization_id):
        return UnknownExtraction()
    return project(record, checkpoint)


def project(record: ScanRecord, checkpoint: Checkpoint | None) -> Extraction:
    """Put the recorded facts into the other document's words."""
    status = record.status
    moments = [
        record.created_at,
        record.restarted_at,
        record.started_at,
        record.heartbeat_at,
        record.ended_at,
        record.results_removed_at,
        checkpoint.committed_at if checkpoint else None,
    ]
    return Extraction(
        id=str(record.seq),
        scan_id=record.scan_id,
        status=word_for(record),
        state=status,
        started_at=record.started_at,
        completed_at=record.ended_at,
        error_message=_error_of(record),
        created_at=record.created_at,
        updated_at=max(moment for moment in moments if moment is not None),
        progress=_progress_of(record),
    )


def word_for(record: ScanRecord) -> Word:
    """Return the one of that document's words that is true of a scan.

    It has none for a pause: what has begun and not ended is running.
    """
    if (ended := _ENDED.get(record.status)) is not None:
        return ended
    return "pending" if record.started_at is None else "running"


def describe_change(
    done: Confirmation[ChangedScan] | Confirmation[RemovedScan],
) -> ChangedExtraction:
    """Say that a scan was cancelled or removed."""
    facts = done.data
    if isinstance(facts, RemovedScan):
        message = f"Extraction and {facts.records_deleted:,} records removed successfully"
    else:
        message = "Extraction cancelled successfully"
    return ChangedExtraction(
        message=message,
        scan_id=facts.scan_id,
        status="removed" if isinstance(facts, RemovedScan) else "cancelled",
        data=facts.model_dump(by_alias=True),
        timestamp=datetime.now(UTC),
    )


async def get_page(
    pool: ConnectionPool, results: ResultReader, request: PageRequest
) -> WrittenPage:
    """Return one page: of what a scan serves, whatever its next attempt does meanwhile."""
    while True:
        scan = await read(pool, partial(scans.get_scan, scan_id=request.scan_id))
        try:
            found = await results.get_page(request)
        except ScanNotCompletedError:
            return _write(scan, request, None)
        if (found.snapshot.seq, found.snapshot.generation) == (scan.seq, scan.generation):
            return _write(scan, request, found)
        # An attempt has completed since: status and rows are to be of one moment.


def _write(scan: ScanRecord, request: PageRequest, found: FoundPage | None) -> WrittenPage:
    numbers = PageNumbers.of(
        request.offset // request.limit + 1,
        request.limit,
        found.total if found else 0,
        found.next_cursor if found else None,
    )
    page = ExtractionPage(
        scan_id=scan.scan_id,
        status=word_for(scan),
        data=[],
        pagination=numbers,
        count=found.page.returned if found else 0,
        total_count=numbers.total_items,
        started_at=scan.started_at,
        completed_at=scan.ended_at,
        error_message=_error_of(scan),
        table_name=request.table_name or DEFAULT_TABLE,
        snapshot=scan.generation or None,
    )
    # The records stay as PostgreSQL has written them.
    records = orjson.Fragment(b"[%b]" % (found.page.records if found else b""))
    body = orjson.dumps(page.model_dump(by_alias=True) | {"data": records})
    return WrittenPage(body, numbers)


def _progress_of(record: ScanRecord) -> ExtractionProgress:
    word = word_for(record)
    return ExtractionProgress(
        total_users=1,
        completed_users=int(word in {"completed", "failed"}),
        total_events_extracted=record.records_extracted,
        failed_users=int(word == "failed"),
        successful_users=int(word == "completed"),
        percent=progress(record.records_extracted, record.records_expected, record.status),
    )


def _error_of(record: ScanRecord) -> str | None:
    if record.status is ScanStatus.CRASHED:
        return record.error_message or _CRASHED
    return record.error_message
