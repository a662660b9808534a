"""Keys of the REST API: made and revoked on the command line, looked up by each API process."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row
from pydantic import SecretStr

from hubspot_deals.contract import AccessLevel
from hubspot_deals.errors import PermanentError

PREFIX: Final = "hsd_"
"""What every key begins with: programs that look for lost secrets know it by this."""

_FORM: Final = re.compile(rf"{PREFIX}([0-9a-f]{{8}})_([A-Za-z0-9_-]{{43}})", re.ASCII)
_COLUMNS: Final = (
    "key_id, name, organizations, level, created_at, expires_at, last_used_at, revoked_at"
)
_IS_VALID: Final = "k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())"

# The moment of last use is written with it, so that a key in use costs no statement of its own.
_FIND: Final = f"""
    WITH found AS (
        SELECT k.key_id, k.organizations, k.level,
            extract(epoch FROM k.expires_at - now())::float8 AS seconds_left
        FROM hubspot_deals.api_keys k WHERE k.key_id = %s AND k.secret_hash = %s AND {_IS_VALID}
    ), used AS (
        UPDATE hubspot_deals.api_keys k SET last_used_at = now() FROM found f
        WHERE k.key_id = f.key_id
        AND (k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute')
    ) SELECT * FROM found
"""
_INSERT: Final = f"""
    INSERT INTO hubspot_deals.api_keys (key_id, secret_hash, name, organizations, level, expires_at)
    VALUES (%s, %s, %s, %s, %s, now() + make_interval(days => %s))
    ON CONFLICT DO NOTHING RETURNING {_COLUMNS}
"""


class ApiKeyNotFoundError(PermanentError):
    """There is no such key, or it is revoked already."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"No key {key_id!r} that could be revoked; `keys list` shows them")


@dataclass(frozen=True, slots=True)
class GrantedKey:
    """What a valid key opens."""

    key_id: str
    organizations: list[str] | None
    """None: all of them."""
    level: str
    seconds_left: float | None
    """Until it expires; None: it does not."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key; its secret is not."""

    key_id: str
    name: str
    organizations: list[str] | None
    level: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    key: SecretStr | None = field(default=None, repr=False)
    """The whole key, right after it was made and never again."""


def split_key(text: str) -> tuple[str, bytes] | None:
    """Return a key's public part and the hash of its secret; None for what has not its form."""
    if (match := _FORM.fullmatch(text)) is None:
        return None
    return match[1], _hash(match[2])


async def find_key(
    connection: AsyncConnection[Any], key_id: str, secret_hash: bytes
) -> GrantedKey | None:
    """Return what a key opens now, None unless it is known and neither expired nor revoked."""
    cursor = connection.cursor(row_factory=class_row(GrantedKey))
    await cursor.execute(_FIND, (key_id, secret_hash))
    return await cursor.fetchone()


def create_key(
    connection: Connection[Any],
    *,
    name: str,
    organizations: Sequence[str] | None,
    level: AccessLevel,
    days: int | None,
) -> ApiKey:
    """Make a key for these organizations (None: all) and so many days (None: for good)."""
    while True:
        key_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        wanted = None if organizations is None else list(dict.fromkeys(organizations))
        cursor = connection.cursor(row_factory=class_row(ApiKey))
        cursor.execute(_INSERT, (key_id, _hash(secret), name, wanted, level, days))
        if (made := cursor.fetchone()) is not None:
            return replace(made, key=SecretStr(f"{PREFIX}{key_id}_{secret}"))


def list_keys(connection: Connection[Any]) -> list[ApiKey]:
    """Return all keys, newest first."""
    cursor = connection.cursor(row_factory=class_row(ApiKey))
    cursor.execute(
        f"SELECT {_COLUMNS} FROM hubspot_deals.api_keys ORDER BY created_at DESC, key_id"
    )
    return cursor.fetchall()


def revoke_key(connection: Connection[Any], key_id: str) -> ApiKey:
    """Make a key useless for good; raises ApiKeyNotFoundError."""
    cursor = connection.cursor(row_factory=class_row(ApiKey))
    cursor.execute(
        "UPDATE hubspot_deals.api_keys SET revoked_at = now()"
        f" WHERE key_id = %s AND revoked_at IS NULL RETURNING {_COLUMNS}",
        (key_id,),
    )
    if (revoked := cursor.fetchone()) is None:
        raise ApiKeyNotFoundError(key_id)
    return revoked


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
