"""Holds what is stored now against what was read then."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from psycopg import AsyncConnection

from api.certificates.schemas import (
    AuditedTable,
    ScanCertificate,
    StoredCertificate,
    TableAudit,
    TableDifference,
)
from api.database import ConnectionPool, read
from api.results.service import get_snapshot
from hubspot_deals.warehouse import audits
from hubspot_deals.warehouse.audits import Difference
from hubspot_deals.warehouse.certificates import find_certificate
from hubspot_deals.warehouse.results import Snapshot, is_served

_AT_ONCE: Final = 2
"""Audits under way: each reads all rows of a scan, and pages must not wait for it."""


class Auditor:
    """Reads certificates and audits the tables they are about, a few at a time."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def audit(self, scan_id: str) -> ScanCertificate:
        """Audit a completed scan; raises what a page of it would raise."""
        async with self._turn:
            while True:
                found = await read(self._pool, partial(_audit, scan_id=scan_id))
                if found is not None:
                    return found


async def _audit(connection: AsyncConnection[Any], *, scan_id: str) -> ScanCertificate | None:
    """Audit what a scan serves; None if a rerun or a removal took its place meanwhile."""
    began = time.monotonic()
    snapshot = await get_snapshot(connection, scan_id=scan_id)
    document = await find_certificate(connection, scan_id, snapshot.generation)
    names = [table.table_name for table in snapshot.tables]
    tables, differences = await audits.audit_snapshot(
        connection, scan_id, snapshot.generation, names
    )
    if not await is_served(connection, snapshot):
        return None
    certificate = None if document is None else StoredCertificate.model_validate(document)
    differences = [*differences, *_compare_counts(snapshot, certificate, tables)]
    return ScanCertificate(
        scan_id=scan_id,
        snapshot=snapshot.generation,
        complete=not differences and (certificate is None or certificate.complete),
        certificate=certificate,
        audit=TableAudit(
            made_at=datetime.now(UTC),
            seconds=round(time.monotonic() - began, 3),
            tables=[_shown(table) for table in tables],
            differences=[_difference(found) for found in differences],
        ),
    )


def _compare_counts(
    snapshot: Snapshot, certificate: StoredCertificate | None, tables: Sequence[audits.TableAudit]
) -> Iterator[Difference]:
    """Hold the tables against the certificate too: chunks could be changed with their rows."""
    certified = {} if certificate is None else {one.name: one for one in certificate.tables}
    counted = {table.table_name: table.row_count for table in snapshot.tables}
    for audit in tables:
        name = audit.table_name
        wanted = certified.get(name)
        rows = counted[name] if wanted is None else wanted.stored
        if audit.stored != rows or (wanted is not None and audit.key_hash != wanted.key_hash):
            text = f"{audit.stored} rows are stored, {rows} were when the scan completed"
            if audit.stored == rows:
                text = "the keys are not those of when the scan completed"
            yield Difference(name, None, "recount", text, [], [])
        if audit.foreign_rows:
            text = f"{audit.foreign_rows} rows were never committed"
            yield Difference(name, None, "foreign_rows", text, [], [])


def _shown(audit: audits.TableAudit) -> AuditedTable:
    return AuditedTable(
        name=audit.table_name,
        committed=audit.committed,
        stored=audit.stored,
        distinct=audit.distinct_rows,
        key_hash=audit.key_hash,
        differing_chunks=audit.differing_chunks,
        unhashed_chunks=audit.unhashed_chunks,
        foreign_rows=audit.foreign_rows,
    )


def _difference(found: Difference) -> TableDifference:
    return TableDifference(
        table=found.table_name,
        chunk=found.chunk,
        kind=found.kind,
        text=found.text,
        row_numbers=found.row_numbers,
        keys=found.keys,
    )
