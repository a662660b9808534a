"""The door for Prometheus."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.access.route import GuardedRoute
from api.health.endpoints import Meter
from api.metrics.service import Metrics

router = APIRouter(tags=["health"], route_class=GuardedRoute)


async def get_metrics_reader(request: Request) -> Metrics:
    """Return what gathers the figures."""
    metrics: Metrics = request.state.metrics
    return metrics


Reader = Annotated[Metrics, Depends(get_metrics_reader)]


@router.get("/metrics", include_in_schema=False)
async def get_metrics(metrics: Reader, meter: Meter) -> Response:
    """Return the figures of this process and of the whole service, for Prometheus."""
    return Response(await metrics.render(meter), media_type=CONTENT_TYPE_LATEST)
