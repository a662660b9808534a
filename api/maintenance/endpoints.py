"""Clean up old results, detect crashed scans."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import Pool
from api.json_body import JsonRoute
from api.maintenance import service
from api.maintenance.schemas import (
    CleanedUp,
    Cleanup,
    CleanupQuery,
    DetectedCrashes,
    DetectionQuery,
)
from api.scans.endpoints import Remover
from api.schemas import Confirmation, error_responses

router = APIRouter(prefix="/maintenance", tags=["maintenance"], route_class=JsonRoute)


@router.post("/cleanup", responses=error_responses(400))
async def clean_up(
    pool: Pool,
    remover: Remover,
    query: Annotated[CleanupQuery, Query()],
    body: Cleanup | None = None,
) -> Confirmation[CleanedUp]:
    """Remove the results of scans that ended long ago; their status is kept.

    Scans that have not ended are left alone. The body may be absent.
    """
    days_old = (body or Cleanup()).days_old
    return await service.clean_up(pool, remover, days_old=days_old, purge=query.purge)


@router.post("/detect-crashed", responses=error_responses(400))
async def detect_crashed(
    pool: Pool, query: Annotated[DetectionQuery, Query()]
) -> Confirmation[DetectedCrashes]:
    """List scans whose workers are gone, after shutting out those that make no progress.

    A scan that may still be resumed by itself is resumed.
    """
    return await service.detect_crashed(pool, timeout_minutes=query.timeout_minutes)
