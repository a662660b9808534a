"""What the OpenAPI document says about who may call what."""

from typing import Any, Final

from api.access.levels import NEEDS, Need
from api.schemas import describe_error

_SCHEMES: Final = {
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "A key of `hubspot-deals keys create`; also as `Authorization: Bearer`.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key, or a JWT of the configured issuer.",
    },
}
_ROOT: Final = "_at_root"
_UNKNOWN: Final = (
    "No API key or token, or one that is not valid.",
    "UNAUTHORIZED",
    "This request needs an API key or a token: send it as `Authorization: Bearer …`",
)
_FORBIDDEN: Final = (
    "The caller is known, and may not do this.",
    "FORBIDDEN",
    "This needs the level `run`, which the key or token does not have",
)
_UNAVAILABLE: Final = (
    "Tokens cannot be checked right now.",
    "TOKEN_KEYS_UNAVAILABLE",
    "Tokens cannot be checked right now: their issuer's keys do not come",
)
_CHALLENGE: Final = {
    "WWW-Authenticate": {
        "description": "What is missing (RFC 6750).",
        "schema": {"type": "string"},
    }
}


def describe_access(document: dict[str, Any]) -> None:
    """Add the ways to say who one is, and to each operation what it needs and refuses."""
    document["components"]["securitySchemes"] = _SCHEMES
    for path in document["paths"].values():
        for operation in path.values():
            need = NEEDS[operation["operationId"].removesuffix(_ROOT)]
            if need.level is not None:
                _describe(operation, need)


def _describe(operation: dict[str, Any], need: Need) -> None:
    operation["security"] = [{name: []} for name in _SCHEMES]
    operation["x-access-level"] = need.level
    refused = ((401, _UNKNOWN), (403, _FORBIDDEN))
    operation["responses"] |= {
        str(status): {**_response(texts), "headers": _CHALLENGE} for status, texts in refused
    }
    operation["responses"].setdefault("503", _response(_UNAVAILABLE))


def _response(texts: tuple[str, str, str]) -> dict[str, Any]:
    described = describe_error(*texts)
    content = described["content"]["application/json"]
    schema = {"$ref": "#/components/schemas/Error"}
    return {
        "description": described["description"],
        "content": {"application/json": {**content, "schema": schema}},
    }
