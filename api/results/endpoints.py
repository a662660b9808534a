"""Page through the tables of a completed scan."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from api.access.route import GuardedRoute
from api.dependencies import ScanId
from api.errors import query_faults
from api.results.filters import describe_parameters, read_selection
from api.results.page_route import DEFAULT_LIMIT, PageRoute, answer_page, place_at
from api.results.schemas import ResultPage, ResultTables
from api.results.service import PageRequest, ResultReader
from api.schemas import (
    MAX_LIMIT,
    MAX_OFFSET,
    Answer,
    Offset,
    describe_error,
    error_responses,
)

router = APIRouter(prefix="/results", tags=["results"], route_class=GuardedRoute)
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
        "SNAPSHOT_REPLACED",
        "Scan 'hubspot-deals-scan-2025-001' no longer serves snapshot 1: a rerun replaced it by "
        "snapshot 2. Discard the pages read so far and start over at offset 0",
    )
}


async def get_results(request: Request) -> ResultReader:
    """Return what reads results."""
    reader: ResultReader = request.state.results
    return reader


Results = Annotated[ResultReader, Depends(get_results)]
Expand = Annotated[
    Literal["labels"] | None,
    Query(description="`deals` also have `dealstage_label`, `pipeline_label`, `owner_email`."),
]


@router.get("/{scan_id}/tables", responses=error_responses(400) | GONE)
async def get_result_tables(scan_id: ScanId, results: Results) -> Answer[ResultTables]:
    """List the tables of a completed scan."""
    return Answer(data=await results.get_tables(scan_id))


async def get_page_request(  # noqa: PLR0913, PLR0917 - one parameter per parameter of the request
    request: Request,
    scan_id: ScanId,
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
    cursor: Annotated[
        str | None,
        Query(description="The last page's `nextCursor`, instead of `offset` and `snapshot`."),
    ] = None,
    page: Annotated[
        int | None,
        Query(ge=1, le=MAX_OFFSET // MAX_LIMIT, description="Its number, instead of `offset`."),
    ] = None,
    page_size: Annotated[
        int | None, Query(ge=1, le=MAX_LIMIT, description="The same as `limit`.")
    ] = None,
    expand: Expand = None,
) -> PageRequest:
    """Return which page is asked for, its place said in one way only."""
    given = request.query_params
    for names in (("cursor", "page", "offset"), ("page_size", "limit")):
        used = [name for name in names if name in given]
        if len(used) > 1:
            raise query_faults(((used[0],), f"Use either {' or '.join(used)}"))
    size = page_size or limit
    asked = PageRequest(
        scan_id,
        table_name,
        limit=size,
        offset=offset if page is None else (page - 1) * size,
        snapshot=snapshot,
        selection=read_selection(given.multi_items()),
        labels=expand is not None,
    )
    return asked if cursor is None else place_at(asked, cursor)


@page_router.get(
    "/{scan_id}/result",
    response_model=Answer[ResultPage],
    responses=error_responses(400) | GONE | REPLACED,
    openapi_extra={"parameters": describe_parameters()},
)
async def get_result_page(
    request: Request, results: Results, page: Annotated[PageRequest, Depends(get_page_request)]
) -> Response:
    """Return one page of one table, in a fixed order.

    Pages of one `snapshot` never overlap or skip a record. While there are more, `nextCursor` and
    a `Link` header lead to the next one.
    """
    return await answer_page(request, results, page)
