"""Show the proof of a completed scan."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from api.access.route import GuardedRoute
from api.certificates.schemas import ScanCertificate
from api.certificates.service import Auditor
from api.dependencies import ScanId
from api.results.endpoints import GONE
from api.schemas import Answer, error_responses

router = APIRouter(prefix="/results", tags=["results"], route_class=GuardedRoute)


async def get_auditor(request: Request) -> Auditor:
    """Return what audits results."""
    auditor: Auditor = request.state.auditor
    return auditor


@router.get("/{scan_id}/certificate", responses=error_responses(400) | GONE)
async def get_certificate(
    scan_id: ScanId, auditor: Annotated[Auditor, Depends(get_auditor)]
) -> Answer[ScanCertificate]:
    """Return what a scan was completed with, and hold its tables against that anew.

    Every row is counted and hashed for it: some three seconds for a million deals.
    """
    return Answer(data=await auditor.audit(scan_id))
