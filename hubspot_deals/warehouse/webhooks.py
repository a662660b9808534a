"""Who is told what: the webhooks of an organization, and the secrets that sign for them.

What they are told is written by the database itself, with every change of a scan
(`migrations/0013_webhooks.sql`); how it is sent is in `deliveries.py`.
"""

import base64
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection, sql
from psycopg.rows import class_row, scalar_row
from pydantic import SecretStr

from hubspot_deals.errors import WebhookLimitError, WebhookNotFoundError
from hubspot_deals.warehouse.credentials import KeyRing, SealedToken

EVENT_TYPES: Final = (
    "scan.started",
    "scan.resumed",
    "scan.paused",
    "scan.crashed",
    "scan.completed",
    "scan.failed",
    "scan.cancelled",
    "scan.removed",
    "scan.results_removed",
)
"""What can be subscribed to. Whoever adds a family calls `hubspot_deals.note_event` for it."""

TEST_TYPE: Final = "webhook.test"
MOST_WEBHOOKS: Final = 20
"""Of one organization: each of its events is written once for every one."""

_SECRET_BYTES: Final = 32
_COLUMNS: Final = """
    w.seq, w.webhook_id, w.organization_id, w.url, w.events, w.description, w.enabled,
    w.disabled_reason, w.created_at, w.updated_at, (
        SELECT max(s.valid_until) FROM hubspot_deals.webhook_secrets s
        WHERE s.webhook_id = w.webhook_id AND s.valid_until > now()
    ) AS old_secret_until
"""
_DISABLE_PENDING: Final = """
    UPDATE hubspot_deals.webhook_deliveries SET status = 'dead', ended_at = now()
    WHERE webhook_id = %s AND status = 'pending'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A URL that is told of an organization's events."""

    seq: int
    webhook_id: str
    organization_id: str
    url: str
    events: list[str]
    description: str | None
    enabled: bool
    disabled_reason: str | None
    created_at: datetime
    updated_at: datetime
    old_secret_until: datetime | None
    """Until when the secret before a rotation signs too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """What a webhook is created from."""

    organization_id: str
    url: str
    receiver: str
    """Host and port of the URL."""
    events: Sequence[str]
    description: str | None
    enabled: bool


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A signing secret at rest."""

    webhook_id: str
    secret_id: str
    key_id: str
    nonce: bytes
    ciphertext: bytes

    def open(self, keys: KeyRing) -> SecretStr:
        """Decrypt the secret, `whsec_…`; raises CredentialError."""
        sealed = SealedToken(self.key_id, self.nonce, self.ciphertext)
        return keys.open(sealed, bound_to=f"{self.webhook_id}/{self.secret_id}")


def make_secret(keys: KeyRing, webhook_id: str) -> tuple[SecretStr, SealedSecret]:
    """Return a new secret, and how it is stored."""
    encoded = base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    plain, secret_id = SecretStr(f"whsec_{encoded}"), f"whs_{uuid.uuid4().hex}"
    sealed = keys.seal(plain, bound_to=f"{webhook_id}/{secret_id}")
    return plain, SealedSecret(
        webhook_id, secret_id, sealed.key_id, sealed.nonce, sealed.ciphertext
    )


async def create_webhook(
    connection: AsyncConnection[Any], new: NewWebhook, keys: KeyRing
) -> tuple[Webhook, SecretStr]:
    """Store a webhook with a secret of its own and return both; raises WebhookLimitError."""
    webhook_id = f"wh_{uuid.uuid4().hex}"
    plain, sealed = make_secret(keys, webhook_id)
    async with connection.transaction():
        await connection.execute(
            "SELECT pg_advisory_xact_lock(4863, hashtext(%s))", (new.organization_id,)
        )
        counter = connection.cursor(row_factory=scalar_row)
        await counter.execute(
            "SELECT count(*) FROM hubspot_deals.webhooks WHERE organization_id = %s",
            (new.organization_id,),
        )
        if (await counter.fetchone() or 0) >= MOST_WEBHOOKS:
            raise WebhookLimitError(MOST_WEBHOOKS)
        await connection.execute(
            "INSERT INTO hubspot_deals.webhooks (webhook_id, organization_id, url, receiver,"
            " events, description, enabled) VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (
                webhook_id,
                new.organization_id,
                new.url,
                new.receiver,
                list(new.events),
                new.description,
                new.enabled,
            ),
        )
        await _store(connection, sealed)
        return await get_webhook(connection, webhook_id), plain


async def get_webhook(connection: AsyncConnection[Any], webhook_id: str) -> Webhook:
    """Return one webhook; raises WebhookNotFoundError."""
    cursor = connection.cursor(row_factory=class_row(Webhook))
    await cursor.execute(
        f"SELECT {_COLUMNS} FROM hubspot_deals.webhooks w WHERE w.webhook_id = %s", (webhook_id,)
    )
    if (found := await cursor.fetchone()) is None:
        raise WebhookNotFoundError(webhook_id)
    return found


