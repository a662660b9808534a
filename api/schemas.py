"""What requests and answers of several features share: fields, paging, the envelope, errors."""

import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

MAX_LIMIT: Final = 1_000
MAX_OFFSET: Final = 2**63 - 1 - MAX_LIMIT
"""The last offset whose page still ends inside PostgreSQL's bigint."""

MOST_TEXT: Final = 255

_Data = TypeVar("_Data")


def format_timestamp(moment: datetime) -> str:
    """Return ISO 8601 in UTC with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fault(text: str) -> PydanticCustomError:
    """Build the fault with exactly this text."""
    return PydanticCustomError("form", "{text}", {"text": text})


def is_plain_text(text: str) -> bool:
    """Tell whether a text has content, no control characters and a bounded length."""
    categories = {unicodedata.category(character) for character in text[: MOST_TEXT + 1]}
    return (
        0 < len(text) <= MOST_TEXT
        and not text.isspace()
        and categories.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    )


def _check_organization_id(text: str) -> str:
    if not is_plain_text(text):
        msg = "Organization ID must be 1-255 characters, not blank, without control characters"
        raise fault(msg)
    return text


Timestamp = Annotated[
    datetime,
    PlainSerializer(format_timestamp, when_used="unless-none"),
    Field(examples=["2024-01-15T10:30:00.000Z"]),
]
Offset = Annotated[int, Query(ge=0, le=MAX_OFFSET, description="How many entries to skip.")]


OrganizationId = Annotated[
    str,
    AfterValidator(_check_organization_id),
    Field(json_schema_extra={"minLength": 1, "maxLength": MOST_TEXT}),
]
OrganizationFilter = Annotated[
    OrganizationId | None,
    Query(alias="organizationId", description="Only this organization's scans."),
]


class Camel(BaseModel):
    """An answer in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Answer(BaseModel, Generic[_Data]):
    """A success."""

    success: Literal[True] = True
    data: _Data


class Confirmation(BaseModel, Generic[_Data]):
    """A success that says what was done."""

    success: Literal[True] = True
    message: str
    data: _Data


class Pagination(Camel):
    """Where a page lies in the whole."""

    total: int
    limit: int
    offset: int
    has_more: bool
    returned: int
    next_cursor: str | None = Field(
        description="Pass it as `cursor`, all else being equal; null at the end."
    )


class Error(BaseModel):
    """A failure."""

    success: Literal[False] = False
    status: Literal["error"] = "error"
    message: str
    error: str = Field(description="The same text as `message`.")
    detail: str = Field(description="The same text as `message`.")
    error_code: str = Field(
        examples=["SCAN_NOT_FOUND"],
        description="On verb-first paths one for each HTTP status, such as `NOT_FOUND`.",
    )
    code: str = Field(examples=["SCAN_NOT_FOUND"], description="The same on all paths.")
    status_code: int
    details: dict[str, Any] = {}
    timestamp: Timestamp
    request_id: str
    validation_errors: dict[str, Any] | None = Field(
        default=None,
        description="Only when the request is at fault: every fault, nested like the request.",
    )
    errors: dict[str, str] | None = Field(
        default=None, description="The same faults, each at its path with dots in it."
    )
    resource_id: str | None = Field(default=None, description="Of what was not found.")
    conflicting_field: str | None = Field(
        default=None, description="The part of the request that a conflict is about."
    )
    retry_after: int | None = Field(default=None, description="Seconds.")
    incident_id: str | None = Field(
        default=None, description="Only with a fault of the service: find it in the log by this id."
    )


_DESCRIPTIONS: Final = {
    400: ("The request is at fault.", "VALIDATION_ERROR", "Limit must be at most 1000"),
    404: ("No such scan.", "SCAN_NOT_FOUND", "No scan found with ID: hubspot-deals-scan-2025-001"),
    409: (
        "The scan id is taken, or the idempotency key came with another request.",
        "SCAN_EXISTS",
        "A scan with ID 'hubspot-deals-scan-2025-001' already exists",
    ),
    500: ("The service is at fault.", "INTERNAL_ERROR", "An unexpected error occurred"),
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the failures of an endpoint; every one can fail with 500."""
    return {status: describe_error(*_DESCRIPTIONS[status]) for status in (*statuses, 500)}


def describe_error(description: str, code: str, text: str) -> dict[str, Any]:
    """Document one failure with an example of its body."""
    example = {
        "success": False,
        "status": "error",
        "message": text,
        "error": text,
        "detail": text,
        "error_code": code,
        "code": code,
        "timestamp": "2024-01-15T10:30:00.000Z",
        "request_id": "5f0c6b1e9d8a4c7f8e2b3a4d5c6f7081",
    }
    return {
        "model": Error,
        "description": description,
        "content": {"application/json": {"example": example}},
    }
