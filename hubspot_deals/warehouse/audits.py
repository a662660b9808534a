"""Holds the rows of a snapshot against what its chunks say was read.

One statement per table, which reads each row once: a million deals take some three seconds.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection, sql
from psycopg.rows import class_row, dict_row
from pyroaring import BitMap64

from hubspot_deals.contract import DATASET_NAME, TABLE_NAMES
from hubspot_deals.warehouse.leases import Lease

KEYS: Final[Mapping[str, tuple[str, ...]]] = dict.fromkeys(TABLE_NAMES, ("id",)) | {
    "pipeline_stages": ("pipeline_id", "id"),
    "deal_properties": ("name",),
}
"""The columns that tell the rows of a table apart."""

_MOST_CHUNKS: Final = 20
"""Chunks whose rows are looked at one by one."""
_MOST_NAMED: Final = 100
_MOST_SECONDS: Final = 240
"""For one table; a session for pages has less patience."""
_SORT_MEMORY: Final = "64MB"
"""Sorts the keys of a million deals without a disk, or nearly."""

# A row counts if its package is the one of a chunk. The rest may belong to a run under way.
_ROWS: Final = """
    WITH chunk AS (
        SELECT chunk_no, load_id, first_row, row_count, key_hash FROM hubspot_deals.scan_chunks
        WHERE scan_id = %(scan)s AND generation = %(generation)s AND table_name = {name}
    ), r AS MATERIALIZED (
        SELECT r.row_no, coalesce({key}, '') COLLATE "C" AS key, {archived} AS archived,
            r._dlt_load_id AS load_id, c.chunk_no
        FROM {dataset}.{table} r LEFT JOIN chunk c ON c.load_id = r._dlt_load_id
        WHERE r.scan_id = %(scan)s
    )
"""
_HASH: Final = """
    encode(sha256(convert_to(string_agg(key || E'\\n', '' ORDER BY key), 'UTF8')), 'hex')
"""
_OVERVIEW: Final = f"""
    {_ROWS}, found AS (
        SELECT chunk_no, count(*) AS stored, count(DISTINCT row_no) AS numbers,
            min(row_no) AS first, max(row_no) AS last, {_HASH} AS key_hash
        FROM r WHERE chunk_no IS NOT NULL GROUP BY chunk_no
    ), differing AS (
        SELECT c.chunk_no FROM chunk c LEFT JOIN found f USING (chunk_no)
        WHERE c.row_count <> coalesce(f.stored, 0) OR f.numbers <> f.stored
        OR f.first <> c.first_row OR f.last <> c.first_row + c.row_count - 1
        OR f.key_hash <> c.key_hash
    )
    SELECT {{name}} AS table_name,
        (SELECT coalesce(sum(row_count), 0)::bigint FROM chunk) AS committed,
        count(*) AS stored, count(DISTINCT key) AS distinct_rows,
        coalesce(max(row_no), 0) AS last_row, count(*) FILTER (WHERE archived) AS archived,
        {_HASH} AS key_hash,
        (SELECT count(*) FROM chunk WHERE row_count > 0 AND key_hash IS NULL) AS unhashed_chunks,
        ARRAY(SELECT chunk_no FROM differing ORDER BY 1) AS differing_chunks,
        (SELECT count(*) FROM r WHERE chunk_no IS NULL AND load_id NOT IN (
            SELECT load_id FROM hubspot_deals.scan_chunks WHERE scan_id = %(scan)s
        ) AND EXISTS (SELECT FROM hubspot_deals.scans WHERE scan_id = %(scan)s
            AND working_generation = 1)) AS foreign_rows
    FROM r WHERE chunk_no IS NOT NULL
"""
_REPEATED: Final = f"""
    {_ROWS} SELECT key, array_agg(row_no ORDER BY row_no) AS row_numbers FROM r
    WHERE chunk_no IS NOT NULL GROUP BY key HAVING count(*) > 1 ORDER BY key LIMIT {_MOST_NAMED}
"""
_CHUNKS: Final = """
    WITH chunk AS (
        SELECT chunk_no, load_id, first_row, row_count, ids FROM hubspot_deals.scan_chunks
        WHERE scan_id = %(scan)s AND generation = %(generation)s AND table_name = {name}
        AND chunk_no = ANY(%(chunks)s)
    ), found AS (
        SELECT r._dlt_load_id AS load_id, jsonb_agg(jsonb_build_array(r.row_no, {key})) AS rows
        FROM {dataset}.{table} r WHERE r.scan_id = %(scan)s
        AND r._dlt_load_id = ANY(ARRAY(SELECT load_id FROM chunk)) GROUP BY 1
    )
    SELECT c.chunk_no, c.first_row, c.row_count, c.ids, coalesce(f.rows, '[]') AS rows
    FROM chunk c LEFT JOIN found f USING (load_id) ORDER BY c.chunk_no
"""


@dataclass(frozen=True, slots=True)
class TableAudit:
    """What is stored of one table, beside what its chunks say was read.

    `key_hash` is of all its keys, sorted by bytes, each followed by a line break; None without
    rows. `foreign_rows` are in no chunk of the scan, and never served; they are not counted where
    the scan was run again, which leaves such rows for a while.
    """

    table_name: str
    committed: int
    stored: int
    distinct_rows: int
    last_row: int
    archived: int
    key_hash: str | None
    unhashed_chunks: int
    differing_chunks: list[int]
    foreign_rows: int

    def __str__(self) -> str:
        chunks = ", ".join(map(str, self.differing_chunks[:_MOST_CHUNKS]))
        return (
            f"{self.table_name}: {self.committed} rows committed, {self.stored} stored, "
            f"{self.distinct_rows} distinct, last row number {self.last_row}"
            + (f", other than read in chunk {chunks}" if chunks else "")
        )

    @property
    def is_exact(self) -> bool:
        """Whether every row that was read is stored once, as it was read, densely numbered."""
        counts = {self.committed, self.stored, self.distinct_rows, self.last_row}
        return len(counts) == 1 and not self.differing_chunks


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a table is not what was read; `chunk` None where it concerns no single one.

    `row_numbers` and `keys` are at most a hundred each: where something is gone or too much, and
    which keys that are; of changed keys the ones that were read.
    """

    table_name: str
    chunk: int | None
    kind: str
    text: str
    row_numbers: list[int]
    keys: list[str]


