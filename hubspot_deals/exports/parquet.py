"""Parquet with the columns' types, written by pyarrow."""

from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from hubspot_deals.exports.sink import FileSink
from hubspot_deals.warehouse.exports import Column, Kind, TableReader

# Both bound what is in memory, and depend on nothing but the rows: the same rows, the same file.
_GROUP_ROWS: Final = 65_536
_GROUP_BYTES: Final = 12_000_000

_TYPES: Final = {
    Kind.TEXT: pa.string(),
    Kind.JSON: pa.string(),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.decimal128(38, 18),
    Kind.BOOLEAN: pa.bool_(),
    Kind.MOMENT: pa.timestamp("us", tz="UTC"),
}


def write_parquet(reader: TableReader, sink: FileSink) -> None:
    """Write a table: numbers as exact decimals, moments in UTC, everything else as text."""
    schema = pa.schema([(column.name, _TYPES[column.kind]) for column in reader.columns])
    with pa.parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        sink.add_rows(0)
        group: list[Any] = []
        rows = size = 0
        for page in reader.as_typed_csv():
            group.append(_parse(page.records, reader.columns).cast(schema))
            rows += page.returned
            size += len(page.records)
            if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
                _write_group(writer, group)
                sink.add_rows(rows)
                group, rows, size = [], 0, 0
        if group:
            _write_group(writer, group)
            sink.add_rows(rows)


def _write_group(writer: Any, tables: list[Any]) -> None:
    table = pa.concat_tables(tables).combine_chunks()
    writer.write_table(table, row_group_size=table.num_rows)


def _parse(lines: bytes, columns: list[Column]) -> Any:
    types = {column.name: _TYPES[column.kind] for column in columns}
    moments = {column.name: pa.int64() for column in columns if column.kind is Kind.MOMENT}
    return pa.csv.read_csv(
        pa.BufferReader(lines),
        pa.csv.ReadOptions(column_names=list(types), block_size=len(lines) + 1, use_threads=False),
        pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        pa.csv.ConvertOptions(
            column_types=types | moments,
            null_values=[""],
            true_values=["true"],
            false_values=["false"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
