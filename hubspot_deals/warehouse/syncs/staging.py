"""Puts Arrow rows beside the tables of a connection, to be merged into them by one statement.

COPY of a chunk and its merge are one transaction, and so are what changed, what vanished and
where the next run goes on: see docs/decisions/0025.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pyarrow as pa

from hubspot_deals.tables import Table
from hubspot_deals.warehouse.csv_rows import to_csv
from hubspot_deals.warehouse.syncs.schema import CURRENT_TABLES, OWNER_COLUMNS, SQL_TYPES


@dataclass(frozen=True, slots=True)
class MergeCounts:
    """What merging rows into a table has done. Rows that were the same are the rest of `rows`."""

    rows: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def __add__(self, other: "MergeCounts") -> "MergeCounts":
        return MergeCounts(
            self.rows + other.rows,
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.deleted + other.deleted,
        )


def staged(table: Table) -> str:
    """Return the name of the table that rows are put into on their way."""
    return f"staged_{table.name}"


def stage(cursor: psycopg.Cursor[Any], table: Table, batches: Sequence[pa.Table]) -> int:
    """Copy rows into the session's own table, which is empty again after the transaction."""
    columns = ", ".join(f"{name} {SQL_TYPES[kind]}" for name, kind in table.columns.items())
    cursor.execute("SET LOCAL client_min_messages = warning")
    cursor.execute(
        f"CREATE TEMP TABLE IF NOT EXISTS {staged(table)} ({columns}) ON COMMIT DELETE ROWS"
    )
    rows = 0
    names = ", ".join(table.columns)
    with cursor.copy(f"COPY {staged(table)} ({names}) FROM STDIN (FORMAT csv)") as copy:
        for batch in batches:
            if batch.num_rows:
                copy.write(memoryview(to_csv(batch.select(list(table.columns)))))
                rows += batch.num_rows
    return rows


def upsert(table: Table, **added: str) -> str:
    """Return a statement that merges the staged rows of a table, and counts what it did.

    `added` are SQL expressions for columns that only our tables have; they never make a row
    different. Its parameters are `organization` and `connection`, and those of the expressions.
    """
    current = CURRENT_TABLES[table.name]
    values = [name for name in table.columns if name not in current.key]
    taken = ", ".join(f"{name} = EXCLUDED.{name}" for name in (*values, *added))
    is_other = f"({_named('t', values)}) IS DISTINCT FROM ({_named('EXCLUDED', values)})"
    expressions = "".join(f", {expression}" for expression in added.values())
    return f"""
        WITH put AS (
            INSERT INTO {current.name} AS t
                ({", ".join((*OWNER_COLUMNS, *table.columns, *added))})
            SELECT %(organization)s, %(connection)s, {_named("s", table.columns)}{expressions}
            FROM {staged(table)} s
            ON CONFLICT ({", ".join((*OWNER_COLUMNS, *current.key))}) DO UPDATE SET {taken}
            {"" if added else f"WHERE {is_other}"}
            RETURNING xmax = 0 AS is_new
        )
        SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM put
    """


def _named(alias: str, names: Any) -> str:
    return ", ".join(f"{alias}.{name}" for name in names)
