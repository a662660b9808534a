"""Look before a scan is started: what it would take, and what a token opens."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request

from api.access.actor import Calling
from api.json_body import JsonRoute
from api.plans.schemas import Plan, TokenCheckCreate, TokenReport
from api.plans.service import Planner
from api.scans.schemas import ScanCreate
from api.schemas import Answer, describe_error, error_responses

router = APIRouter(tags=["plans"], route_class=JsonRoute)

_ERRORS: Final[dict[int | str, dict[str, Any]]] = error_responses(400) | {
    502: describe_error(
        "HubSpot refuses something that a scan cannot do without.",
        "HUBSPOT_REFUSED",
        "HubSpot refused GET /crm/objects/2026-03/0-3 (HTTP 404: resource not found).",
    ),
    503: describe_error(
        "HubSpot does not answer or its limits are used up, or too many plans are being made.",
        "HUBSPOT_UNAVAILABLE",
        "HubSpot put GET /crm/objects/2026-03/0-3 off: its daily limit is used up.",
    ),
}


async def get_planner(request: Request) -> Planner:
    """Return what makes plans."""
    planner: Planner = request.state.planner
    return planner


Plans = Annotated[Planner, Depends(get_planner)]


@router.post("/scan/plan", responses=_ERRORS)
async def plan_scan(body: ScanCreate, planner: Plans, caller: Calling) -> Answer[Plan]:
    """Say what a start with this body would bring, ask HubSpot and take. Nothing is stored.

    A rejected token is a 400 at `config.auth.accessToken`; a missing scope is part of the plan.
    """
    await caller.act_for(body.config.organization_id)
    return Answer(data=await planner.plan(body.to_config(), body.config.auth.access_token))


@router.post("/auth/validate", responses=_ERRORS)
async def validate_token(body: TokenCheckCreate, planner: Plans) -> Answer[TokenReport]:
    """Say whether HubSpot accepts a token and what it opens. Nothing is stored."""
    return Answer(data=await planner.check_token(body.auth.access_token))
