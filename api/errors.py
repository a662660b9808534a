"""The one place where errors become HTTP answers: which status and code each has."""

import http
import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.error_bodies import error_response, nest_faults
from hubspot_deals.errors import (
    DeliveryNotFoundError,
    HubSpotDealsError,
    IdempotencyConflictError,
    PermanentError,
    ResultsRemovedError,
    ScanActiveError,
    ScanExistsError,
    ScanNotFoundError,
    ScanStateError,
    TransientError,
    WebhookDisabledError,
    WebhookLimitError,
    WebhookNotFoundError,
)
from hubspot_deals.sync_errors import (
    ConnectionAccountError,
    ConnectionExistsError,
    ConnectionNotFoundError,
    ConnectionPartitionsError,
    ConnectionPausedError,
)

logger = logging.getLogger(__name__)

_MOST_FAULTS: Final = 200
_LONGEST_TABLE: Final = 63
_LONGEST_COLUMNS: Final = 2_000
_LONGEST_PATH: Final = 300
_NOT_FOUND: Final = 404
_METHOD_NOT_ALLOWED: Final = 405
_METHODS: Final = ("GET", "POST", "PATCH", "DELETE")


class DagsterUnavailableError(TransientError):
    """Dagster's webserver did not give a usable answer."""


class DagsterRefusedError(PermanentError):
    """Dagster understood a request and declined it."""


class ScanNotCompletedError(PermanentError):
    """Results were asked for before the scan was completed."""

    def __init__(self, scan_id: str, status: str) -> None:
        super().__init__(
            f"Scan '{scan_id}' is not completed: its status is {status}. "
            "Results can be read once the status is completed"
        )


class UnknownTableError(PermanentError):
    """A scan has no such table."""

    def __init__(self, table: str, available: Sequence[str]) -> None:
        shown = shorten(table, _LONGEST_TABLE)
        names = ", ".join(available) or "none"
        super().__init__(f"Table {shown!r} does not exist in this scan; available: {names}")


class UnknownColumnError(PermanentError):
    """A table has no such column."""

    def __init__(self, column: str, available: Sequence[str]) -> None:
        names = shorten(", ".join(available), _LONGEST_COLUMNS)
        shown = shorten(column, _LONGEST_TABLE)
        super().__init__(f"Column {shown!r} does not exist in this table; available: {names}")


class SnapshotReplacedError(PermanentError):
    """A page of a snapshot was asked for that a rerun has replaced."""

    def __init__(self, scan_id: str, wanted: int, served: int) -> None:
        super().__init__(
            f"Scan '{scan_id}' no longer serves snapshot {wanted}: a rerun replaced it by snapshot "
            f"{served}. Discard the pages read so far and start over at offset 0"
        )


class DownloadFailedError(TransientError):
    """An export process ended without its file."""

    def __init__(self) -> None:
        super().__init__(
            "The file could not be written; the service's log has the cause. Try again"
        )


class DownloadSpaceError(TransientError):
    """There is no room for the file."""

    def __init__(self) -> None:
        super().__init__(
            "The file does not fit into the room for downloads (HUBSPOT_DEALS_DOWNLOAD_BYTES), or "
            "the disk is full. Ask for fewer columns, or try again later"
        )


class HubSpotUnreachableError(TransientError):
    """HubSpot could not be asked now; `retry_after` are seconds, 0 where nobody knows."""

    def __init__(self, reason: str, *, retry_after: int = 0) -> None:
        self.retry_after = retry_after
        super().__init__(reason)


class HubSpotRefusedError(PermanentError):
    """HubSpot answered a plan's questions in a way that trying again does not change."""


class PlanningBusyError(TransientError):
    """Too many plans are being made."""

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__("Too many plans are being made right now. Try again shortly")


class PlanningFailedError(TransientError):
    """A planning process ended without an answer."""

    def __init__(self) -> None:
        super().__init__("The plan could not be made; the service's log has the cause")


class SnapshotHiddenError(TransientError):
    """The scan was removed or run again while its file was written or sent."""


class SourceUnavailableError(PermanentError):
    """A source is asked for that does not exist yet."""

    def __init__(self, source: str) -> None:
        super().__init__(
            f'Type "{source}" is not available yet; this service extracts HubSpot deals: '
            'use ["deals"] or ["user"]'
        )


class UnauthenticatedError(PermanentError):
    """Nobody knows who calls."""

    def __init__(self, text: str, challenge: str) -> None:
        self.headers = {"WWW-Authenticate": f'Bearer realm="hubspot-deals"{challenge}'}
        super().__init__(text)

    @classmethod
    def of_missing(cls) -> "UnauthenticatedError":
        """Build the error of a request without a credential."""
        return cls(
            "This request needs an API key or a token: send it as `Authorization: Bearer …`", ""
        )

    @classmethod
    def of_invalid(cls) -> "UnauthenticatedError":
        """Build the one error of everything that can be wrong with a credential."""
        return cls(
            "The API key or token is not valid: unknown, malformed, expired or revoked",
            ', error="invalid_token"',
        )


