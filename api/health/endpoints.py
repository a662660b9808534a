"""Whether the service works, and what it has done."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.access.actor import Calling
from api.access.route import GuardedRoute
from api.dependencies import Pool, Settings
from api.health import service
from api.health.meter import RequestMeter
from api.health.probe import HealthProbe
from api.health.schemas import Health, Liveness, Readiness, Statistics
from api.schemas import OrganizationFilter, error_responses

router = APIRouter(tags=["health"], route_class=GuardedRoute)


async def get_probe(request: Request) -> HealthProbe:
    """Return the process's health probe."""
    probe: HealthProbe = request.state.probe
    return probe


async def get_meter(request: Request) -> RequestMeter:
    """Return what counts this process's answers."""
    meter: RequestMeter = request.app.state.meter
    return meter


Probe = Annotated[HealthProbe, Depends(get_probe)]
Meter = Annotated[RequestMeter, Depends(get_meter)]


@router.get(
    "/health",
    response_model_exclude_none=True,
    responses={503: {"model": Health, "description": "Unhealthy; 500 instead when so configured."}},
)
async def get_health(
    request: Request, probe: Probe, meter: Meter, settings: Settings, response: Response
) -> Health:
    """Tell whether the service can work; answers within a second whatever hangs."""
    health = service.describe_health(
        await probe.check(),
        version=request.app.version,
        uptime=meter.uptime,
        now=datetime.now(UTC),
    )
    if not health.success:
        response.status_code = settings.health_unhealthy_status
    return health


@router.get("/health/live", responses=error_responses())
async def get_liveness() -> Liveness:
    """Tell that the process answers, whatever has become of the rest: for restarting it."""
    return Liveness()


@router.get(
    "/health/ready", responses={503: {"model": Readiness, "description": "Not ready to serve."}}
)
async def get_readiness(probe: Probe, response: Response) -> Readiness:
    """Tell whether requests can be served: for sending them here. Within a second."""
    readiness = service.describe_readiness(await probe.check_database())
    if readiness.status != "ready":
        response.status_code = 503
    return readiness


@router.get("/stats", responses=error_responses(400))
async def get_statistics(
    request: Request,
    pool: Pool,
    meter: Meter,
    caller: Calling,
    organization_id: OrganizationFilter = None,
) -> Statistics:
    """Count the caller's scans and connections by status, and what this process has answered.

    How current connections are kept is told of all that the caller may see together.
    """
    server = request.scope.get("server")
    organizations = caller.organizations_within(organization_id)
    scans = await service.count_scans(pool, organizations, organization_id)
    connections = await service.count_connections(pool, organizations)
    readings = meter.read(server[1] if server else None)
    return service.describe_process(readings, scans, connections)
