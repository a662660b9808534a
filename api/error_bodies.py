"""The body of every failure, and the texts of what is wrong with a request.

It is the union of what the documents of the interface name: the text under three names (callers
read one of them), the code, the moment, the `request_id`, and every fault, nested and flat, when
the request was at fault. The manner in which the caller is told decides how the code is spelt.
"""

import http
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from fastapi import Response

from api.logs import request_id
from hubspot_deals.redaction import redact

Faults = dict[str, Any]
"""Texts at their place: nested objects whose leaves are lists of texts."""

_PROBLEM: Final = "application/problem+json"
_OWN: Final = "_schema"
"""Key for the faults of an object that also has faults inside."""

_TEXTS: Final[Mapping[str, str]] = {
    "missing": "{label} is required",
    "string_type": "{label} must be a string",
    "string_too_short": "{label} must have at least {min_length} characters",
    "string_too_long": "{label} must have at most {max_length} characters",
    "bool_type": "{label} must be true or false",
    "bool_parsing": "{label} must be true or false",
    "list_type": "{label} must be a list",
    "dict_type": "{label} must be an object",
    "model_type": "{label} must be an object",
    "model_attributes_type": "{label} must be an object",
    "too_long": "{label} must have at most {max_length} entries",
    "int_type": "{label} must be a whole number",
    "int_parsing": "{label} must be a whole number",
    "int_parsing_size": "{label} is too large",
    "float_type": "{label} must be a number",
    "int_from_float": "{label} must be a whole number",
    "greater_than": "{label} must be more than {gt}",
    "greater_than_equal": "{label} must be at least {ge}",
    "less_than_equal": "{label} must be at most {le}",
}


@dataclass(frozen=True, slots=True)
class Manner:
    """How the caller of a request is told what is wrong."""

    generic_codes: bool = False
    """One code for each HTTP status, as the verb-first document has them."""
    as_problem: bool = False


_PLAIN: Final = Manner()
manner: ContextVar[Manner] = ContextVar("manner", default=_PLAIN)

_GENERIC: Final[Mapping[int, str]] = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    409: "CONFLICT",
    429: "RATE_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "SERVICE_UNAVAILABLE",
}


def error_response(
    status: int,
    code: str,
    text: str,
    *,
    headers: Mapping[str, str] | None = None,
    **more: str | Faults,
) -> Response:
    """Build the answer of any failure."""
    told = manner.get()
    if status == http.HTTPStatus.NOT_FOUND:
        # An id that is quoted may be a credential that was sent in its place.
        text = redact(text)
        more = {name: redact(one) if isinstance(one, str) else one for name, one in more.items()}
    body: dict[str, Any] = {
        "success": False,
        "status": "error",
        "message": text,
        "error": text,
        "detail": text,
        "error_code": _GENERIC.get(status, code) if told.generic_codes else code,
        "code": code,
        "status_code": status,
        "details": {},
        "timestamp": _now(),
        "request_id": request_id.get() or "-",
        **more,
    }
    if "validation_errors" in body:
        body["errors"] = dict(_flat(body["validation_errors"]))
    if headers and headers.get("Retry-After", "").isdigit():
        body["retry_after"] = int(headers["Retry-After"])
    media_type = "application/json"
    if told.as_problem:
        media_type = _PROBLEM
        title = http.HTTPStatus(status).phrase
        body |= {"type": "about:blank", "title": title, "status": status}
    return Response(orjson.dumps(body), status, headers, media_type=media_type)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _flat(faults: Faults, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place and the text of every fault."""
    for name, inner in faults.items():
        place = path if name == _OWN else f"{path}.{name}".lstrip(".")
        if isinstance(inner, dict):
            yield from _flat(inner, place)
        else:
            yield place, "; ".join(inner)


def nest_faults(errors: Iterable[Mapping[str, Any]]) -> Faults:
    """Put pydantic's faults at their paths in the request."""
    tree: Faults = {}
    for error in errors:
        path = [str(part) for part in error["loc"][1:]] or [str(error["loc"][0])]
        node = tree
        for part in path[:-1]:
            child = node.setdefault(part, {})
            if isinstance(child, list):
                child = node[part] = {_OWN: child}
            node = child
        leaf = node.setdefault(path[-1], [])
        leaf = leaf.setdefault(_OWN, []) if isinstance(leaf, dict) else leaf
        leaf.append(_text_of(error, path))
    return tree


def _text_of(error: Mapping[str, Any], path: Sequence[str]) -> str:
    kind = error["type"]
    if kind == "extra_forbidden":
        return "Unknown field; check its spelling"
    if error["loc"] == ("body",):
        return "Request body must be a JSON object, sent with Content-Type: application/json"
    if (template := _TEXTS.get(kind)) is None:
        return str(error["msg"])
    return template.format(label=_label(path), **error.get("ctx", {}))


def _label(path: Sequence[str]) -> str:
    """Say a field's name in words: `scanId` is "Scan ID", a list's entry "Properties entry"."""
    if path[-1].isdigit() and len(path) > 1:
        return f"{_label(path[:-1])} entry"
    words = re.sub(r"([A-Z])", r" \1", path[-1]).replace("_", " ").lower().split()
    text = " ".join({"id": "ID", "url": "URL"}.get(word, word) for word in words)
    return text[:1].upper() + text[1:]
