"""Headers that keep browsers from doing with answers what nobody meant."""

import base64
import hashlib
import re
from typing import Final

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

RawHeaders = list[tuple[bytes, bytes]]

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_NOT_KEPT: Final = (b"cache-control", b"no-store")
_ONLY_HTTPS: Final = (b"strict-transport-security", b"max-age=31536000")
_INLINE_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_METHODS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_TAKEN: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "If-Range",
    "Range",
    "X-API-Key",
    "X-Request-ID",
)
_EXPOSED: Final = (
    "Content-Disposition",
    "ETag",
    "Link",
    "Location",
    "Repr-Digest",
    "Retry-After",
    "X-Pagination-Limit",
    "X-Pagination-Page",
    "X-Pagination-Pages",
    "X-Pagination-Total",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Request-ID",
    "X-Row-Count",
    "X-Snapshot",
)


def add_security_headers(headers: RawHeaders, scheme: str) -> None:
    """Add to an answer what it does not say itself; what has no tag is kept nowhere."""
    given = {name for name, _ in headers}
    headers += [header for header in _HEADERS if header[0] not in given]
    if given.isdisjoint({b"etag", b"cache-control"}):
        headers.append(_NOT_KEPT)
    if scheme == "https":
        headers.append(_ONLY_HTTPS)


def page_policy(html: str) -> str:
    """Return the policy of a page that runs its own scripts and asks this service only."""
    scripts = "".join(
        f" 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(html)
    )
    return (
        f"default-src 'none'; script-src 'self'{scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def allow_origins(app: FastAPI, origins: str) -> None:
    """Let pages of these origins, with commas between them, call the API from a browser."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins.split(","),
        allow_methods=_METHODS,
        allow_headers=_TAKEN,
        expose_headers=_EXPOSED,
    )
