"""The verb-first paths, each a translation of what the other paths do."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response, status

from api.access.actor import Calling
from api.access.route import GuardedRoute
from api.cursors import page_headers
from api.dependencies import Keys, Pool, Settings
from api.dialect import service
from api.dialect.schemas import (
    ChangedExtraction,
    Extraction,
    ExtractionCreate,
    ExtractionPage,
    UnknownExtraction,
)
from api.downloads.endpoints import FILE, Columns, Files, Raw, names_in
from api.downloads.response import answer_download
from api.downloads.service import DownloadRequest
from api.errors import query_faults
from api.json_body import JsonRoute
from api.results.endpoints import Expand, Results
from api.results.page_route import place_at
from api.results.service import PageRequest
from api.scans import service as scans
from api.scans.endpoints import IdempotencyKey, Launcher, Remover, Stopper
from api.scans.fields import ScanIdField
from api.scans.schemas import ScanAccepted
from api.schemas import MAX_LIMIT, describe_error, error_responses
from hubspot_deals.exports.order import ExportFormat

MAX_PAGE: Final = 2**63 // MAX_LIMIT - 1
"""The last page that ends inside PostgreSQL's bigint, whatever its size."""

_TAG: Final = "scans, verb first"
_TAKEN: Final[dict[int | str, dict[str, Any]]] = {
    409: describe_error(
        "It has not ended, belongs to another organization, or the key came with another request.",
        "CONFLICT",
        "Extraction already in progress: the status of scan 'weekly-sync-001' is running",
    )
}
_REPLACED: Final[dict[int | str, dict[str, Any]]] = {
    409: describe_error(
        "Another attempt has replaced the snapshot.",
        "CONFLICT",
        "Scan 'weekly-sync-001' no longer serves snapshot 1: a rerun replaced it by snapshot 2",
    )
}
_FILE: Final[dict[int | str, dict[str, Any]]] = {200: {"description": "The file.", "content": FILE}}

start_router = APIRouter(prefix="/scan", tags=[_TAG], route_class=JsonRoute)
router = APIRouter(prefix="/scan", tags=[_TAG], route_class=GuardedRoute)

ExtractionId = Annotated[
    ScanIdField, Path(description="The scan's id.", examples=["weekly-sync-001"])
]
TableName = Annotated[str, Query(alias="tableName", description="The table.", examples=["deals"])]
SnapshotNumber = Annotated[
    int | None, Query(ge=1, description="409 once another attempt has replaced this result.")
]


@start_router.post(
    "/start", status_code=status.HTTP_202_ACCEPTED, responses=error_responses(400) | _TAKEN
)
async def start_extraction(  # noqa: PLR0913, PLR0917 - what a start is made of
    body: ExtractionCreate,
    pool: Pool,
    keys: Keys,
    launcher: Launcher,
    settings: Settings,
    caller: Calling,
    idempotency_key: IdempotencyKey = None,
) -> ScanAccepted:
    """Accept an extraction, also under the id of one that has ended.

    That one is extracted anew with this request; its result is served until the new one is there.
    """
    if "organization_id" not in body.config.model_fields_set and caller.only_organization:
        body.config.organization_id = caller.only_organization
    await caller.act_for(body.config.organization_id, body.config.scan_id)
    return await scans.start_scan(
        pool,
        keys,
        launcher,
        body,
        idempotency_key=idempotency_key,
        auto_resumes=settings.auto_resumes,
        restarts=True,
    )


@router.get("/status/{scan_id}", responses=error_responses(400))
async def get_extraction_status(
    scan_id: ExtractionId, pool: Pool, caller: Calling
) -> Extraction | UnknownExtraction:
    """Tell where an extraction stands: always 200, and `not_found` where there is none."""
    return await service.describe_extraction(pool, caller.actor, scan_id)


@router.post("/cancel/{scan_id}", responses=error_responses(400, 404))
async def cancel_extraction(
    scan_id: ExtractionId, pool: Pool, stopper: Stopper
) -> ChangedExtraction:
    """End an extraction for good, unless it has ended."""
    return service.describe_change(await scans.cancel_scan(pool, stopper, scan_id))


@router.delete("/remove/{scan_id}", responses=error_responses(400, 404))
async def remove_extraction(
    scan_id: ExtractionId, pool: Pool, remover: Remover
) -> ChangedExtraction:
    """Remove an extraction that has ended, with everything that belongs to it."""
    return service.describe_change(await scans.remove_scan(pool, remover, scan_id))


@router.get(
    "/result/{scan_id}",
    response_model=ExtractionPage,
    responses=error_responses(400, 404) | _REPLACED,
)
async def get_extraction_page(  # noqa: PLR0913, PLR0917 - one parameter per parameter of the request
    request: Request,
    scan_id: ExtractionId,
    pool: Pool,
    results: Results,
    page: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Number of the page.")] = 1,
    page_size: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Records per page.")] = 100,
    table_name: TableName = service.DEFAULT_TABLE,
    snapshot: SnapshotNumber = None,
    cursor: Annotated[
        str | None,
        Query(description="The last page's `next_cursor`, instead of `page`; same `page_size`."),
    ] = None,
    expand: Expand = None,
) -> Response:
    """Return one page of what was extracted, in a fixed order."""
    asked = PageRequest(
        scan_id,
        table_name,
        limit=page_size,
        offset=(page - 1) * page_size,
        snapshot=snapshot,
        labels=expand is not None,
    )
    if cursor is not None:
        if "page" in request.query_params:
            raise query_faults((("cursor",), "Use either cursor or page"))
        asked = place_at(asked, cursor)
        if asked.offset % page_size:
            raise query_faults((("page_size",), "Repeat the page_size of the cursor's page"))
    written = await service.get_page(pool, results, asked)
    headers = page_headers(
        request,
        limit=page_size,
        offset=asked.offset,
        total=written.numbers.total_items,
        next_cursor=written.numbers.next_cursor,
    )
    return Response(written.body, headers=headers, media_type="application/json")


# The path's parameter is called like a builtin, which `form` must not be.
@router.get(
    "/download/{scan_id}/{format}",
    response_class=Response,
    responses=_FILE | error_responses(400, 404) | _REPLACED,
)
async def download_extraction(  # noqa: PLR0913, PLR0917 - one parameter per parameter of the request
    request: Request,
    scan_id: ExtractionId,
    form: Annotated[ExportFormat, Path(alias="format", description="What the file is to be.")],
    downloads: Files,
    table_name: TableName = service.DEFAULT_TABLE,
    columns: Columns = None,
    raw: Raw = False,  # noqa: FBT002 - a query parameter
    snapshot: SnapshotNumber = None,
    expand: Expand = None,
) -> Response:
    """Return what was extracted as a file: indented JSON, CSV with a header, or a workbook."""
    labels = expand is not None
    asked = DownloadRequest(scan_id, form, table_name, names_in(columns), raw, snapshot, labels)
    return await answer_download(request, downloads, await downloads.open(asked))
