"""Bodies of the webhook endpoints."""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
)
from pydantic.config import JsonDict

from api.schemas import Camel, OrganizationId, Pagination, Timestamp, fault, is_plain_text
from hubspot_deals.warehouse.webhooks import EVENT_TYPES

ALL_EVENTS: Final = "*"
_FAMILIES: Final = tuple(dict.fromkeys(f"{name.partition('.')[0]}.*" for name in EVENT_TYPES))
SUBSCRIBABLE: Final = (ALL_EVENTS, *_FAMILIES, *EVENT_TYPES)
_EXAMPLE_URL: Final = "https://receiver.example.com/hooks/hubspot-deals"
_EXAMPLE: Final[JsonDict] = {
    "organizationId": "org-12345",
    "url": _EXAMPLE_URL,
    "events": ["scan.completed", "scan.failed"],
}
_DAY_HOURS: Final = 24
_WEEK_HOURS: Final = 168


def _check_event(name: str) -> str:
    if name not in SUBSCRIBABLE:
        msg = f"Event must be one of {', '.join(SUBSCRIBABLE)}"
        raise fault(msg)
    return name


def _without_repeats(names: list[str]) -> list[str]:
    if not names:
        msg = "Events must have at least one entry"
        raise fault(msg)
    return list(dict.fromkeys(names))


def _check_description(text: str) -> str:
    if not is_plain_text(text):
        msg = "Description must be 1-255 characters, not blank, without control characters"
        raise fault(msg)
    return text


Events = Annotated[
    list[
        Annotated[
            str,
            AfterValidator(_check_event),
            Field(json_schema_extra={"enum": list(SUBSCRIBABLE)}),
        ]
    ],
    Field(
        max_length=len(SUBSCRIBABLE),
        description="Types, families such as `scan.*`, or `*` for all.",
        json_schema_extra={"minItems": 1},
    ),
    AfterValidator(_without_repeats),
]
Url = Annotated[
    str,
    Field(
        description="An https URL of a host with public addresses; it is checked again before "
        "each delivery.",
        json_schema_extra={"format": "uri", "maxLength": 2_048},
    ),
]
Description = Annotated[
    str,
    AfterValidator(_check_description),
    Field(json_schema_extra={"minLength": 1, "maxLength": 255}),
]


class _Asked(BaseModel):
    """A request that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class WebhookCreate(_Asked):
    """A new webhook of one organization."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    organization_id: OrganizationId = Field(
        validation_alias=AliasChoices("organizationId", "organization_id")
    )
    url: Url
    events: Events = Field(default=[ALL_EVENTS], validate_default=True)
    description: Description | None = None
    enabled: bool = True


class WebhookChange(_Asked):
    """What of a webhook is to change; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": False}]})

    url: Url | None = None
    events: Events | None = None
    description: Description | None = Field(default=None, description="null removes it.")
    enabled: bool | None = Field(
        default=None,
        description="Nothing is written for a disabled webhook, and what still waits is not sent.",
    )


class SecretRotation(_Asked):
    """How a secret is replaced."""

    overlap_hours: int = Field(
        default=_DAY_HOURS,
        ge=0,
        le=_WEEK_HOURS,
        validation_alias=AliasChoices("overlapHours", "overlap_hours"),
        description="How long deliveries carry the old secret's signature beside the new one's.",
    )


class Webhook(Camel):
    """A URL that is told of an organization's events."""

    webhook_id: str = Field(examples=["wh_0d7c1e5ab3f24c0f9a6d1b2c3d4e5f60"])
    organization_id: str
    url: str
    events: list[str]
    description: str | None
    enabled: bool
    disabled_reason: str | None = Field(description="Why the service itself disabled it.")
    created_at: Timestamp
    updated_at: Timestamp
    old_secret_until: Timestamp | None = Field(
        description="Until when deliveries also carry the signature of the secret before."
    )


class WebhookWithSecret(Webhook):
    """A webhook with its new secret, which is never shown again."""

    secret: str = Field(repr=False, examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"])


class WebhookPage(Camel):
    """Webhooks, newest first."""

    webhooks: list[Webhook]
    pagination: Pagination


class DeletedWebhook(Camel):
    """A webhook that is gone."""

    webhook_id: str


class DeliveryAttempt(Camel):
    """One attempt to deliver."""

    at: Timestamp
    http_status: int | None = Field(description="null: no HTTP answer came.")
    error: str | None
    milliseconds: int
    response: str | None = Field(description="The first 1,000 bytes of the answer.")


class Delivery(Camel):
    """An event for one webhook, and what became of it."""

    delivery_id: str = Field(examples=["dlv_5b0e2f8a7c6d4e1f9a8b7c6d5e4f3a2b"])
    webhook_id: str
    event_id: str = Field(description="Receivers see it as `webhook-id`.")
    type: str = Field(examples=["scan.completed"])
    status: Literal["pending", "delivered", "dead"] = Field(
        description="`dead`: the last attempt failed, or the webhook was disabled."
    )
    occurred_at: Timestamp
    created_at: Timestamp
    ended_at: Timestamp | None
    next_attempt_at: Timestamp | None = Field(description="null unless pending.")
    data: dict[str, Any] = Field(description="What the event says; not links.")
    attempts: list[DeliveryAttempt] = Field(description="The last 30, oldest first.")


class DeliveryPage(Camel):
    """Deliveries of one webhook, newest first."""

    deliveries: list[Delivery]
    pagination: Pagination
