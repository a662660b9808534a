"""Which rows of a scan count: its committed chunks, what they hold, and what never counted."""

from collections.abc import Iterator, Mapping
from typing import Any

from psycopg import sql
from psycopg.rows import scalar_row
from psycopg.types.json import Jsonb

from hubspot_deals.contract import DATASET_NAME
from hubspot_deals.errors import LoadFailedError
from hubspot_deals.tables import TABLES
from hubspot_deals.warehouse.digests import ChunkDigest
from hubspot_deals.warehouse.leases import Lease


def last_checkpoint(lease: Lease, table_name: str) -> tuple[int, int, dict[str, Any] | None]:
    """Return the number of committed chunks and rows of a table, and its last checkpoint."""
    row = lease.connection.execute(
        "SELECT chunk_no, first_row + row_count - 1, checkpoint FROM hubspot_deals.scan_chunks"
        " WHERE scan_id = %s AND generation = %s AND table_name = %s"
        " ORDER BY chunk_no DESC LIMIT 1",
        (lease.config.scan_id, lease.generation, table_name),
    ).fetchone()
    return row or (0, 0, None)


def committed_deals(lease: Lease) -> Iterator[tuple[str, str | None]]:
    """Yield id and owner of the deals in committed chunks, for a reader that goes on."""
    with lease.connection.cursor() as cursor:
        yield from cursor.stream(
            f"SELECT d.id, d.properties ->> 'hubspot_owner_id' FROM {DATASET_NAME}.deals d"
            " JOIN hubspot_deals.scan_chunks c ON c.scan_id = d.scan_id"
            " AND c.load_id = d._dlt_load_id AND c.table_name = 'deals'"
            " WHERE d.scan_id = %s AND c.generation = %s",
            (lease.config.scan_id, lease.generation),
        )


def commit_chunk(  # noqa: PLR0913 - each is a column of the chunk
    lease: Lease,
    table_rows: Mapping[str, int],
    load_id: str,
    *,
    checkpoint: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    digests: Mapping[str, ChunkDigest | None] | None = None,
) -> None:
    """Make a load package count: `table_rows` are its tables with their row counts.

    `digests` say what was read of each table. The checkpoint and the facts belong to the last.

    Raises LoadFailedError when the package has left another number of rows: a COPY whose
    answer was lost may have been repeated. A run of the scan then reads the chunk again.
    """
    with lease.fenced() as cursor:
        for left, (table_name, rows) in enumerate(table_rows.items(), start=1 - len(table_rows)):
            chunks, last_row, _ = last_checkpoint(lease, table_name)
            digest = (digests or {}).get(table_name)
            stored = _count_package(lease, table_name, load_id, last_row)
            if stored != rows:
                reason = f"{table_name} has {stored} rows of a package of {rows}"
                raise LoadFailedError(step="commit", reason=reason)
            cursor.execute(
                "INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name,"
                " chunk_no, load_id, first_row, row_count, checkpoint, facts, epoch, key_hash, ids)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    lease.config.scan_id,
                    lease.generation,
                    table_name,
                    chunks + 1,
                    load_id,
                    last_row + 1,
                    rows,
                    Jsonb(checkpoint) if checkpoint is not None and not left else None,
                    Jsonb(facts if facts and not left else {}),
                    lease.epoch,
                    digest.key_hash if digest else None,
                    digest.ids if digest else None,
                ),
            )
        # A rerun leaves the served number alone. Progress starts the count of crashes anew.
        cursor.execute(
            "UPDATE hubspot_deals.scans SET progress_at = now(), auto_resumes = 0,"
            " records_extracted = CASE WHEN outcome IS NULL"
            " THEN records_extracted + %s ELSE records_extracted END WHERE scan_id = %s",
            (table_rows.get("deals", 0), lease.config.scan_id),
        )


def _count_package(lease: Lease, table_name: str, load_id: str, last_row: int) -> int:
    """Count the rows of a package behind the last committed one, where its rows must be."""
    cursor = lease.connection.cursor(row_factory=scalar_row)
    cursor.execute(
        sql.SQL(
            "SELECT count(*) FROM {dataset}.{table}"
            " WHERE scan_id = %s AND row_no > %s AND _dlt_load_id = %s"
        ).format(dataset=sql.Identifier(DATASET_NAME), table=sql.Identifier(table_name)),
        (lease.config.scan_id, last_row, load_id),
    )
    return cursor.fetchone() or 0


def chunk_facts(lease: Lease) -> list[dict[str, Any]]:
    """Return what all runs of this generation have noticed, in the order of their chunks."""
    cursor = lease.connection.cursor(row_factory=scalar_row)
    cursor.execute(
        "SELECT facts FROM hubspot_deals.scan_chunks WHERE scan_id = %s AND generation = %s"
        " AND facts <> '{}' ORDER BY committed_at, chunk_no",
        (lease.config.scan_id, lease.generation),
    )
    return cursor.fetchall()


def start_over(lease: Lease) -> None:
    """Let nothing that was read so far count, so that the next run reads all of it again."""
    with lease.fenced() as cursor:
        cursor.execute(
            "DELETE FROM hubspot_deals.scan_chunks WHERE scan_id = %s AND generation = %s",
            (lease.config.scan_id, lease.generation),
        )
        cursor.execute(
            "UPDATE hubspot_deals.scans SET records_extracted = 0"
            " WHERE scan_id = %s AND outcome IS NULL",
            (lease.config.scan_id,),
        )


def delete_uncounted_rows(lease: Lease) -> None:
    """Delete rows of packages that never counted, or that count no longer."""
    for table_name in TABLES:
        lease.connection.execute(
            sql.SQL(
                "WITH gone AS (DELETE FROM {dataset}.{table} WHERE scan_id = %(scan)s"
                " AND _dlt_load_id NOT IN (SELECT load_id FROM hubspot_deals.scan_chunks"
                " WHERE scan_id = %(scan)s) RETURNING _dlt_load_id)"
                " DELETE FROM {dataset}._dlt_loads"
                " WHERE load_id IN (SELECT DISTINCT _dlt_load_id FROM gone)"
            ).format(dataset=sql.Identifier(DATASET_NAME), table=sql.Identifier(table_name)),
            {"scan": lease.config.scan_id},
        )
