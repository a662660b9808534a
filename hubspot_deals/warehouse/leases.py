"""What the worker of a scan writes: its lease, its chunks and how the scan ended.

A lease is a PostgreSQL session lock plus an epoch. The lock ends with the worker's connection, so
anybody can see at once whether it lives; the epoch fences it out when another one has taken over.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg import Connection, sql
from psycopg.rows import class_row, dict_row, scalar_row
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from hubspot_deals.contract import DATASET_NAME, Outcome, ScanConfig
from hubspot_deals.errors import (
    CredentialError,
    LeaseLostError,
    LoadFailedError,
    ScanBusyError,
    ScanNotFoundError,
    ScanSupersededError,
    TransientError,
)
from hubspot_deals.tables import TABLES
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.credentials import KeyRing, SealedToken
from hubspot_deals.warehouse.scans import LEASE_LOCK_CLASS

_SERVER_KEEPALIVE: Final = {
    "tcp_keepalives_idle": 15,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


@dataclass(frozen=True, slots=True)
class TableCount:
    """What is stored of one table, beside what its chunks say."""

    table_name: str
    committed: int
    stored: int
    distinct_rows: int
    last_row: int

    def __str__(self) -> str:
        return (
            f"{self.table_name}: {self.committed} rows committed, {self.stored} stored, "
            f"{self.distinct_rows} distinct, last row number {self.last_row}"
        )

    @property
    def is_exact(self) -> bool:
        """Whether every committed row is stored once, densely numbered."""
        return self.committed == self.stored == self.distinct_rows == self.last_row


@dataclass(frozen=True, slots=True)
class TableResult:
    """A table of the snapshot that a scan completes with."""

    table_name: str
    row_count: int
    extracted_count: int
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one scan, until the connection ends or another run takes over."""

    connection: Connection[Any]
    config: ScanConfig
    seq: int
    generation: int
    epoch: int
    run_id: str
    taken_at: datetime

    def get_token(self, keys: KeyRing) -> SecretStr:
        """Decrypt the scan's access token; raises CredentialError."""
        row = self.connection.execute(
            "SELECT key_id, nonce, ciphertext FROM hubspot_deals.credentials WHERE scan_id = %s",
            (self.config.scan_id,),
        ).fetchone()
        if row is None:
            msg = f"No credential is stored for scan {self.config.scan_id}; start a new scan."
            raise CredentialError(msg)
        return keys.open(SealedToken(*row), bound_to=self.config.scan_id)

    def last_checkpoint(self, table_name: str) -> tuple[int, int, dict[str, Any] | None]:
        """Return the number of committed chunks and rows of a table, and its last checkpoint."""
        row = self.connection.execute(
            "SELECT chunk_no, first_row + row_count - 1, checkpoint FROM hubspot_deals.scan_chunks"
            " WHERE scan_id = %s AND generation = %s AND table_name = %s"
            " ORDER BY chunk_no DESC LIMIT 1",
            (self.config.scan_id, self.generation, table_name),
        ).fetchone()
        return row or (0, 0, None)

    def committed_deals(self) -> Iterator[tuple[str, str | None]]:
        """Yield id and owner of the deals in committed chunks, for a reader that goes on."""
        with self.connection.cursor() as cursor:
            yield from cursor.stream(
                f"SELECT d.id, d.properties ->> 'hubspot_owner_id' FROM {DATASET_NAME}.deals d"
                " JOIN hubspot_deals.scan_chunks c ON c.scan_id = d.scan_id"
                " AND c.load_id = d._dlt_load_id AND c.table_name = 'deals'"
                " WHERE d.scan_id = %s AND c.generation = %s",
                (self.config.scan_id, self.generation),
            )

    def commit_chunk(
        self,
        table_names: Mapping[str, int],
        load_id: str,
        *,
        checkpoint: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Make a load package count: `table_names` are its tables with their row counts.

        Raises LoadFailedError when the package has left another number of rows: a COPY whose
        answer was lost may have been repeated. A run of the scan then reads the chunk again.
        """
        with self._fenced() as cursor:
            for table_name, rows in table_names.items():
                chunks, last_row, _ = self.last_checkpoint(table_name)
                stored = self._count_package(table_name, load_id, last_row)
                if stored != rows:
                    reason = f"{table_name} has {stored} rows of a package of {rows}"
                    raise LoadFailedError(step="commit", reason=reason)
                cursor.execute(
                    "INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name,"
                    " chunk_no, load_id, first_row, row_count, checkpoint, facts, epoch)"
                    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    (
                        self.config.scan_id,
                        self.generation,
                        table_name,
                        chunks + 1,
                        load_id,
                        last_row + 1,
                        rows,
                        Jsonb(checkpoint) if checkpoint is not None else None,
                        Jsonb(facts or {}),
                        self.epoch,
                    ),
                )

    def _count_package(self, table_name: str, load_id: str, last_row: int) -> int:
        """Count the rows of a package behind the last committed one, where its rows must be."""
        cursor = self.connection.cursor(row_factory=scalar_row)
        cursor.execute(
            sql.SQL(
                "SELECT count(*) FROM {dataset}.{table}"
                " WHERE scan_id = %s AND row_no > %s AND _dlt_load_id = %s"
            ).format(dataset=sql.Identifier(DATASET_NAME), table=sql.Identifier(table_name)),
            (self.config.scan_id, last_row, load_id),
        )
        return cursor.fetchone() or 0

    def chunk_facts(self) -> list[dict[str, Any]]:
        """Return what all runs of this generation have noticed, in the order of their chunks."""
        cursor = self.connection.cursor(row_factory=scalar_row)
        cursor.execute(
            "SELECT facts FROM hubspot_deals.scan_chunks WHERE scan_id = %s AND generation = %s"
            " ORDER BY committed_at, chunk_no",
            (self.config.scan_id, self.generation),
        )
        return cursor.fetchall()

    def start_over(self) -> None:
        """Let nothing that was read so far count, so that the next run reads all of it again."""
        with self._fenced() as cursor:
            cursor.execute(
                "DELETE FROM hubspot_deals.scan_chunks WHERE scan_id = %s AND generation = %s",
                (self.config.scan_id, self.generation),
            )

    def report_progress(self, *, deals: int, expected: int | None) -> None:
        """Tell callers how many deals are committed; a rerun leaves the served numbers alone."""
        with self._fenced() as cursor:
            cursor.execute(
                "UPDATE hubspot_deals.scans SET heartbeat_at = now(),"
                " records_extracted = CASE WHEN outcome IS NULL THEN %s ELSE records_extracted END,"
                " records_expected = coalesce(%s, records_expected) WHERE scan_id = %s",
                (deals, expected, self.config.scan_id),
            )

    def count_tables(self, table_names: Sequence[str]) -> list[TableCount]:
        """Count what is stored, independently of what was counted while loading."""
        cursor = self.connection.cursor(row_factory=class_row(TableCount))
        counts = []
        for table_name in table_names:
            key = "name" if "name" in TABLES[table_name].columns else "id"
            parts = ("id", "pipeline_id") if table_name == "pipeline_stages" else (key,)
            identity = sql.SQL(", ").join(sql.Identifier("r", part) for part in parts)
            cursor.execute(
                sql.SQL(
                    "WITH counting AS (SELECT load_id, row_count FROM hubspot_deals.scan_chunks"
                    " WHERE scan_id = %(scan)s AND generation = %(generation)s"
                    " AND table_name = %(table)s)"
                    " SELECT %(table)s AS table_name, (SELECT coalesce(sum(row_count), 0)::bigint"
                    " FROM counting) AS committed, count(*) AS stored,"
                    " count(DISTINCT ({identity})) AS distinct_rows, coalesce(max(r.row_no), 0)"
                    " AS last_row FROM {dataset}.{table} r WHERE r.scan_id = %(scan)s"
                    " AND r._dlt_load_id IN (SELECT load_id FROM counting)"
                ).format(
                    identity=identity,
                    dataset=sql.Identifier(DATASET_NAME),
                    table=sql.Identifier(table_name),
                ),
                {
                    "scan": self.config.scan_id,
                    "generation": self.generation,
                    "table": table_name,
                },
            )
            counts += cursor.fetchall()
        return counts

    def complete(self, tables: Sequence[TableResult], metadata: Mapping[str, Any]) -> None:
        """Serve this generation from now on, then drop the rows of earlier ones."""
        deals = sum(table.row_count for table in tables if table.table_name == "deals")
        with self._fenced() as cursor:
            cursor.executemany(
                "INSERT INTO hubspot_deals.scan_tables (scan_id, generation, table_name,"
                " row_count, extracted_count, columns) VALUES (%s, %s, %s, %s, %s, %s)",
                [
                    (
                        self.config.scan_id,
                        self.generation,
                        table.table_name,
                        table.row_count,
                        table.extracted_count,
                        list(table.columns),
                    )
                    for table in tables
                ],
            )
            cursor.execute(
                "UPDATE hubspot_deals.scans SET outcome = %s, generation = %s, ended_at = now(),"
                " heartbeat_at = now(), error_message = NULL,"
                # A rerun replaces the earlier run's times as well as its rows.
                " started_at = CASE WHEN generation > 0 THEN %s ELSE started_at END,"
                " records_extracted = %s, metadata = %s WHERE scan_id = %s",
                (
                    Outcome.COMPLETED,
                    self.generation,
                    self.taken_at,
                    deals,
                    Jsonb(metadata),
                    self.config.scan_id,
                ),
            )
            cursor.execute(
                "DELETE FROM hubspot_deals.scan_chunks WHERE scan_id = %s AND generation < %s",
                (self.config.scan_id, self.generation),
            )
            cursor.execute(
                "DELETE FROM hubspot_deals.scan_tables WHERE scan_id = %s AND generation < %s",
                (self.config.scan_id, self.generation),
            )
        # Nobody sees these rows any more, and the next run of the scan would delete them too.
        with suppress(psycopg.Error):
            self.delete_uncounted_rows()

    def fail(self, message: str) -> None:
        """Record why the scan ended; a failed rerun leaves the served outcome as it is."""
        self._end(Outcome.FAILED, message)

    def cancel(self) -> None:
        """Record that the run was terminated by hand; what a rerun would replace stays served."""
        self._end(Outcome.CANCELLED, None)

    def _end(self, outcome: Outcome, message: str | None) -> None:
        with self._fenced() as cursor:
            cursor.execute(
                "UPDATE hubspot_deals.scans SET outcome = %s, ended_at = now(),"
                " heartbeat_at = now(), error_message = %s WHERE scan_id = %s AND outcome IS NULL",
                (outcome, message, self.config.scan_id),
            )
            rerun = {"runId": self.run_id, "outcome": outcome, "error": message}
            cursor.execute(
                "UPDATE hubspot_deals.scans SET metadata = metadata || %s"
                " WHERE scan_id = %s AND outcome = %s",
                (Jsonb({"lastRerun": rerun}), self.config.scan_id, Outcome.COMPLETED),
            )

    def delete_uncounted_rows(self) -> None:
        """Delete rows of packages that never counted, or that count no longer."""
        for table_name in TABLES:
            self.connection.execute(
                sql.SQL(
                    "DELETE FROM {dataset}.{table} WHERE scan_id = %(scan)s"
                    " AND _dlt_load_id NOT IN (SELECT load_id FROM hubspot_deals.scan_chunks"
                    " WHERE scan_id = %(scan)s)"
                ).format(dataset=sql.Identifier(DATASET_NAME), table=sql.Identifier(table_name)),
                {"scan": self.config.scan_id},
            )

    @contextmanager
    def _fenced(self) -> Iterator[psycopg.Cursor[Any]]:
        """Open a transaction that only the holder of the current epoch can commit."""
        try:
            with self.connection.transaction(), self.connection.cursor() as cursor:
                cursor.execute(
                    "SELECT 1 FROM hubspot_deals.scans WHERE scan_id = %s AND epoch = %s"
                    " FOR UPDATE",
                    (self.config.scan_id, self.epoch),
                )
                if cursor.fetchone() is None:
                    raise LeaseLostError(self.config.scan_id, self.epoch)
                yield cursor
        except psycopg.OperationalError as error:
            msg = f"PostgreSQL broke off while scan {self.config.scan_id} was written: {error}"
            raise TransientError(msg) from error


@contextmanager
def hold_lease(
    database_url: SecretStr, scan_id: str, run_id: str, *, launch_epoch: int | None
) -> Iterator[Lease]:
    """Take a scan up for this run, and let it go at the end.

    `launch_epoch` is the epoch for which the run was launched, None for a rerun by hand. A rerun
    of a completed scan fills a new generation beside the served one; any other goes on after the
    last committed chunk. Raises ScanNotFoundError, ScanBusyError or ScanSupersededError.
    """
    with open_connection(database_url, application_name=f"scan {scan_id}"[:63]) as connection:
        # So that the server, too, notices within half a minute that the worker's machine is gone.
        for name, value in _SERVER_KEEPALIVE.items():
            connection.execute(f"SET {name} = {value}")
        seq = _find_seq(connection, scan_id)
        if not _lock(connection, seq):
            raise ScanBusyError(scan_id)
        lease = _take_up(connection, scan_id, run_id, launch_epoch)
        lease.delete_uncounted_rows()
        yield lease


def _find_seq(connection: Connection[Any], scan_id: str) -> int:
    cursor = connection.cursor(row_factory=scalar_row)
    seq = cursor.execute(
        "SELECT seq FROM hubspot_deals.scans WHERE scan_id = %s", (scan_id,)
    ).fetchone()
    if seq is None:
        raise ScanNotFoundError(scan_id)
    return int(seq)


def _lock(connection: Connection[Any], seq: int) -> bool:
    cursor = connection.cursor(row_factory=scalar_row)
    locked = cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", (LEASE_LOCK_CLASS, seq))
    return bool(locked.fetchone())


def _take_up(
    connection: Connection[Any], scan_id: str, run_id: str, launch_epoch: int | None
) -> Lease:
    row = (
        connection.cursor(row_factory=dict_row)
        .execute(
            "UPDATE hubspot_deals.scans SET epoch = epoch + 1, run_id = %(run)s,"
            " started_at = coalesce(started_at, now()), heartbeat_at = now(),"
            # Past a served snapshot a rerun starts anew; an unfinished one goes on.
            " working_generation = working_generation"
            " + CASE WHEN working_generation = generation THEN 1 ELSE 0 END,"
            " outcome = CASE WHEN outcome = 'completed' THEN outcome END,"
            " error_message = NULL, ended_at = CASE WHEN outcome = 'completed' THEN ended_at END"
            " WHERE scan_id = %(scan)s"
            " AND (%(epoch)s::int IS NULL OR (epoch = %(epoch)s AND outcome IS NULL))"
            " RETURNING seq, config, working_generation, epoch, heartbeat_at",
            {"run": run_id, "scan": scan_id, "epoch": launch_epoch},
        )
        .fetchone()
    )
    if row is None:
        raise ScanSupersededError(scan_id)
    return Lease(
        connection,
        ScanConfig.from_json(row["config"]),
        seq=row["seq"],
        generation=row["working_generation"],
        epoch=row["epoch"],
        run_id=run_id,
        taken_at=row["heartbeat_at"],
    )
