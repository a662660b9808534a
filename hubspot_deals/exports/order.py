"""What the API asks an export process for, and what it hears from it, each as a line of JSON."""

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import version
from typing import Any, Final

REVISION: Final = 2
"""Raised by every change that makes other bytes of the same rows."""

HIDDEN: Final = 3
"""Exit code: the snapshot is not served any more."""
NO_ROOM: Final = 4
"""Exit code: the disk or the room for downloads is full."""


class ExportFormat(StrEnum):
    """What a file can be."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    EXCEL = "excel"
    PARQUET = "parquet"


_LIBRARIES: Final = {ExportFormat.EXCEL: "xlsxwriter", ExportFormat.PARQUET: "pyarrow"}


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """One file: these columns of one table of one snapshot. The same order makes the same bytes."""

    format: ExportFormat
    scan_id: str
    seq: int
    generation: int
    accepted_at: str
    """When the scan was accepted: tells it from one of the same numbers in a restored database."""
    table_name: str
    columns: tuple[str, ...]
    row_count: int
    raw: bool
    """Whether CSV keeps texts that a spreadsheet takes for formulas."""
    labels: tuple[str, ...] = ()
    """Those of the columns that are labels of deals."""

    def key(self) -> str:
        """Return a text that only the same bytes share."""
        library = _LIBRARIES.get(self.format)
        made_by = f"{REVISION}-{version(library) if library else ''}"
        text = json.dumps([made_by, asdict(self)])
        return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class Job:
    """What an export process reads from its standard input."""

    order: ExportOrder
    path: str
    most_bytes: int
    connection: dict[str, Any]
    """Arguments of psycopg's `connect`."""

    def to_json(self) -> bytes:
        """Return the job as the process reads it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Job":
        """Read a job."""
        values = json.loads(text)
        order = values["order"]
        order["format"] = ExportFormat(order["format"])
        order |= {name: tuple(order[name]) for name in ("columns", "labels")}
        return cls(**{**values, "order": ExportOrder(**order)})


@dataclass(frozen=True, slots=True)
class Progress:
    """What is in the file by now; `sha256` (hexadecimal) only when it is whole."""

    rows: int
    size: int
    sha256: str | None = None
    shortened_cells: int = 0
    """Texts that were longer than a cell of the format holds."""

    def to_json(self) -> str:
        """Return the progress as the API reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> "Progress":
        """Read a progress."""
        return cls(**json.loads(text))
