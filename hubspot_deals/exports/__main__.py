"""Writes one export file: reads its job from standard input, tells progress on standard output.

A process of its own, so that neither its work nor its memory is the API's. It ends when the API
that listens to it is gone.
"""

import errno
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psycopg
from pydantic import SecretStr

from hubspot_deals import redaction
from hubspot_deals.exports.order import HIDDEN, NO_ROOM, ExportFormat, ExportOrder, Job, Progress
from hubspot_deals.exports.sink import FileSink
from hubspot_deals.exports.texts import write_text
from hubspot_deals.warehouse.exports import ResultsHiddenError, TableReader
from hubspot_deals.warehouse.results import ResultTable, Snapshot

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Report = Callable[[Progress], None]


def main() -> int:
    """Carry out the job; the exit code is 0, HIDDEN, NO_ROOM or, with a traceback, 1."""
    job = Job.from_json(sys.stdin.buffer.read())
    redaction.hide_settings(SecretStr(job.connection["conninfo"]))
    redaction.install()
    # Whatever is larger fails as if the disk were full, a library's own temporary files as well.
    resource.setrlimit(resource.RLIMIT_FSIZE, (job.most_bytes, job.most_bytes))
    try:
        with psycopg.connect(**job.connection, autocommit=True) as connection:
            tell(export(connection, job.order, Path(job.path), tell))
    except ResultsHiddenError:
        return HIDDEN
    except OSError as error:
        if error.errno in _NO_ROOM:
            return NO_ROOM
        raise
    return 0


def tell(progress: Progress) -> None:
    """Write a line to whoever waits; fails when nobody does."""
    print(progress.to_json(), flush=True)  # noqa: T201 - the line is the message


def export(
    connection: psycopg.Connection, order: ExportOrder, path: Path, report: Report
) -> Progress:
    """Write a table to a file and return what it holds.

    Raises ResultsHiddenError when the snapshot is not served any more, OSError for want of room.
    """
    count, columns = order.row_count, list(order.columns)
    table = ResultTable(order.table_name, count, count, columns, frozenset(order.labels))
    snapshot = Snapshot(order.scan_id, order.seq, order.generation, [table])
    reader = TableReader(connection, snapshot, table)
    with FileSink(path, report) as sink:
        match order.format:
            case ExportFormat.PARQUET:
                # Half of the start, and of the memory, of a process that needs neither.
                from hubspot_deals.exports.parquet import write_parquet  # noqa: PLC0415

                write_parquet(reader, sink)
            case ExportFormat.EXCEL:
                from hubspot_deals.exports.excel import write_excel  # noqa: PLC0415

                write_excel(reader, sink, order.table_name, path.parent)
            case _:
                write_text(reader, sink, order)
        return sink.whole()


if __name__ == "__main__":
    sys.exit(main())
