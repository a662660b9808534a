"""The file that an export is written to, hashed on the way."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

from hubspot_deals.exports.order import Progress


class FileSink(io.RawIOBase):
    """Takes bytes in their order; what it reports can be read from the file."""

    def __init__(self, path: Path, report: Callable[[Progress], None]) -> None:
        self._file = path.open("xb", buffering=0)
        self._report = report
        self._sha256 = hashlib.sha256()
        self._size = 0
        self.rows = 0
        self.shortened_cells = 0

    def writable(self) -> bool:
        """Tell that it takes bytes."""
        return True

    def tell(self) -> int:
        """Return how many bytes there are."""
        return self._size

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        """Append all of it."""
        left = memoryview(data)
        self._sha256.update(left)
        while left:
            left = left[self._file.write(left) :]
        written = memoryview(data).nbytes
        self._size += written
        return written

    def add_rows(self, rows: int) -> None:
        """Count rows and report what there is."""
        self.rows += rows
        self._report(Progress(self.rows, self._size))

    def whole(self) -> Progress:
        """Return what the finished file holds."""
        return Progress(self.rows, self._size, self._sha256.hexdigest(), self.shortened_cells)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
