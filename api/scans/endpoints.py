"""Start a scan, follow it, list scans."""

import re
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Query, Request, status
from pydantic import AfterValidator

from api.dependencies import Gateway, Keys, Pool, ScanId
from api.json_body import JsonRoute
from api.scans import service
from api.scans.launcher import ScanLauncher
from api.scans.schemas import Scan, ScanAccepted, ScanCreate, ScanPage
from api.schemas import (
    MAX_LIMIT,
    Answer,
    Offset,
    OrganizationFilter,
    error_responses,
    fault,
)

_KEY: Final = re.compile(r"[!-~]{1,255}")

router = APIRouter(prefix="/scan", tags=["scans"], route_class=JsonRoute)


def get_launcher(request: Request) -> ScanLauncher:
    """Return the launcher of accepted scans."""
    launcher: ScanLauncher = request.state.launcher
    return launcher


def _check_key(key: str | None) -> str | None:
    if key is not None and not _KEY.fullmatch(key):
        msg = "Idempotency-Key must be 1-255 visible ASCII characters"
        raise fault(msg)
    return key


IdempotencyKey = Annotated[
    str | None,
    Header(description="Makes a repeated start safe: same key and request, same answer."),
    AfterValidator(_check_key),
]


@router.post("/start", status_code=status.HTTP_202_ACCEPTED, responses=error_responses(400, 409))
async def start_scan(
    body: ScanCreate,
    pool: Pool,
    keys: Keys,
    launcher: Annotated[ScanLauncher, Depends(get_launcher)],
    idempotency_key: IdempotencyKey = None,
) -> ScanAccepted:
    """Accept a scan; it runs in the background.

    Every fault of the request is reported at once. The access token is checked for its form here
    and for its scopes as the run's first step.
    """
    return await service.start_scan(pool, keys, launcher, body, idempotency_key)


@router.get("/list", responses=error_responses(400))
async def list_scans(
    pool: Pool,
    organization_id: OrganizationFilter = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Scans per page.")] = 20,
    offset: Offset = 0,
) -> Answer[ScanPage]:
    """List scans, newest first."""
    page = await service.page_of_scans(pool, organization_id, limit=limit, offset=offset)
    return Answer(data=page)


@router.get("/{scan_id}/status", responses=error_responses(404))
async def get_scan_status(scan_id: ScanId, pool: Pool, gateway: Gateway) -> Answer[Scan]:
    """Tell where a scan stands."""
    return Answer(data=await service.get_scan(pool, gateway, scan_id))
