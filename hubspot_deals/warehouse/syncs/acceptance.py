"""Accepts connections, changes, pauses and removes them; each in one transaction.

What fences a worker out raises the epoch, so that it writes nothing more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import dict_row, scalar_row
from psycopg.types.json import Jsonb

from hubspot_deals.errors import IdempotencyConflictError
from hubspot_deals.sync_contract import SyncSettings
from hubspot_deals.sync_errors import (
    ConnectionAccountError,
    ConnectionExistsError,
    ConnectionNotFoundError,
    ConnectionPartitionsError,
    ConnectionPausedError,
)
from hubspot_deals.warehouse.credentials import SealedToken

_INSERT: Final = """
    INSERT INTO hubspot_deals.connections (connection_id, organization_id, name, portal_id,
        settings, is_enabled, idempotency_key, request_hash)
    VALUES (%(id)s, %(organization)s, %(name)s, %(portal)s, %(settings)s, %(enabled)s, %(key)s,
        %(hash)s)
"""
SEAL: Final = """
    INSERT INTO hubspot_deals.connection_credentials
        (connection_id, key_id, nonce, ciphertext, account)
    VALUES (%s, %s, %s, %s, %s) ON CONFLICT (connection_id) DO UPDATE SET key_id = EXCLUDED.key_id,
        nonce = EXCLUDED.nonce, ciphertext = EXCLUDED.ciphertext, account = EXCLUDED.account
"""
_LOCK: Final = """
    SELECT c.portal_id, c.settings, c.is_enabled, EXISTS (
        SELECT FROM hubspot_deals.sync_runs r WHERE r.connection_id = c.connection_id
    ) AS has_run
    FROM hubspot_deals.connections c
    WHERE c.connection_id = %s AND c.removed_at IS NULL FOR UPDATE OF c
"""
_CHANGE: Final = """
    UPDATE hubspot_deals.connections SET name = coalesce(%(name)s, name),
        portal_id = coalesce(portal_id, %(portal)s), settings = %(settings)s,
        is_enabled = %(enabled)s, updated_at = now()
    WHERE connection_id = %(id)s
"""
_FENCE: Final = """
    UPDATE hubspot_deals.connections SET epoch = epoch + 1, sync_wanted_at = NULL,
        launch_claimed_until = NULL
    WHERE connection_id = %s
"""
_CANCEL_RUNS: Final = """
    UPDATE hubspot_deals.sync_runs SET ended_at = now(), outcome = 'cancelled'
    WHERE connection_id = %s AND ended_at IS NULL RETURNING run_id
"""
_REMOVE: Final = """
    UPDATE hubspot_deals.connections SET removed_at = now() WHERE connection_id = %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConnection:
    """What a connection is made of, without its credential."""

    connection_id: str
    organization_id: str
    name: str
    portal_id: int | None
    settings: SyncSettings
    is_enabled: bool = True
    idempotency_key: str | None = None
    request_hash: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionChange:
    """What is to be changed; None and absent settings stay as they are."""

    name: str | None = None
    settings: Mapping[str, Any] | None = None
    """In the spelling of `SyncSettings.to_json`."""
    token: SealedToken | None = None
    portal_id: int | None = None
    """Of the account that the new token opens, where HubSpot was asked."""
    is_enabled: bool | None = None


async def create_connection(
    connection: AsyncConnection[Any], new: NewConnection, token: SealedToken
) -> None:
    """Store a connection and its credential.

    Raises ConnectionExistsError, or IdempotencyConflictError when its key was used meanwhile.
    """
    values = {
        "id": new.connection_id,
        "organization": new.organization_id,
        "name": new.name,
        "portal": new.portal_id,
        "settings": Jsonb(new.settings.to_json()),
        "enabled": new.is_enabled,
        "key": new.idempotency_key,
        "hash": new.request_hash,
    }
    try:
        async with connection.transaction():
            await connection.execute(_INSERT, values)
            await _seal(connection, new.connection_id, token)
    except UniqueViolation as error:
        raise _conflict(error, new.connection_id, new.portal_id) from None


async def check_is_free(connection: AsyncConnection[Any], connection_id: str) -> None:
    """Raise ConnectionExistsError for an id that is taken now."""
    taken = await connection.execute(
        "SELECT 1 FROM hubspot_deals.connections WHERE connection_id = %s", (connection_id,)
    )
    if await taken.fetchone() is not None:
        raise _taken(connection_id)


async def find_replayed(
    connection: AsyncConnection[Any], organization_id: str, key: str, request_hash: str
) -> str | None:
    """Return the connection that was created under a key; raises IdempotencyConflictError."""
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(
        "SELECT connection_id, request_hash FROM hubspot_deals.connections"
        " WHERE organization_id = %s AND idempotency_key = %s AND removed_at IS NULL",
        (organization_id, key),
    )
    if (earlier := await cursor.fetchone()) is None:
        return None
    if earlier["request_hash"] != request_hash:
        raise IdempotencyConflictError
    return str(earlier["connection_id"])


