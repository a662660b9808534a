"""Page through the tables of a completed scan."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.dependencies import Pool, ScanId
from api.results import service
from api.results.schemas import ResultPage, ResultTables
from api.schemas import MAX_LIMIT, Answer, Offset, error_responses

router = APIRouter(prefix="/results", tags=["results"])


@router.get("/{scan_id}/tables", responses=error_responses(400, 404))
async def get_result_tables(scan_id: ScanId, pool: Pool) -> Answer[ResultTables]:
    """List the tables of a completed scan."""
    return Answer(data=await service.get_tables(pool, scan_id))


@router.get(
    "/{scan_id}/result",
    response_model=Answer[ResultPage],
    responses=error_responses(400, 404),
)
async def get_result_page(
    scan_id: ScanId,
    pool: Pool,
    table_name: Annotated[
        str | None,
        Query(alias="tableName", description="`users` when absent.", examples=["deals"]),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Records per page.")] = 100,
    offset: Offset = 0,
) -> Response:
    """Return one page of one table, in a fixed order: pages never overlap or skip a record."""
    page = await service.page_of_records(pool, scan_id, table_name, limit=limit, offset=offset)
    return Response(service.to_json(page), media_type="application/json")
