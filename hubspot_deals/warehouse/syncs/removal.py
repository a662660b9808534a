"""Deletes what a removed connection has kept, in small transactions."""

import time
from typing import Any, Final

from pydantic import SecretStr

from hubspot_deals.sync_contract import CURRENT_SCHEMA
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.syncs.schema import OWNER_COLUMNS, TABLE_NAMES

_BATCH_ROWS: Final = 2_000
_REST: Final = 0.5
"""Of the time that a batch took, so that deletion leaves room for everybody else."""


def remove_connection_data(database_url: SecretStr, seq: int, *, seconds: float) -> bool:
    """Go on deleting the rows of a removed connection, in the end the connection itself.

    Works for so many seconds at most; returns whether nothing is left. Raises nothing for a
    connection that is there no longer, and deletes nothing of one that is not removed.
    """
    deadline = time.monotonic() + seconds
    with open_connection(database_url) as connection:
        row = connection.execute(
            "SELECT organization_id, connection_id FROM hubspot_deals.connections"
            " WHERE seq = %s AND removed_at IS NOT NULL",
            (seq,),
        ).fetchone()
        if row is None:
            return True
        for name in TABLE_NAMES:
            table = f"{CURRENT_SCHEMA}.{name}"
            began = time.monotonic()
            while _delete_some(connection, table, row):
                if time.monotonic() > deadline:
                    return False
                time.sleep(_REST * (time.monotonic() - began))
                began = time.monotonic()
        connection.execute("DELETE FROM hubspot_deals.connections WHERE seq = %s", (seq,))
    return True


def _delete_some(connection: Any, table: str, owner: tuple[str, str]) -> int:
    ours = " AND ".join(f"{name} = %s" for name in OWNER_COLUMNS)
    deleted: int = connection.execute(
        f"DELETE FROM {table} WHERE ctid = ANY(ARRAY("
        f"SELECT ctid FROM {table} WHERE {ours} LIMIT {_BATCH_ROWS}))",
        owner,
    ).rowcount
    return deleted