async def page_of_webhooks(
    connection: AsyncConnection[Any],
    organizations: Sequence[str] | None,
    *,
    limit: int,
    before: int | None = None,
) -> tuple[list[Webhook], int]:
    """Return webhooks of organizations (None: of all), newest first, and how many match.

    `before` the webhook with that `seq`, if one is named.
    """
    is_own = "w.organization_id = ANY(%(organizations)s::text[])"
    own = "" if organizations is None else f"AND {is_own}"
    older = "" if before is None else "AND w.seq < %(before)s"
    values = {
        "organizations": None if organizations is None else list(organizations),
        "limit": limit,
        "before": before,
    }
    cursor = connection.cursor(row_factory=class_row(Webhook))
    await cursor.execute(
        f"SELECT {_COLUMNS} FROM hubspot_deals.webhooks w WHERE true {own} {older}"
        " ORDER BY w.seq DESC LIMIT %(limit)s",
        values,
    )
    found = await cursor.fetchall()
    counter = connection.cursor(row_factory=scalar_row)
    await counter.execute(f"SELECT count(*) FROM hubspot_deals.webhooks w WHERE true {own}", values)
    return found, await counter.fetchone() or 0


async def change_webhook(
    connection: AsyncConnection[Any], webhook_id: str, changes: Mapping[str, Any]
) -> Webhook:
    """Change columns by name; raises WebhookNotFoundError.

    What waits to be sent to a webhook that is disabled is not sent any more; it can be replayed.
    """
    values = dict(changes)
    if values.get("enabled") is True:
        values["disabled_reason"] = None
    async with connection.transaction():
        assignments = [
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name))
            for name in values
        ]
        statement = sql.SQL(
            "UPDATE hubspot_deals.webhooks SET {} WHERE webhook_id = %(webhook_id)s"
        ).format(sql.SQL(", ").join([sql.SQL("updated_at = now()"), *assignments]))
        await connection.execute(statement, {**values, "webhook_id": webhook_id})
        if values.get("enabled") is False:
            await connection.execute(_DISABLE_PENDING, (webhook_id,))
        return await get_webhook(connection, webhook_id)


async def disable_webhook(
    connection: AsyncConnection[Any], webhook_id: str, *, url: str, reason: str
) -> None:
    """Disable a webhook unless its URL has been changed meanwhile."""
    async with connection.transaction():
        changed = await connection.execute(
            "UPDATE hubspot_deals.webhooks SET enabled = false, disabled_reason = %s,"
            " updated_at = now() WHERE webhook_id = %s AND url = %s AND enabled",
            (reason, webhook_id, url),
        )
        if changed.rowcount:
            await connection.execute(_DISABLE_PENDING, (webhook_id,))


async def delete_webhook(connection: AsyncConnection[Any], webhook_id: str) -> None:
    """Delete a webhook with its secrets and its log; raises WebhookNotFoundError."""
    async with connection.transaction():
        deleted = await connection.execute(
            "DELETE FROM hubspot_deals.webhooks WHERE webhook_id = %s", (webhook_id,)
        )
        if deleted.rowcount == 0:
            raise WebhookNotFoundError(webhook_id)
        await connection.execute(
            "DELETE FROM hubspot_deals.webhook_deliveries WHERE webhook_id = %s", (webhook_id,)
        )


async def rotate_secret(
    connection: AsyncConnection[Any], webhook_id: str, keys: KeyRing, *, overlap_hours: int
) -> tuple[Webhook, SecretStr]:
    """Give a webhook a new secret; the one before signs too for so long, earlier ones no more.

    Raises WebhookNotFoundError.
    """
    plain, sealed = make_secret(keys, webhook_id)
    async with connection.transaction():
        locked = await connection.execute(
            "UPDATE hubspot_deals.webhooks SET updated_at = now() WHERE webhook_id = %s",
            (webhook_id,),
        )
        if locked.rowcount == 0:
            raise WebhookNotFoundError(webhook_id)
        await connection.execute(
            "DELETE FROM hubspot_deals.webhook_secrets"
            " WHERE webhook_id = %s AND valid_until IS NOT NULL",
            (webhook_id,),
        )
        await connection.execute(
            "UPDATE hubspot_deals.webhook_secrets SET valid_until = now() + make_interval("
            "hours => %s) WHERE webhook_id = %s",
            (overlap_hours, webhook_id),
        )
        await _store(connection, sealed)
        return await get_webhook(connection, webhook_id), plain


async def find_signing_secrets(
    connection: AsyncConnection[Any], webhook_ids: Sequence[str]
) -> list[SealedSecret]:
    """Return the secrets that sign for these webhooks now, the newest of each first."""
    cursor = connection.cursor(row_factory=class_row(SealedSecret))
    await cursor.execute(
        "SELECT webhook_id, secret_id, key_id, nonce, ciphertext"
        " FROM hubspot_deals.webhook_secrets WHERE webhook_id = ANY(%s::text[])"
        " AND (valid_until IS NULL OR valid_until > now()) ORDER BY valid_until DESC NULLS FIRST",
        (list(webhook_ids),),
    )
    return await cursor.fetchall()


async def _store(connection: AsyncConnection[Any], secret: SealedSecret) -> None:
    await connection.execute(
        "INSERT INTO hubspot_deals.webhook_secrets"
        " (webhook_id, secret_id, key_id, nonce, ciphertext) VALUES (%s, %s, %s, %s, %s)",
        (secret.webhook_id, secret.secret_id, secret.key_id, secret.nonce, secret.ciphertext),
    )
