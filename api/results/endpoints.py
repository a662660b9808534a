"""Page through the tables of a completed scan."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from api.dependencies import ScanId
from api.results.page_route import DEFAULT_LIMIT, PageRoute, answer_page
from api.results.schemas import ResultPage, ResultTables
from api.results.service import PageRequest, ResultReader
from api.schemas import MAX_LIMIT, Answer, Offset, describe_error, error_responses

router = APIRouter(prefix="/results", tags=["results"])
page_router = APIRouter(prefix="/results", tags=["results"], route_class=PageRoute)

GONE: Final[dict[int | str, dict[str, Any]]] = {
    404: describe_error(
        "No such scan, or its results were cleaned up.",
        "RESULTS_REMOVED",
        "The results of scan 'hubspot-deals-scan-2025-001' were removed on 2025-02-01; "
        "start a new scan to have them again",
    )
}
REPLACED: Final[dict[int | str, dict[str, Any]]] = {
    409: describe_error(
        "A rerun has replaced the snapshot.",
        "SNAPSHOTREPLACED",
        "Scan 'hubspot-deals-scan-2025-001' no longer serves snapshot 1: a rerun replaced it by "
        "snapshot 2. Discard the pages read so far and start over at offset 0",
    )
}


async def get_results(request: Request) -> ResultReader:
    """Return what reads results."""
    reader: ResultReader = request.state.results
    return reader


Results = Annotated[ResultReader, Depends(get_results)]


@router.get("/{scan_id}/tables", responses=error_responses(400) | GONE)
async def get_result_tables(scan_id: ScanId, results: Results) -> Answer[ResultTables]:
    """List the tables of a completed scan."""
    return Answer(data=await results.get_tables(scan_id))


@page_router.get(
    "/{scan_id}/result",
    response_model=Answer[ResultPage],
    responses=error_responses(400) | GONE | REPLACED,
)
async def get_result_page(  # noqa: PLR0913, PLR0917 - one parameter per parameter of the request
    scan_id: ScanId,
    results: Results,
    table_name: Annotated[
        str | None,
        Query(alias="tableName", description="`users` when absent.", examples=["deals"]),
    ] = None,
    limit: Annotated[
        int, Query(ge=1, le=MAX_LIMIT, description="Records per page.")
    ] = DEFAULT_LIMIT,
    offset: Offset = 0,
    snapshot: Annotated[
        int | None,
        Query(ge=1, description="The first page's `snapshot`: 409 once a rerun has replaced it."),
    ] = None,
) -> Response:
    """Return one page of one table, in a fixed order.

    Pages of one `snapshot` never overlap or skip a record.
    """
    page = PageRequest(scan_id, table_name, limit, offset, snapshot)
    return await answer_page(results, page)
