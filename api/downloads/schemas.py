"""Bodies of the download endpoints."""

from pydantic import Field

from api.schemas import Camel
from hubspot_deals.exports.order import ExportFormat


class DownloadManifest(Camel):
    """What a file is, and once it is written, what is in it."""

    scan_id: str
    table_name: str
    format: ExportFormat
    columns: list[str]
    snapshot: int
    file_name: str
    etag: str
    ready: bool = Field(
        description="Whether the file is whole; `bytes` and `sha256` are null else."
    )
    row_count: int = Field(description="Rows of the table; of the file too, once it is ready.")
    rows_written: int
    bytes: int | None
    sha256: str | None = Field(description="Of the whole file, hexadecimal.")
    shortened_cells: int | None = Field(
        description="Texts that were longer than the 32,767 characters of an Excel cell."
    )