async def change_connection(
    connection: AsyncConnection[Any], connection_id: str, change: ConnectionChange
) -> list[str]:
    """Change a connection, and return the Dagster runs that are cancelled by it.

    Only pausing cancels: other changes take effect with the next run. Once a run has taken the
    connection up, its partitions may grow into the past and not change otherwise. Raises
    ConnectionNotFoundError, ConnectionPartitionsError, ConnectionAccountError, or
    ConnectionExistsError when the organization has connected the token's account already.
    """
    try:
        async with connection.transaction():
            return await _change(connection, connection_id, change)
    except UniqueViolation as error:
        raise _conflict(error, connection_id, change.portal_id) from None


async def _change(
    connection: AsyncConnection[Any], connection_id: str, change: ConnectionChange
) -> list[str]:
    before = await _lock(connection, connection_id)
    settings = {**before["settings"], **(change.settings or {})}
    if before["has_run"]:
        _check_partitions(connection_id, before["settings"], settings)
    portal = before["portal_id"]
    if portal is not None and change.portal_id not in {None, portal}:
        raise ConnectionAccountError(connection_id, portal, change.portal_id or 0)
    enabled = before["is_enabled"] if change.is_enabled is None else change.is_enabled
    values = {
        "id": connection_id,
        "name": change.name,
        "portal": change.portal_id,
        "settings": Jsonb(settings),
        "enabled": enabled,
    }
    await connection.execute(_CHANGE, values)
    if change.token is not None:
        await _seal(connection, connection_id, change.token)
    return [] if enabled or not before["is_enabled"] else await _fence(connection, connection_id)


async def remove_connection(connection: AsyncConnection[Any], connection_id: str) -> list[str]:
    """Hide a connection and delete its credential; return the Dagster runs that are cancelled.

    What was kept is deleted by a sensor, and the id stays taken until then. Raises
    ConnectionNotFoundError.
    """
    async with connection.transaction():
        await _lock(connection, connection_id)
        await connection.execute(_REMOVE, (connection_id,))
        await connection.execute(
            "DELETE FROM hubspot_deals.connection_credentials WHERE connection_id = %s",
            (connection_id,),
        )
        return await _fence(connection, connection_id)


async def want_sync(
    connection: AsyncConnection[Any],
    connection_id: str,
    *,
    request_id: str | None = None,
    trace_parent: str | None = None,
) -> None:
    """Have the sensor launch a run soon; one wish is as good as many, and the first names the run.

    Raises ConnectionNotFoundError or ConnectionPausedError.
    """
    async with connection.transaction():
        before = await _lock(connection, connection_id)
        if not before["is_enabled"]:
            raise ConnectionPausedError(connection_id)
        await connection.execute(
            "UPDATE hubspot_deals.connections SET sync_wanted_at = now(), sync_request_id = %s,"
            " sync_trace_parent = %s WHERE connection_id = %s AND sync_wanted_at IS NULL",
            (request_id, trace_parent, connection_id),
        )


async def _lock(connection: AsyncConnection[Any], connection_id: str) -> dict[str, Any]:
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(_LOCK, (connection_id,))
    if (row := await cursor.fetchone()) is None:
        raise ConnectionNotFoundError(connection_id)
    return row


async def _fence(connection: AsyncConnection[Any], connection_id: str) -> list[str]:
    await connection.execute(_FENCE, (connection_id,))
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute(_CANCEL_RUNS, (connection_id,))
    return [str(run_id) for run_id in await cursor.fetchall()]


async def _seal(connection: AsyncConnection[Any], connection_id: str, token: SealedToken) -> None:
    values = (connection_id, token.key_id, token.nonce, token.ciphertext, token.account)
    await connection.execute(SEAL, values)


def _check_partitions(
    connection_id: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    """Raise ConnectionPartitionsError unless every partition of before is one of after."""
    for field, name in (("cadence", "cadence"), ("timeZone", "time zone")):
        if after[field] != before[field]:
            raise ConnectionPartitionsError(connection_id, f"its {name} cannot change any more")
    if after["startDate"] > before["startDate"]:
        raise ConnectionPartitionsError(connection_id, "its start date can only become earlier")


def _conflict(
    error: UniqueViolation, connection_id: str, portal_id: int | None
) -> IdempotencyConflictError | ConnectionExistsError:
    match error.diag.constraint_name:
        case "connections_by_key":
            return IdempotencyConflictError()
        case "connections_by_portal":
            text = f"This organization has connected HubSpot account {portal_id} already"
            return ConnectionExistsError(connection_id, text)
        case _:
            return _taken(connection_id)


def _taken(connection_id: str) -> ConnectionExistsError:
    text = f"A connection with ID '{connection_id}' exists, or is still being removed"
    return ConnectionExistsError(connection_id, text)
