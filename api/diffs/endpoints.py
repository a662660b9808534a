"""Compare two completed scans of one organization."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import AfterValidator

from api.access.route import GuardedRoute
from api.cursors import link_to_next
from api.dependencies import ScanId, get_scan_id
from api.diffs.schemas import DiffPage, DiffSummary, check_cursor
from api.diffs.service import DiffReader
from api.downloads.response import FileResponse
from api.downloads.service import MEDIA_TYPES, NOT_KEPT
from api.results.endpoints import GONE, REPLACED
from api.schemas import MAX_LIMIT, Answer, error_responses
from hubspot_deals.exports.order import ExportFormat

router = APIRouter(prefix="/results", tags=["results"], route_class=GuardedRoute)

_, _NDJSON = MEDIA_TYPES[ExportFormat.NDJSON]
_LINES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "A page, numbers, or all changes line by line.", "content": {_NDJSON: {}}}
}


async def get_diffs(request: Request) -> DiffReader:
    """Return what compares scans."""
    diffs: DiffReader = request.state.diffs
    return diffs


async def get_other_scan_id(other_scan_id: str) -> str:
    """Return the other id in the path, judged like the first."""
    return await get_scan_id(other_scan_id)


@router.get(
    "/{scan_id}/diff/{other_scan_id}",
    response_model=Answer[DiffPage | DiffSummary],
    responses=_LINES | error_responses(400) | GONE | REPLACED,
)
async def get_diff(  # noqa: PLR0913, PLR0917 - one parameter per parameter of the request
    request: Request,
    scan_id: ScanId,
    other_scan_id: Annotated[str, Depends(get_other_scan_id)],
    diffs: Annotated[DiffReader, Depends(get_diffs)],
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most changes per page.")] = 100,
    cursor: Annotated[
        Annotated[str, AfterValidator(check_cursor)] | None,
        Query(description="The `nextCursor` of the page before."),
    ] = None,
    summary: Annotated[  # noqa: FBT002 - a query parameter
        bool, Query(description="Only how many deals differ.")
    ] = False,
    form: Annotated[
        Literal["json", "ndjson"] | None,
        Query(alias="format", description="`ndjson`, or `Accept`, for all changes line by line."),
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Return what changed from the first scan (`old`) to the other (`new`), by deal id.

    Pages follow `nextCursor`, or the `Link` header, until `hasMore` is false; a page may hold
    fewer changes than `limit`, even none, before that. All changes at once come as NDJSON; if that
    fails, it is cut off.
    """
    compared = await diffs.open(scan_id, other_scan_id)
    if summary:
        return Response(await diffs.summarize(compared), media_type="application/json")
    if form == "ndjson" or (form is None and _NDJSON in accept):
        if request.scope.get("is_head"):
            return Response(headers=NOT_KEPT, media_type=_NDJSON)
        lines = diffs.lines(compared)
        # Whatever is wrong at the start still has a status of its own.
        first = await anext(lines)
        return FileResponse(_chain(first, lines), headers=NOT_KEPT, media_type=_NDJSON)
    page, following = await diffs.get_page(compared, limit, cursor)
    link = None if following is None else {"Link": link_to_next(request, following)}
    return Response(page, headers=link, media_type="application/json")


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
