"""Answers that send a file, or as much of it as there is."""

import logging

import psycopg
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.downloads.export import Export
from api.downloads.ranges import RangeNotSatisfiableError, fit_range, names_tag, read_range
from api.downloads.service import Downloads, headers_of
from api.error_bodies import error_response
from hubspot_deals.errors import HubSpotDealsError

logger = logging.getLogger(__name__)


class FileResponse(StreamingResponse):
    """Sends pieces of a file; when they fail, the connection ends before the answer does.

    So no client takes a part for the whole: the length is not reached, or the last chunk missing.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send; a failure is logged, not raised, and leaves the answer unfinished."""
        try:
            await super().__call__(scope, receive, send)
        except (HubSpotDealsError, psycopg.Error, OSError) as error:
            logger.warning("A download was cut off: %s", type(error).__name__)


async def answer_download(request: Request, downloads: Downloads, export: Export) -> Response:
    """Answer with the file, the range that is asked for, or that nothing has changed."""
    headers = request.headers
    if names_tag(headers.get("if-none-match"), export.tag, weak=True):
        return Response(status_code=304, headers={"ETag": export.tag})
    if request.scope.get("is_head"):
        # Nobody waits for a file of which only the headers are wanted.
        await downloads.wait_a_little(export)
        return FileResponse(iter(()), 200, headers_of(export) | _length_of(export))
    asked = read_range(headers.get("range"))
    if "if-range" in headers and headers["if-range"].strip() != export.tag:
        asked = None
    if asked is None:
        await downloads.wait_for_start(export)
        length = _length_of(export)
        end = export.progress.size if length else None
        return FileResponse(downloads.pieces(export, 0, end), 200, headers_of(export) | length)
    # The answer to a range names the file's length.
    await downloads.wait_for_end(export)
    size = export.progress.size
    try:
        start, end = fit_range(asked, size)
    except RangeNotSatisfiableError:
        text = f"The range starts behind the end of the file, which has {size} bytes"
        more = {"Content-Range": f"bytes */{size}", "ETag": export.tag}
        return error_response(416, "RANGE_NOT_SATISFIABLE", text, headers=more)
    more = {"Content-Range": f"bytes {start}-{end - 1}/{size}", "Content-Length": str(end - start)}
    return FileResponse(downloads.pieces(export, start, end), 206, headers_of(export) | more)


def _length_of(export: Export) -> dict[str, str]:
    return {"Content-Length": str(export.progress.size)} if export.is_whole else {}