def audit_tables(lease: Lease, table_names: Sequence[str]) -> list[TableAudit]:
    """Hold what is stored of some tables against what a run has read."""
    cursor = lease.connection.cursor(row_factory=class_row(TableAudit))
    audits = []
    for name in table_names:
        cursor.execute(_compose(_OVERVIEW, name), _values(lease.config.scan_id, lease.generation))
        audits += cursor.fetchall()
    return audits


async def audit_snapshot(
    connection: AsyncConnection[Any], scan_id: str, generation: int, table_names: Sequence[str]
) -> tuple[list[TableAudit], list[Difference]]:
    """Hold a served snapshot against what was read, as of one moment, and name what differs."""
    audits: list[TableAudit] = []
    differences: list[Difference] = []
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        await connection.execute(f"SET LOCAL work_mem = '{_SORT_MEMORY}'")
        await connection.execute(f"SET LOCAL statement_timeout = '{_MOST_SECONDS}s'")
        for name in table_names:
            values = _values(scan_id, generation)
            cursor = connection.cursor(row_factory=class_row(TableAudit))
            await cursor.execute(_compose(_OVERVIEW, name), values)
            audit = await cursor.fetchone()
            assert audit is not None  # noqa: S101 - an aggregate has a row
            audits.append(audit)
            differences += await _find_differences(connection, audit, values)
    return audits, differences


async def _find_differences(
    connection: AsyncConnection[Any], audit: TableAudit, values: dict[str, Any]
) -> list[Difference]:
    found: list[Difference] = []
    cursor = connection.cursor(row_factory=dict_row)
    name = audit.table_name
    if audit.stored > audit.distinct_rows:
        await cursor.execute(_compose(_REPEATED, name), values)
        for row in await cursor.fetchall():
            numbers = row["row_numbers"]
            text = f"{row['key']} is stored {len(numbers)} times"
            found.append(
                Difference(name, None, "duplicate", text, numbers[:_MOST_NAMED], [row["key"]])
            )
    looked_at = audit.differing_chunks[:_MOST_CHUNKS]
    if looked_at:
        await cursor.execute(_compose(_CHUNKS, name), values | {"chunks": looked_at})
        for row in await cursor.fetchall():
            found += compare_chunk(name, row)
    if left := len(audit.differing_chunks) - len(looked_at):
        text = f"{left} more chunks differ, the first of them chunk " + str(
            audit.differing_chunks[_MOST_CHUNKS]
        )
        found.append(Difference(name, None, "more", text, [], []))
    return found


def compare_chunk(table_name: str, chunk: Mapping[str, Any]) -> Iterator[Difference]:
    """Name what differs in a chunk: its `rows` are pairs of row number and key.

    Keys that are gone are known of deals only, whose ids were kept.
    """
    wanted = range(chunk["first_row"], chunk["first_row"] + chunk["row_count"])
    rows = [(row_no, key) for row_no, key in sorted(chunk["rows"])]
    amounts = Counter(row_no for row_no, _ in rows)
    read = None if chunk["ids"] is None else set(map(str, BitMap64.deserialize(chunk["ids"])))
    gone = [] if read is None else sorted(read - {key for _, key in rows})

    def difference(kind: str, text: str, numbers: list[int], keys: list[str]) -> Difference:
        named = numbers[:_MOST_NAMED], keys[:_MOST_NAMED]
        return Difference(table_name, chunk["chunk_no"], kind, text, *named)

    if absent := [row_no for row_no in wanted if row_no not in amounts]:
        text = f"{len(absent)} of the {len(wanted)} rows that were read are gone"
        yield difference("rows_missing", text, absent, gone)
    if extra := [row for row in rows if row[0] not in wanted or amounts[row[0]] > 1]:
        text = f"{len(extra)} rows are in places that are taken or that nothing was read for"
        yield difference("rows_added", text, [no for no, _ in extra], [key for _, key in extra])
    strange = [row for row in rows if read is not None and row[1] not in read]
    if strange or not (absent or extra):
        text = f"{len(strange) or 'some'} rows have a key that was not read"
        if strange:
            text += ": " + ", ".join(f"row {no} has {key}" for no, key in strange[:_MOST_NAMED])
        yield difference("keys_changed", text, [no for no, _ in strange], gone)


def _values(scan_id: str, generation: int) -> dict[str, Any]:
    return {"scan": scan_id, "generation": generation}


def _compose(statement: str, table_name: str) -> sql.Composed:
    columns = sql.SQL(", ").join(sql.Identifier("r", name) for name in KEYS[table_name])
    return sql.SQL(statement).format(
        name=sql.Literal(table_name),
        key=sql.SQL("concat_ws(' ', {})").format(columns),
        archived=sql.SQL("r.archived" if table_name == "deals" else "false"),
        dataset=sql.Identifier(DATASET_NAME),
        table=sql.Identifier(table_name),
    )
