"""Start a scan, follow it, list scans; pause, resume, cancel and remove one."""

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response, status
from pydantic import AfterValidator

from api.access.actor import Calling
from api.cursors import Cursor, Place, headers_of, mark_of_list
from api.dependencies import Keys, Pool, ScanId, Settings
from api.errors import query_faults
from api.json_body import JsonRoute
from api.scans import service
from api.scans.launcher import ScanLauncher
from api.scans.remover import ScanRemover
from api.scans.run_statuses import RunStatuses
from api.scans.schemas import (
    ChangedScan,
    RemovedScan,
    Scan,
    ScanAccepted,
    ScanCreate,
    ScanPage,
)
from api.scans.stopper import RunStopper
from api.schemas import (
    MAX_LIMIT,
    Answer,
    Confirmation,
    Offset,
    OrganizationFilter,
    describe_error,
    error_responses,
    fault,
)

_KEY: Final = re.compile(r"[!-~]{1,255}")

_CHANGE_RESPONSES: Final[dict[int | str, dict[str, Any]]] = error_responses(404) | {
    400: describe_error(
        "The scan's status does not allow it.",
        "SCAN_STATE",
        "Scan 'hubspot-deals-scan-2025-001' cannot be paused: its status is completed",
    )
}

start_router = APIRouter(prefix="/scan", tags=["scans"], route_class=JsonRoute)
router = APIRouter(prefix="/scan", tags=["scans"], route_class=JsonRoute)


async def get_launcher(request: Request) -> ScanLauncher:
    """Return the launcher of accepted scans."""
    launcher: ScanLauncher = request.state.launcher
    return launcher


async def get_stopper(request: Request) -> RunStopper:
    """Return what terminates runs."""
    stopper: RunStopper = request.state.stopper
    return stopper


async def get_remover(request: Request) -> ScanRemover:
    """Return what finishes removals."""
    remover: ScanRemover = request.state.remover
    return remover


async def get_run_statuses(request: Request) -> RunStatuses:
    """Return what Dagster said of runs."""
    runs: RunStatuses = request.state.run_statuses
    return runs


Launcher = Annotated[ScanLauncher, Depends(get_launcher)]
Stopper = Annotated[RunStopper, Depends(get_stopper)]
Remover = Annotated[ScanRemover, Depends(get_remover)]
Runs = Annotated[RunStatuses, Depends(get_run_statuses)]


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


@start_router.post(
    "/start", status_code=status.HTTP_202_ACCEPTED, responses=error_responses(400, 409)
)
async def start_scan(  # noqa: PLR0913, PLR0917 - what a start is made of
    body: ScanCreate,
    pool: Pool,
    keys: Keys,
    launcher: Launcher,
    settings: Settings,
    caller: Calling,
    idempotency_key: IdempotencyKey = None,
) -> ScanAccepted:
    """Accept a scan; it runs in the background.

    Every fault of the request is reported at once. The access token is checked for its form here
    and for its scopes as the run's first step.
    """
    await caller.act_for(body.config.organization_id, body.config.scan_id)
    return await service.start_scan(
        pool,
        keys,
        launcher,
        body,
        idempotency_key=idempotency_key,
        auto_resumes=settings.auto_resumes,
    )


@router.get("/list", responses=error_responses(400))
async def list_scans(  # noqa: PLR0913, PLR0917 - one parameter per parameter of the request
    request: Request,
    response: Response,
    pool: Pool,
    caller: Calling,
    organization_id: OrganizationFilter = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Scans per page.")] = 20,
    offset: Offset = 0,
    cursor: Annotated[
        str | None, Query(description="The last page's `nextCursor`, instead of `offset`.")
    ] = None,
) -> Answer[ScanPage]:
    """List the caller's scans, newest first.

    By `cursor`, scans that are started meanwhile do not move the pages.
    """
    organizations = caller.organizations_within(organization_id)
    mark = mark_of_list("scans", organizations)
    after: Cursor | None = None
    if cursor is not None:
        after = Cursor.of_list(cursor, mark)
        if after is None or "offset" in request.query_params:
            text = "Pass a page's nextCursor back unchanged, with the same organizationId, and no "
            raise query_faults((("cursor",), text + "offset"))
    place = Place(limit, mark, after, offset)
    page = await service.page_of_scans(pool, organizations, place)
    response.headers.update(headers_of(request, page.pagination))
    return Answer(data=page)


@router.get("/{scan_id}/status", responses=error_responses(404))
async def get_scan_status(scan_id: ScanId, pool: Pool, runs: Runs) -> Answer[Scan]:
    """Tell where a scan stands."""
    return Answer(data=await service.get_scan(pool, runs, scan_id))


@router.post("/{scan_id}/cancel", responses=_CHANGE_RESPONSES)
async def cancel_scan(scan_id: ScanId, pool: Pool, stopper: Stopper) -> Confirmation[ChangedScan]:
    """End a scan for good, unless it has ended.

    It is cancelled when the answer comes; its worker stops within seconds.
    """
    return await service.cancel_scan(pool, stopper, scan_id)


@router.post("/{scan_id}/pause", responses=_CHANGE_RESPONSES)
async def pause_scan(scan_id: ScanId, pool: Pool, stopper: Stopper) -> Confirmation[ChangedScan]:
    """Let a pending, running or resuming scan rest until it is resumed or cancelled."""
    return await service.pause_scan(pool, stopper, scan_id)


@router.post("/{scan_id}/resume", status_code=status.HTTP_202_ACCEPTED, responses=_CHANGE_RESPONSES)
async def resume_scan(scan_id: ScanId, pool: Pool, launcher: Launcher) -> Confirmation[ChangedScan]:
    """Let a paused or crashed scan go on from its last checkpoint, in the background."""
    return await service.resume_scan(pool, launcher, scan_id)


@router.delete("/{scan_id}/remove", responses=_CHANGE_RESPONSES)
async def remove_scan(scan_id: ScanId, pool: Pool, remover: Remover) -> Confirmation[RemovedScan]:
    """Remove a completed, failed, cancelled or crashed scan with everything that belongs to it.

    Nobody sees it any more when the answer comes. A large one is deleted in the background for
    some time, and its id stays taken until then.
    """
    return await service.remove_scan(pool, remover, scan_id)
