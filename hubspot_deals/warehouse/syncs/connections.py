"""The stored connections: HubSpot accounts that are kept current."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row
from pydantic import SecretStr

from hubspot_deals.errors import CredentialError
from hubspot_deals.sync_contract import SyncSettings
from hubspot_deals.sync_errors import ConnectionNotFoundError
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.credentials import KeyRing, SealedToken

COLUMNS: Final = (
    "c.seq, c.connection_id, c.organization_id, c.name, c.portal_id, c.settings, c.is_enabled,"
    " c.created_at, c.updated_at, c.fresh_as_of"
)
"""What everybody reads of a connection, aliased `c`."""
WITH_CREDENTIALS: Final = (
    "hubspot_deals.connections c"
    " LEFT JOIN hubspot_deals.connection_credentials k USING (connection_id)"
)


@dataclass(frozen=True, slots=True)
class StoredConnection:
    """A connection, without its credential and without where its syncs stand."""

    seq: int
    connection_id: str
    organization_id: str
    name: str
    portal_id: int | None
    settings: SyncSettings
    is_enabled: bool
    created_at: datetime
    updated_at: datetime
    fresh_as_of: datetime | None
    """Everything that happened to deals before this moment is in the tables."""
    account: str | None
    """Stands for the access token, without revealing it."""


def connection_of(row: dict[str, Any]) -> StoredConnection:
    """Read a row of `list_connections`' columns."""
    return StoredConnection(**{**row, "settings": SyncSettings.from_json(row["settings"])})


def list_connections(database_url: SecretStr) -> Sequence[StoredConnection]:
    """Return all connections, oldest first; for the definitions of their assets."""
    with (
        open_connection(database_url) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        cursor.execute(
            f"SELECT {COLUMNS}, k.account FROM {WITH_CREDENTIALS}"
            " WHERE c.removed_at IS NULL ORDER BY c.seq"
        )
        return [connection_of(row) for row in cursor]


def get_token(connection: psycopg.Connection[Any], connection_id: str, keys: KeyRing) -> SecretStr:
    """Decrypt a connection's access token; raises ConnectionNotFoundError or CredentialError."""
    row = connection.execute(
        f"SELECT k.key_id, k.nonce, k.ciphertext FROM {WITH_CREDENTIALS}"
        " WHERE c.connection_id = %s AND c.removed_at IS NULL",
        (connection_id,),
    ).fetchone()
    if row is None:
        raise ConnectionNotFoundError(connection_id)
    if row[0] is None:
        msg = f"No access token is stored for connection {connection_id}; give it one."
        raise CredentialError(msg)
    return keys.open(SealedToken(*row), bound_to=bound_to(connection_id))


def bound_to(connection_id: str) -> str:
    """Return what a connection's ciphertext is bound to: never a scan's id, which has no colon."""
    return f"connection:{connection_id}"
