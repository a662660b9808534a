"""Creates, changes and deletes webhooks; shows, tests and replays deliveries."""

from typing import Any

from fastapi.exceptions import RequestValidationError

from api.cursors import Place
from api.database import ConnectionPool, read
from api.webhooks.addresses import AddressGuard, AddressRefusedError
from api.webhooks.schemas import (
    Delivery,
    DeliveryPage,
    Webhook,
    WebhookChange,
    WebhookCreate,
    WebhookPage,
    WebhookWithSecret,
)
from api.webhooks.sender import receiver_of
from hubspot_deals.warehouse import deliveries, webhooks
from hubspot_deals.warehouse.credentials import KeyRing

_TEST_DATA = {"message": "This is a test."}


async def create_webhook(
    pool: ConnectionPool, keys: KeyRing, guard: AddressGuard, request: WebhookCreate
) -> WebhookWithSecret:
    """Store a webhook; raises RequestValidationError for a URL that may not be called."""
    receiver = await _check(guard, request.url)
    new = webhooks.NewWebhook(
        organization_id=request.organization_id,
        url=request.url,
        receiver=receiver,
        events=request.events,
        description=request.description,
        enabled=request.enabled,
    )
    async with pool.connection() as connection:
        created, secret = await webhooks.create_webhook(connection, new, keys)
    return WebhookWithSecret(**_describe(created).model_dump(), secret=secret.get_secret_value())


async def page_of_webhooks(
    pool: ConnectionPool, organizations: list[str] | None, place: Place
) -> WebhookPage:
    """Return one page of these organizations' webhooks (None: all), newest first."""
    found, total = await read(
        pool,
        lambda connection: webhooks.page_of_webhooks(
            connection, organizations, limit=place.limit + 1, before=place.before
        ),
    )
    rows, pagination = place.cut(found, total)
    return WebhookPage(webhooks=[_describe(row) for row in rows], pagination=pagination)


async def get_webhook(pool: ConnectionPool, webhook_id: str) -> Webhook:
    """Describe one webhook."""
    return _describe(
        await read(pool, lambda connection: webhooks.get_webhook(connection, webhook_id))
    )


async def change_webhook(
    pool: ConnectionPool, guard: AddressGuard, webhook_id: str, request: WebhookChange
) -> Webhook:
    """Change what the request names; a null changes nothing, except for the description."""
    changes: dict[str, Any] = {
        name: value
        for name, value in request.model_dump(exclude_unset=True).items()
        if value is not None or name == "description"
    }
    if request.url is not None:
        changes["receiver"] = await _check(guard, request.url)
    async with pool.connection() as connection:
        return _describe(await webhooks.change_webhook(connection, webhook_id, changes))


async def delete_webhook(pool: ConnectionPool, webhook_id: str) -> None:
    """Delete a webhook with its secrets and its log."""
    async with pool.connection() as connection:
        await webhooks.delete_webhook(connection, webhook_id)


async def rotate_secret(
    pool: ConnectionPool, keys: KeyRing, webhook_id: str, *, overlap_hours: int
) -> WebhookWithSecret:
    """Give a webhook a new secret."""
    async with pool.connection() as connection:
        changed, secret = await webhooks.rotate_secret(
            connection, webhook_id, keys, overlap_hours=overlap_hours
        )
    return WebhookWithSecret(**_describe(changed).model_dump(), secret=secret.get_secret_value())


async def send_test(pool: ConnectionPool, webhook_id: str) -> Delivery:
    """Have a test event sent."""
    async with pool.connection() as connection:
        return _show(await deliveries.send_test(connection, webhook_id, _TEST_DATA))


async def replay(pool: ConnectionPool, webhook_id: str, delivery_id: str) -> Delivery:
    """Have a delivery sent once more."""
    async with pool.connection() as connection:
        return _show(await deliveries.replay(connection, webhook_id, delivery_id))


async def page_of_deliveries(
    pool: ConnectionPool, webhook_id: str, place: Place, *, status: str | None
) -> DeliveryPage:
    """Return one page of a webhook's deliveries, newest first."""
    await read(pool, lambda connection: webhooks.get_webhook(connection, webhook_id))
    found, total = await read(
        pool,
        lambda connection: deliveries.page_of_deliveries(
            connection,
            webhook_id,
            status=status,
            limit=place.limit + 1,
            before=place.before,
        ),
    )
    rows, pagination = place.cut(found, total)
    return DeliveryPage(deliveries=[_show(row) for row in rows], pagination=pagination)


async def _check(guard: AddressGuard, url: str) -> str:
    try:
        return receiver_of(await guard.check(url))
    except AddressRefusedError as error:
        faults = [{"type": "form", "loc": ("body", "url"), "msg": str(error)}]
        raise RequestValidationError(faults) from None


def _describe(row: webhooks.Webhook) -> Webhook:
    return Webhook(
        webhook_id=row.webhook_id,
        organization_id=row.organization_id,
        url=row.url,
        events=row.events,
        description=row.description,
        enabled=row.enabled,
        disabled_reason=row.disabled_reason,
        created_at=row.created_at,
        updated_at=row.updated_at,
        old_secret_until=row.old_secret_until,
    )


def _show(row: deliveries.Delivery) -> Delivery:
    return Delivery.model_validate(
        {
            "delivery_id": row.delivery_id,
            "webhook_id": row.webhook_id,
            "event_id": row.event_id,
            "type": row.type,
            "status": row.status,
            "occurred_at": row.occurred_at,
            "created_at": row.created_at,
            "ended_at": row.ended_at,
            "next_attempt_at": row.next_attempt_at if row.status == "pending" else None,
            "data": row.data,
            "attempts": row.attempts,
        }
    )
