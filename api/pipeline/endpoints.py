"""What extracts the deals."""

from fastapi import APIRouter

from api.access.route import GuardedRoute
from api.health.endpoints import Probe
from api.pipeline import service
from api.pipeline.schemas import PipelineInfo
from api.schemas import Answer, error_responses

router = APIRouter(prefix="/pipeline", tags=["pipeline"], route_class=GuardedRoute)


@router.get("/info", responses=error_responses())
async def get_pipeline_info(probe: Probe) -> Answer[PipelineInfo]:
    """Describe the pipeline and whether it could run now."""
    return Answer(data=service.describe_pipeline(await probe.check()))
