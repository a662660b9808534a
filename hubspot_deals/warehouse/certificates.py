"""The certificate of a served snapshot, and what HubSpot's count is held against to make it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import scalar_row
from psycopg.types.json import Jsonb
from pyroaring import BitMap64

from hubspot_deals.contract import DATASET_NAME
from hubspot_deals.warehouse.leases import Lease


def reading_began(lease: Lease) -> datetime:
    """Return when the first run began that read a part of this snapshot.

    Runs of earlier snapshots are among the attempts too: the one that counts is the last that began
    before the first chunk was committed.
    """
    cursor = lease.connection.cursor(row_factory=scalar_row)
    cursor.execute(
        "SELECT max((attempt ->> 'startedAt')::timestamptz) FROM hubspot_deals.scans s,"
        " jsonb_array_elements(s.attempts) attempt WHERE s.scan_id = %(scan)s"
        " AND (attempt ->> 'startedAt')::timestamptz <= ("
        " SELECT min(c.committed_at) FROM hubspot_deals.scan_chunks c WHERE c.scan_id = s.scan_id"
        " AND c.generation = %(generation)s)",
        {"scan": lease.config.scan_id, "generation": lease.generation},
    )
    return cursor.fetchone() or lease.taken_at


def live_deals(lease: Lease, since: datetime) -> tuple[BitMap64, BitMap64]:
    """Return the ids of the live deals that are stored, and of those that changed since then."""
    stored, fresh = BitMap64(), BitMap64()
    with lease.connection.cursor() as cursor:
        for deal_id, is_fresh in cursor.stream(
            "SELECT d.id::bigint, coalesce(d.hs_lastmodifieddate, d.updated_at) >= %s"
            f" FROM {DATASET_NAME}.deals d JOIN hubspot_deals.scan_chunks c"
            " ON c.scan_id = d.scan_id AND c.load_id = d._dlt_load_id AND c.table_name = 'deals'"
            " WHERE d.scan_id = %s AND c.generation = %s AND NOT d.archived",
            (since, lease.config.scan_id, lease.generation),
        ):
            stored.add(deal_id)
            if is_fresh:
                fresh.add(deal_id)
    return stored, fresh


def store_certificate(
    cursor: psycopg.Cursor[Any], lease: Lease, document: Mapping[str, Any]
) -> None:
    """Keep the certificate of the snapshot that is being completed, in place of earlier ones."""
    cursor.execute(
        "DELETE FROM hubspot_deals.certificates WHERE scan_id = %s", (lease.config.scan_id,)
    )
    cursor.execute(
        "INSERT INTO hubspot_deals.certificates (scan_id, generation, document)"
        " VALUES (%s, %s, %s)",
        (lease.config.scan_id, lease.generation, Jsonb(document)),
    )


async def find_certificate(
    connection: AsyncConnection[Any], scan_id: str, generation: int
) -> dict[str, Any] | None:
    """Return what a snapshot was completed with; None of one from before there were any."""
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute(
        "SELECT document FROM hubspot_deals.certificates WHERE scan_id = %s AND generation = %s",
        (scan_id, generation),
    )
    document: dict[str, Any] | None = await cursor.fetchone()
    return document
