"""Adds to the OpenAPI document what the edge answers instead of an endpoint."""

from typing import Any, Final

from api.edge.limits import limit_of
from api.schemas import describe_error

_BODIES: Final = {"408": "BodyTooSlow", "413": "BodyTooLarge"}
_TOO_MANY: Final = "TooManyRequests"
_WHOLE: Final = {"schema": {"type": "integer"}}


def describe_edge(document: dict[str, Any]) -> None:
    """Add the refusals of bodies and of one request too many to the operations that have them."""
    document["components"]["responses"] = {
        "BodyTooSlow": _answer(
            "The body did not arrive in time.",
            "BODY_TOO_SLOW",
            "Request body did not arrive within 30 s",
        ),
        "BodyTooLarge": _answer(
            "The body is too large.",
            "BODY_TOO_LARGE",
            "Request body is larger than 1048576 bytes",
        ),
        _TOO_MANY: _answer(
            "Too many requests in this window.",
            "RATE_LIMIT_EXCEEDED",
            "Rate limit exceeded. Please retry after 60 seconds.",
        )
        | {
            "headers": {
                "Retry-After": {"description": "Seconds until the window resets."} | _WHOLE,
                "X-RateLimit-Limit": {"description": "Requests in a window."} | _WHOLE,
                "X-RateLimit-Remaining": {"description": "Those that are left."} | _WHOLE,
                "X-RateLimit-Reset": {"description": "Unix time of the next window."} | _WHOLE,
            }
        },
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names = _BODIES if "requestBody" in operation else {}
            if limit_of(method.upper(), path) is not None:
                names = {**names, "429": _TOO_MANY}
            operation["responses"] |= {
                status: {"$ref": f"#/components/responses/{name}"} for status, name in names.items()
            }


def _answer(description: str, code: str, text: str) -> dict[str, Any]:
    described = describe_error(description, code, text)
    content = described["content"]["application/json"]
    content["schema"] = {"$ref": "#/components/schemas/Error"}
    return {"description": description, "content": {"application/json": content}}
