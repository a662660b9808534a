"""Download a table of a completed scan as a file."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from api.access.route import GuardedRoute
from api.dependencies import ScanId
from api.downloads.response import answer_download
from api.downloads.schemas import DownloadManifest
from api.downloads.service import MEDIA_TYPES, DownloadRequest, Downloads, describe
from api.results.endpoints import GONE, REPLACED, Expand
from api.schemas import Answer, describe_error, error_responses
from hubspot_deals.exports.order import ExportFormat

router = APIRouter(prefix="/results/{scan_id}/download", tags=["results"], route_class=GuardedRoute)

_BYTES: Final = {"schema": {"type": "string", "format": "binary"}}
FILE: Final[dict[str, Any]] = {
    media_type.partition(";")[0]: _BYTES for _, media_type in MEDIA_TYPES.values()
} | {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}}
"""What a file is, by its media type."""
_BINARY: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The file.", "content": FILE},
    206: {"description": "The part that `Range` asked for.", "content": FILE},
    304: {"description": "`If-None-Match` names this file."},
    416: describe_error(
        "The range starts behind the end.",
        "RANGE_NOT_SATISFIABLE",
        "The range starts behind the end of the file, which has 1024 bytes",
    ),
    503: describe_error(
        "There is no room for the file.",
        "DOWNLOAD_SPACE",
        "The file does not fit into the room for downloads",
    ),
}
Columns = Annotated[
    str | None,
    Query(description="Names with commas between them; all when absent.", examples=["id"]),
]
Raw = Annotated[
    bool, Query(description="CSV only: leave texts as they are that begin like a formula.")
]
_ERRORS: Final = error_responses(400) | GONE | REPLACED


async def get_downloads(request: Request) -> Downloads:
    """Return what makes files."""
    downloads: Downloads = request.state.downloads
    return downloads


async def get_download_request(  # noqa: PLR0913, PLR0917 - one parameter per parameter of the request
    scan_id: ScanId,
    form: Annotated[ExportFormat, Path(alias="format", description="What the file is to be.")],
    table_name: Annotated[
        str | None,
        Query(alias="tableName", description="`users` when absent.", examples=["deals"]),
    ] = None,
    columns: Columns = None,
    raw: Raw = False,  # noqa: FBT002 - a query parameter
    snapshot: Annotated[
        int | None, Query(ge=1, description="409 once a rerun has replaced this one.")
    ] = None,
    expand: Expand = None,
) -> DownloadRequest:
    """Return what is asked for."""
    labels = expand is not None
    return DownloadRequest(scan_id, form, table_name, names_in(columns), raw, snapshot, labels)


def names_in(columns: str | None) -> tuple[str, ...] | None:
    """Return the names between the commas, in their order."""
    return None if columns is None else tuple(name.strip() for name in columns.split(","))


Asked = Annotated[DownloadRequest, Depends(get_download_request)]
Files = Annotated[Downloads, Depends(get_downloads)]


# The dependency reads the path's format.
@router.get("/{format}", response_class=Response, responses=_BINARY | _ERRORS)  # noqa: FAST003
async def download_table(request: Request, asked: Asked, downloads: Files) -> Response:
    """Return a whole table as a file: JSON, NDJSON, CSV, Excel or Parquet.

    The same snapshot, columns and format are always the same bytes under the same `ETag`, so a
    download that was cut off is resumed with `Range` and `If-Range`. One that fails is cut off.
    """
    return await answer_download(request, downloads, await downloads.open(asked))


@router.get(
    "/{format}/manifest",  # noqa: FAST003
    responses=_ERRORS | {202: {"model": Answer[DownloadManifest], "description": "Not ready."}},
)
async def get_download_manifest(
    response: Response, asked: Asked, downloads: Files
) -> Answer[DownloadManifest]:
    """Return size, rows and SHA-256 of a file: 200 when it is ready, else 202.

    The first request begins to write the file, as a download does.
    """
    export = await downloads.open(asked)
    await downloads.wait_a_little(export)
    if not export.is_whole:
        response.status_code = 202
        response.headers["Retry-After"] = "1"
    return Answer(data=describe(export))
