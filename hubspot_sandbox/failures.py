"""HubSpot's refusals, word for word: error bodies, HTML pages, correlation ids."""

import os
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson

from hubspot_sandbox.messages import HTML, Reply

CORRELATION_HEADER: Final = b"X-HubSpot-Correlation-Id"
_SCOPES_PAGE: Final = "https://developers.hubspot.com/scopes"


def correlation_id() -> str:
    """A UUID of version 7, as in bodies of 2026."""
    noise = os.urandom(10).hex()
    stamp = f"{int(time.time() * 1000):012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7{noise[:3]}-a{noise[3:6]}-{noise[6:18]}"


def correlation_headers(identity: str) -> bytes:
    """The headers by which HubSpot and its proxies name one request."""
    ray = identity.replace("-", "")[-16:]
    text = (
        f"X-HubSpot-Correlation-Id: {identity}\r\nCF-Ray: {ray}-ARN\r\n"
        f"X-Trace: 2B{identity.replace('-', '').upper()}000000000000\r\n"
    )
    return text.encode()


class ApiError(Exception):
    """A request was refused; carries the reply HubSpot would send."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        headers: bytes = b"",
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        self.facts = facts or {}

    def reply(self) -> Reply:
        """The JSON reply; its correlation id is in the body and in the header alike."""
        identity = correlation_id()
        body: dict[str, Any] = {
            "status": "error",
            "message": self.message,
            "correlationId": identity,
            **self.facts,
        }
        headers = correlation_headers(identity) + self.headers
        return Reply(self.status, orjson.dumps(body), headers=headers)


def bad_request(message: str, *, category: str | None = "VALIDATION_ERROR") -> ApiError:
    """400; pass category=None for the bodies that carry none."""
    facts: dict[str, object] = {"category": category} if category else {}
    return ApiError(HTTPStatus.BAD_REQUEST, message, facts=facts)


def bad_search() -> ApiError:
    """400 of the search endpoint that does not say what is wrong."""
    return ApiError(HTTPStatus.BAD_REQUEST, "There was a problem with the request.")


def bad_json(problem: str, *, column: int = 2) -> ApiError:
    """400 of the JSON binder."""
    return bad_request(f"Invalid input JSON on line 1, column {column}: {problem}")


def unknown_type(name: str) -> ApiError:
    """400 for an object type that this account does not have."""
    if name.partition("-")[0].isdecimal():
        return bad_request(f"Invalid object or event type id: {name}", category=None)
    return bad_request(f"Unable to infer object type from: {name}", category=None)


def no_credentials() -> ApiError:
    """401 for a missing or unknown token."""
    return ApiError(
        HTTPStatus.UNAUTHORIZED,
        "Authentication credentials not found. This API supports OAuth 2.0 authentication and you "
        "can find more details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
        headers=b"X-HubSpot-Auth-Failure: 401 Unauthorized\r\n",
        facts={"category": "INVALID_AUTHENTICATION"},
    )


def expired_token(expired_ms: int, now_ms: int) -> ApiError:
    """401 for a token that was good until `expired_ms`."""
    age = max(0, (now_ms - expired_ms) // 1000)
    return ApiError(
        HTTPStatus.UNAUTHORIZED,
        f"This oauth-token is expired! expiresAt: {expired_ms}, now: {now_ms}",
        facts={
            "category": "EXPIRED_AUTHENTICATION",
            "errors": [
                {"message": f"The OAuth token used to make this call expired {age} second(s) ago."}
            ],
        },
    )


def missing_scopes(scopes: Iterable[str]) -> ApiError:
    """403 for private apps: one of the scopes would do."""
    return ApiError(
        HTTPStatus.FORBIDDEN,
        "This app hasn't been granted all required scopes to make this call. "
        f"Read more about required scopes here: {_SCOPES_PAGE}.",
        facts={
            "errors": [
                {
                    "message": "One or more of the following scopes are required.",
                    "context": {"requiredGranularScopes": sorted(scopes)},
                }
            ],
            "links": {"scopes": _SCOPES_PAGE},
            "category": "MISSING_SCOPES",
        },
    )


def missing_oauth_permission(scopes: Iterable[str], portal_id: int) -> ApiError:
    """403 for OAuth tokens: no category at all."""
    wanted = ", ".join(sorted(scopes))
    return ApiError(
        HTTPStatus.FORBIDDEN,
        "You do not have permissions to view_schema object type "
        f"ObjectTypeId{{legacyObjectType=DEAL}} in portal {portal_id} (requires one of [{wanted}])",
    )


def burst_exceeded(portal_id: int) -> ApiError:
    """429 of the rolling ten seconds."""
    # Doubtful: no Retry-After is known for REST answers, so none is sent.
    return ApiError(
        HTTPStatus.TOO_MANY_REQUESTS,
        "You have reached your ten_secondly_rolling limit.",
        facts={
            "errorType": "RATE_LIMIT",
            "policyName": "TEN_SECONDLY_ROLLING",
            "groupName": f"publicapi:private_app-api-calls-ten-secondly:1512050:{portal_id}",
        },
    )


def search_exceeded() -> ApiError:
    """429 of the search window: no errorType, no policyName, no Retry-After."""
    return ApiError(
        HTTPStatus.TOO_MANY_REQUESTS,
        "You have reached your secondly limit.",
        facts={"category": "RATE_LIMITS"},
    )


def daily_exceeded() -> ApiError:
    """429 of the daily budget."""
    return ApiError(
        HTTPStatus.TOO_MANY_REQUESTS,
        "You have reached your daily limit.",
        facts={
            "errorType": "RATE_LIMIT",
            "policyName": "DAILY",
            "requestId": correlation_id(),
        },
    )


def not_found(object_id: str) -> ApiError:
    """404 for a record that is not there."""
    if object_id == "0":
        return ApiError(
            HTTPStatus.NOT_FOUND,
            "Object not found. objectId is usually positive.",
            facts={"context": {"id": [object_id]}, "category": "OBJECT_NOT_FOUND"},
        )
    return ApiError(
        HTTPStatus.NOT_FOUND, "resource not found", facts={"category": "OBJECT_NOT_FOUND"}
    )


def html(status: int, title: str) -> Reply:
    """An error page of HubSpot's servers or of the proxies in front of them."""
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
    )
    return Reply(status, page.encode(), content_type=HTML)


def unknown_route() -> Reply:
    """404 page for a path that is no API."""
    return html(HTTPStatus.NOT_FOUND, "Error 404 Not Found")


def wrong_method() -> Reply:
    """405 page."""
    return html(HTTPStatus.METHOD_NOT_ALLOWED, "Error 405 Method Not Allowed")


def line_too_long() -> Reply:
    """414 page of nginx, which also ends the connection."""
    reply = html(HTTPStatus.REQUEST_URI_TOO_LONG, "414 Request-URI Too Large")
    reply.close = True
    return reply
