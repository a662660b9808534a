"""Reads which deals a connection's tables have."""

from typing import Any, Final

import psycopg
from pyroaring import BitMap64

from hubspot_deals.tables import DEALS_CURRENT
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.syncs.leases import SyncLease
from hubspot_deals.warehouse.syncs.schema import CURRENT_TABLES, OURS

_DEALS: Final = CURRENT_TABLES[DEALS_CURRENT.name].name
_BLOCK: Final = 50_000


def known_ids(lease: SyncLease) -> BitMap64:
    """Return the ids of all live deals, on a connection of its own: a second for a million.

    PostgreSQL joins them, since a million rows take ten times as long on their way.
    """
    ids = BitMap64()
    after: str | None = ""
    with open_connection(lease.database_url) as connection:
        while after is not None:
            joined, after = connection.execute(
                f"SELECT string_agg(id, ' '), max(id) FROM (SELECT id FROM {_DEALS}"
                f" WHERE {OURS} AND id > %(after)s ORDER BY id LIMIT {_BLOCK}) block",
                {**lease.key, "after": after},
            ).fetchone() or (None, None)
            ids.update(map(int, (joined or "").split()))
    return ids


def ids_after(
    connection: psycopg.Connection[Any], lease: SyncLease, after: str, limit: int
) -> list[str]:
    """Return so many ids of live deals behind one, in PostgreSQL's order of texts."""
    found = connection.execute(
        f"SELECT id FROM {_DEALS} WHERE {OURS} AND id > %(after)s ORDER BY id LIMIT %(limit)s",
        {**lease.key, "after": after, "limit": limit},
    )
    return [row[0] for row in found]


def tidy_after_first_load(lease: SyncLease) -> None:
    """Let PostgreSQL know what there is now, so that ids are read from the index alone."""
    with open_connection(lease.database_url) as connection:
        connection.execute(f"VACUUM (ANALYZE, SKIP_LOCKED) {_DEALS}")
