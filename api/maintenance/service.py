"""Removes old results and finds scans whose workers are gone."""

from api.database import ConnectionPool
from api.maintenance.schemas import CleanedUp, DetectedCrashes
from api.scans.remover import ScanRemover
from api.schemas import Confirmation
from hubspot_deals.warehouse import removal, transitions


async def clean_up(
    pool: ConnectionPool, remover: ScanRemover, *, days_old: int, purge: bool
) -> Confirmation[CleanedUp]:
    """Hide old results from every reader at once; they are deleted in the background."""
    async with pool.connection() as connection:
        marked = await removal.mark_old_scans(connection, days_old=days_old, purge=purge)
    await remover.remove(marked)
    return Confirmation(
        message=f"Successfully cleaned up {len(marked)} old scan results",
        data=CleanedUp(cleaned_count=len(marked), days_old=days_old),
    )


async def detect_crashed(
    pool: ConnectionPool, *, timeout_minutes: int
) -> Confirmation[DetectedCrashes]:
    """Find scans whose workers are gone, or make no progress and are shut out."""
    async with pool.connection() as connection:
        scan_ids = await transitions.detect_crashed(connection, silent_minutes=timeout_minutes)
    return Confirmation(
        message=f"Detected {len(scan_ids)} crashed jobs",
        data=DetectedCrashes(
            crashed_job_ids=scan_ids, crashed_count=len(scan_ids), timeout_minutes=timeout_minutes
        ),
    )
