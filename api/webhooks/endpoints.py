"""Subscribe URLs to what becomes of scans; see, test and repeat what was sent to them."""

import re
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response, status

from api.access.actor import Calling
from api.cursors import headers_of, mark_of, mark_of_list, read_place
from api.dependencies import Keys, Pool
from api.errors import shorten
from api.json_body import JsonRoute
from api.schemas import (
    MAX_LIMIT,
    Answer,
    Confirmation,
    OrganizationFilter,
    describe_error,
    error_responses,
)
from api.webhooks import service
from api.webhooks.addresses import AddressGuard
from api.webhooks.schemas import (
    DeletedWebhook,
    Delivery,
    DeliveryPage,
    SecretRotation,
    Webhook,
    WebhookChange,
    WebhookCreate,
    WebhookPage,
    WebhookWithSecret,
)
from hubspot_deals.errors import DeliveryNotFoundError, WebhookNotFoundError

router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=JsonRoute)

_WEBHOOK_ID: Final = re.compile(r"wh_[0-9a-f]{32}")
_DELIVERY_ID: Final = re.compile(r"dlv_[0-9a-f]{32}")
_LONGEST_ECHO: Final = 255
_WRONG_CURSOR: Final = "Pass a page's nextCursor back unchanged, all else being equal"

_MISSING: Final[dict[int | str, dict[str, Any]]] = error_responses(400) | {
    404: describe_error(
        "No such webhook or delivery.", "WEBHOOK_NOT_FOUND", "No webhook found with ID: wh_0d7c"
    )
}
_REFUSED: Final[dict[int | str, dict[str, Any]]] = _MISSING | {
    409: describe_error(
        "The webhook is disabled.",
        "WEBHOOK_DISABLED",
        "Webhook 'wh_0d7c' is disabled; enable it first",
    )
}
_FULL: Final[dict[int | str, dict[str, Any]]] = error_responses(400) | {
    409: describe_error(
        "The organization has as many as it may have.",
        "WEBHOOK_LIMIT",
        "An organization has 20 webhooks at most; delete one first",
    )
}


async def get_guard(request: Request) -> AddressGuard:
    """Return what says where webhooks may be sent."""
    guard: AddressGuard = request.state.webhook_guard
    return guard


async def get_webhook_id(
    webhook_id: Annotated[str, Path(description="The webhook's id.")],
) -> str:
    """Return the id in the path; one that no webhook can have is answered like one none has."""
    if not _WEBHOOK_ID.fullmatch(webhook_id):
        raise WebhookNotFoundError(shorten(webhook_id, _LONGEST_ECHO))
    return webhook_id


async def get_delivery_id(
    delivery_id: Annotated[str, Path(description="The delivery's id.")],
) -> str:
    """Return the id in the path, judged like a webhook's."""
    if not _DELIVERY_ID.fullmatch(delivery_id):
        raise DeliveryNotFoundError(shorten(delivery_id, _LONGEST_ECHO))
    return delivery_id