class ForbiddenError(PermanentError):
    """The caller is known, and may not do this."""

    def __init__(self, text: str, scope: str = "") -> None:
        wanted = f', scope="{scope}"' if scope else ""
        challenge = f'Bearer realm="hubspot-deals", error="insufficient_scope"{wanted}'
        self.headers = {"WWW-Authenticate": challenge}
        super().__init__(text)

    @classmethod
    def of_level(cls, level: str) -> "ForbiddenError":
        """Build the error of a caller who may do less than this."""
        text = f"This needs the level `{level}`, which the key or token does not have"
        return cls(text, level)

    @classmethod
    def of_organization(cls) -> "ForbiddenError":
        """Build the error of a request that names an organization which is not the caller's."""
        return cls("The key or token is not for the organization that the request names")

    @classmethod
    def of_everything(cls) -> "ForbiddenError":
        """Build the error of a caller of some organizations where all are concerned."""
        return cls("This is about all organizations, and the key or token is for some of them")

    @classmethod
    def in_open_mode(cls) -> "ForbiddenError":
        """Build the error of a caller from elsewhere where callers are not asked who they are."""
        return cls(
            "This service runs with HUBSPOT_DEALS_AUTH_MODE=open, which is for callers on the same "
            "machine without a proxy in between. For any other, set "
            "HUBSPOT_DEALS_AUTH_MODE=required and make a key with `hubspot-deals keys create`"
        )


class KeySetUnavailableError(TransientError):
    """The public keys that tokens are checked with cannot be had."""

    retry_after = 30

    def __init__(self) -> None:
        super().__init__("Tokens cannot be checked right now: their issuer's keys do not come")


class BodyError(HTTPException):
    """The request body could not be read as JSON: 400, or 413 and 408 where it did not end."""

    def __init__(self, text: str, status_code: int = 400) -> None:
        super().__init__(status_code, detail=text)


_STATUSES: Final[Mapping[type[HubSpotDealsError], tuple[int, str]]] = {
    ScanNotFoundError: (404, "SCAN_NOT_FOUND"),
    ResultsRemovedError: (404, "RESULTS_REMOVED"),
    ScanExistsError: (409, "SCAN_EXISTS"),
    ScanActiveError: (409, "SCAN_ACTIVE"),
    IdempotencyConflictError: (409, "IDEMPOTENCY_CONFLICT"),
    ScanStateError: (400, "SCAN_STATE"),
    ScanNotCompletedError: (400, "SCAN_NOT_COMPLETED"),
    UnknownTableError: (400, "UNKNOWN_TABLE"),
    UnknownColumnError: (400, "UNKNOWN_COLUMN"),
    DownloadFailedError: (500, "DOWNLOAD_FAILED"),
    DownloadSpaceError: (503, "DOWNLOAD_SPACE"),
    SnapshotReplacedError: (409, "SNAPSHOT_REPLACED"),
    HubSpotRefusedError: (502, "HUBSPOT_REFUSED"),
    HubSpotUnreachableError: (503, "HUBSPOT_UNAVAILABLE"),
    PlanningBusyError: (503, "PLANNING_BUSY"),
    PlanningFailedError: (500, "PLANNING_FAILED"),
    SourceUnavailableError: (400, "SOURCE_UNAVAILABLE"),
    ConnectionNotFoundError: (404, "CONNECTION_NOT_FOUND"),
    ConnectionExistsError: (409, "CONNECTION_EXISTS"),
    ConnectionPausedError: (409, "CONNECTION_PAUSED"),
    ConnectionPartitionsError: (409, "CONNECTION_PARTITIONS"),
    ConnectionAccountError: (409, "CONNECTION_ACCOUNT"),
    UnauthenticatedError: (401, "UNAUTHORIZED"),
    ForbiddenError: (403, "FORBIDDEN"),
    KeySetUnavailableError: (503, "TOKEN_KEYS_UNAVAILABLE"),
    WebhookNotFoundError: (404, "WEBHOOK_NOT_FOUND"),
    DeliveryNotFoundError: (404, "DELIVERY_NOT_FOUND"),
    WebhookDisabledError: (409, "WEBHOOK_DISABLED"),
    WebhookLimitError: (409, "WEBHOOK_LIMIT"),
}

_CONFLICTING: Final[Mapping[type[Exception], str]] = {
    ScanExistsError: "config.scanId",
    ScanActiveError: "config.scanId",
    IdempotencyConflictError: "Idempotency-Key",
    SnapshotReplacedError: "snapshot",
    WebhookDisabledError: "enabled",
    WebhookLimitError: "organizationId",
    ConnectionPartitionsError: "settings",
    ConnectionAccountError: "auth.accessToken",
}

_UNREAD: Final = {408: "BODY_TOO_SLOW", 413: "BODY_TOO_LARGE"}
_TRY_LATER: Final = (HubSpotUnreachableError, PlanningBusyError, KeySetUnavailableError)
_CHALLENGES: Final = (UnauthenticatedError, ForbiddenError)


