"""JSON, NDJSON and CSV: PostgreSQL writes the records, here they become a file."""

from hubspot_deals.exports.order import ExportFormat, ExportOrder
from hubspot_deals.exports.sink import FileSink
from hubspot_deals.warehouse.exports import TableReader, neutralised


def write_text(reader: TableReader, sink: FileSink, order: ExportOrder) -> None:
    """Write a table as text; a JSON document is closed only when all of it is there."""
    match order.format:
        case ExportFormat.CSV:
            pages = reader.as_csv(neutralise=not order.raw)
            names = [column.name for column in reader.columns]
            # An account may have defined any.
            shown = names if order.raw else map(neutralised, names)
            head, first, between, end = b",".join(map(_quote, shown)) + b"\r\n", b"", b"", b""
        case ExportFormat.NDJSON:
            pages = reader.as_json(pretty=False)
            head, first, between, end = b"", b"", b"", b""
        case _:
            pages = reader.as_json(pretty=True)
            head, first, between, end = b"[", b"\n", b",\n", b"\n]\n"
    sink.write(head)
    for page in pages:
        sink.write(between if sink.rows else first)
        sink.write(page.records)
        sink.add_rows(page.returned)
    sink.write(end)


def _quote(name: str) -> bytes:
    return b'"%b"' % name.replace('"', '""').encode()
