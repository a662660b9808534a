"""Which limit a request draws on, and for whom it is counted."""

import ipaddress
import re
from typing import Any, Final, Literal

from starlette.types import Scope

from api.dialect.grammar import PREFIX

LimitName = Literal["scans", "results", "maintenance", "health"]

_FREE: Final = re.compile(r"/docs(-assets/.*)?|/redoc|/openapi\.json|/metrics|/health/(live|ready)")
"""What is the same for everybody, and what a supervisor asks: refused, it would end the process."""
_HEALTH: Final = re.compile(r"/health(/.*)?|/stats")
_READS: Final = frozenset({"GET", "HEAD"})
_NOBODY: Final = frozenset({"anonymous", "open"})
"""Names that all have whose credentials say nothing."""
_SITE_BITS: Final = 64
"""One customer has as many IPv6 addresses as the rest of the bits can count."""


def is_read(method: str) -> bool:
    """Tell whether a request changes nothing."""
    return method in _READS


def limit_of(method: str, path: str) -> LimitName | None:
    """Return the limit that a request draws on; None for what is not limited.

    What changes something counts as a scan operation, whatever it changes, and what reads counts
    as reading results: a client that follows a scan for hours is not refused.
    """
    inner = path.removeprefix(PREFIX)
    if method == "OPTIONS" or _FREE.fullmatch(inner):
        return None
    if inner.startswith("/maintenance/"):
        return "maintenance"
    if _HEALTH.fullmatch(inner):
        return "health"
    return "results" if is_read(method) else "scans"


def caller_of(scope: Scope) -> str:
    """Return for whom a request counts: whom its credentials name, else its address."""
    actor: Any = scope.get("state", {}).get("actor")
    if actor is not None and actor.name not in _NOBODY:
        return f"actor:{actor.name}"
    return f"address:{_site_of(scope['client'][0])}" if scope.get("client") else "address:"


def _site_of(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:_SITE_BITS]
    if address.version == 4:  # noqa: PLR2004 - of the protocol
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address.packed, _SITE_BITS), strict=False))