def shorten(text: str, longest: int) -> str:
    """Bound what is echoed to callers and logs."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def query_faults(*faults: tuple[Sequence[str], str]) -> RequestValidationError:
    """Build the error that names texts at their places in the query string."""
    return RequestValidationError(
        [{"type": "form", "loc": ("query", *path), "msg": text} for path, text in faults]
    )


def add_error_handlers(app: FastAPI) -> None:
    """Register the handlers for everything that a request can raise on purpose."""
    app.add_exception_handler(RequestValidationError, _on_faulty_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(HubSpotDealsError, _on_own_error)
    app.add_exception_handler(psycopg.OperationalError, _on_database_trouble)


def unexpected_error(error: Exception) -> Response:
    """Log a fault of ours under a fresh incident id and tell the caller nothing but that id."""
    incident = _new_incident()
    logger.error(
        "Unexpected %s", type(error).__name__, exc_info=error, extra={"incident_id": incident}
    )
    text = f"An unexpected error occurred. Quote incident {incident} when you report it"
    return error_response(500, "INTERNAL_ERROR", text, incident_id=incident)


def _new_incident() -> str:
    return f"inc_{uuid.uuid4().hex}"


async def _on_faulty_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = error.errors()
    faults = nest_faults(errors[:_MOST_FAULTS])
    of_body = any(fault["loc"][0] == "body" for fault in errors)
    prefix = "Configuration validation failed" if of_body else "Request validation failed"
    text = f"{prefix}: {faults}"
    if len(errors) > _MOST_FAULTS:
        text += f" (the first {_MOST_FAULTS} of {len(errors)} faults)"
    return error_response(400, "VALIDATION_ERROR", text, validation_errors=faults)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    if isinstance(error, BodyError):
        return _answer_body(error)
    headers: Mapping[str, str] = error.headers or {}
    if error.status_code == _METHOD_NOT_ALLOWED:
        headers = {"Allow": _methods_of(request)}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    phrase = http.HTTPStatus(error.status_code).phrase
    text = {
        404: "This path does not exist; see /docs for those that do",
        405: f"This path does not take {request.method}; it takes {headers.get('Allow', 'others')}",
    }.get(error.status_code, str(error.detail))
    code = phrase.upper().replace(" ", "_")
    named = {"resource_id": shorten(request.url.path, _LONGEST_PATH)}
    more = named if error.status_code == _NOT_FOUND else {}
    return error_response(error.status_code, code, text, headers=headers, **more)


def _methods_of(request: Request) -> str:
    """List what the path takes: the error knows only the methods of the first route that has it."""
    asked = {method: {**request.scope, "method": method} for method in _METHODS}
    routes = request.app.routes
    taken = (m for m in asked if any(r.matches(asked[m])[0] is Match.FULL for r in routes))
    return ", ".join(taken)


def _answer_body(error: BodyError) -> Response:
    if (code := _UNREAD.get(error.status_code)) is not None:
        # What is still on its way would otherwise be read as the next request.
        headers = {"Connection": "close"}
        return error_response(error.status_code, code, error.detail, headers=headers)
    faults = {"body": [error.detail]}
    return error_response(400, "INVALID_BODY", error.detail, validation_errors=faults)


async def _on_own_error(_: Request, error: Exception) -> Response:
    known = _STATUSES.get(type(error)) if isinstance(error, HubSpotDealsError) else None
    if known is None:
        return unexpected_error(error)
    status, code = known
    wait = error.retry_after if isinstance(error, _TRY_LATER) else 0
    headers = {"Retry-After": str(wait)} if wait else {}
    if isinstance(error, _CHALLENGES):
        headers |= error.headers
    return error_response(status, code, str(error), headers=headers, **_subject_of(error))


def _subject_of(error: Exception) -> dict[str, Any]:
    """Say what an error is about: a scan, a connection, a webhook, or a part of the request."""
    match error:
        case ScanNotFoundError() | ResultsRemovedError():
            return {"resource_id": error.scan_id}
        case ConnectionNotFoundError():
            return {"resource_id": error.connection_id}
        case WebhookNotFoundError():
            return {"resource_id": error.webhook_id}
        case DeliveryNotFoundError():
            return {"resource_id": error.delivery_id}
        case SourceUnavailableError():
            return {"validation_errors": {"config": {"type": [str(error)]}}}
        case _:
            field = _CONFLICTING.get(type(error))
            return {} if field is None else {"conflicting_field": field}


async def _on_database_trouble(_: Request, error: Exception) -> Response:
    incident = _new_incident()
    logger.error("Database trouble: %s", error, extra={"incident_id": incident})
    text = "An unexpected error occurred: the database did not answer. Try again shortly"
    return error_response(
        500, "DATABASE_UNAVAILABLE", text, headers={"Retry-After": "5"}, incident_id=incident
    )
