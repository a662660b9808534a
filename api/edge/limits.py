"""Which limit a request draws on, and for whom it is counted."""

import re
from typing import Any, Final, Literal

from starlette.types import Scope

from api.access.refusals import site_of
from api.dialect.grammar import PREFIX

LimitName = Literal["scans", "results", "maintenance", "health"]

_FREE: Final = re.compile(r"/docs(-assets/.*)?|/redoc|/openapi\.json|/metrics|/health/(live|ready)")
"""What is the same for everybody, and what a supervisor asks: refused, it would end the process."""
_HEALTH: Final = re.compile(r"/health(/.*)?|/stats")
_READS: Final = frozenset({"GET", "HEAD"})
_NOBODY: Final = frozenset({"anonymous", "open"})
"""Names that all have whose credentials say nothing."""


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
    return f"address:{site_of(scope)}"