WebhookId = Annotated[str, Depends(get_webhook_id)]
DeliveryId = Annotated[str, Depends(get_delivery_id)]
Checked = Annotated[AddressGuard, Depends(get_guard)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Entries per page.")]
CursorText = Annotated[str | None, Query(alias="cursor", description="The last `nextCursor`.")]


@router.post("", status_code=status.HTTP_201_CREATED, responses=_FULL)
async def create_webhook(
    body: WebhookCreate, pool: Pool, keys: Keys, guard: Checked, caller: Calling
) -> Answer[WebhookWithSecret]:
    """Subscribe a URL to an organization's events.

    The answer has the secret that signs its deliveries; it is not shown again.
    """
    await caller.act_for(body.organization_id)
    created = await service.create_webhook(pool, keys, guard, body)
    caller.object_id = created.webhook_id
    return Answer(data=created)


@router.get("", responses=error_responses(400))
async def list_webhooks(  # noqa: PLR0913, PLR0917 - one parameter per parameter of the request
    request: Request,
    response: Response,
    pool: Pool,
    caller: Calling,
    organization_id: OrganizationFilter = None,
    limit: Limit = 20,
    cursor: CursorText = None,
) -> Answer[WebhookPage]:
    """List the caller's webhooks, newest first."""
    organizations = caller.organizations_within(organization_id)
    mark = mark_of_list("webhooks", organizations)
    page = await service.page_of_webhooks(
        pool, organizations, read_place(limit, mark, cursor, _WRONG_CURSOR)
    )
    response.headers.update(headers_of(request, page.pagination))
    return Answer(data=page)


@router.get("/{webhook_id}", responses=_MISSING)
async def get_webhook(webhook_id: WebhookId, pool: Pool) -> Answer[Webhook]:
    """Describe a webhook, without its secret."""
    return Answer(data=await service.get_webhook(pool, webhook_id))


@router.patch("/{webhook_id}", responses=_MISSING)
async def change_webhook(
    webhook_id: WebhookId, body: WebhookChange, pool: Pool, guard: Checked
) -> Answer[Webhook]:
    """Change a webhook's URL, events or description; enable or disable it."""
    return Answer(data=await service.change_webhook(pool, guard, webhook_id, body))


@router.delete("/{webhook_id}", responses=_MISSING)
async def delete_webhook(webhook_id: WebhookId, pool: Pool) -> Confirmation[DeletedWebhook]:
    """Delete a webhook with its delivery log. An attempt under way may still arrive."""
    await service.delete_webhook(pool, webhook_id)
    return Confirmation(
        message="Webhook deleted successfully", data=DeletedWebhook(webhook_id=webhook_id)
    )


@router.post("/{webhook_id}/rotate-secret", responses=_MISSING)
async def rotate_secret(
    webhook_id: WebhookId, pool: Pool, keys: Keys, body: SecretRotation | None = None
) -> Answer[WebhookWithSecret]:
    """Replace the secret. For some hours deliveries are signed with both."""
    hours = (body or SecretRotation()).overlap_hours
    return Answer(data=await service.rotate_secret(pool, keys, webhook_id, overlap_hours=hours))


@router.post("/{webhook_id}/test", status_code=status.HTTP_202_ACCEPTED, responses=_REFUSED)
async def test_webhook(webhook_id: WebhookId, pool: Pool) -> Answer[Delivery]:
    """Send a `webhook.test` event; the delivery log tells how it went."""
    return Answer(data=await service.send_test(pool, webhook_id))


@router.get("/{webhook_id}/deliveries", responses=_MISSING)
async def list_deliveries(  # noqa: PLR0913, PLR0917 - one parameter per parameter of the request
    request: Request,
    response: Response,
    webhook_id: WebhookId,
    pool: Pool,
    delivery_status: Annotated[
        Literal["pending", "delivered", "dead"] | None,
        Query(alias="status", description="Only these."),
    ] = None,
    limit: Limit = 20,
    cursor: CursorText = None,
) -> Answer[DeliveryPage]:
    """List what was sent to a webhook or is to be, newest first, with each attempt."""
    mark = mark_of("deliveries", webhook_id, delivery_status)
    page = await service.page_of_deliveries(
        pool, webhook_id, read_place(limit, mark, cursor, _WRONG_CURSOR), status=delivery_status
    )
    response.headers.update(headers_of(request, page.pagination))
    return Answer(data=page)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/replay",
    status_code=status.HTTP_202_ACCEPTED,
    responses=_REFUSED,
)
async def replay_delivery(
    webhook_id: WebhookId, delivery_id: DeliveryId, pool: Pool
) -> Answer[Delivery]:
    """Send an event once more, under the same `webhook-id`, with all attempts that it may take."""
    return Answer(data=await service.replay(pool, webhook_id, delivery_id))
