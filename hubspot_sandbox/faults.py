"""Faults on demand: rules given over the control endpoint, used up in order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hubspot_sandbox.failures import (
    ApiError,
    burst_exceeded,
    daily_exceeded,
    html,
    missing_scopes,
    search_exceeded,
)
from hubspot_sandbox.messages import HTML, JSON, Mangle, Reply

_PORTAL: Final = 48_291_034
PAGE_FAULTS: Final = frozenset({"empty_page", "short_page", "cursor_loop"})
_WIRE_FAULTS: Final = {
    "reset": Mangle.RESET,
    "cut_body": Mangle.CUT_BODY,
    "wrong_length": Mangle.WRONG_LENGTH,
}
# HubSpot's own refusals, with their exact bodies, out of turn.
_REFUSALS: Final[dict[str, Callable[[], ApiError]]] = {
    "burst_429": lambda: burst_exceeded(_PORTAL),
    "search_429": search_exceeded,
    "daily_429": daily_exceeded,
    "missing_scope": lambda: missing_scopes({"crm.objects.deals.read", "crm.schemas.deals.read"}),
}
FAULTS: Final = frozenset({"status", "stall", "html_200", "cut_json", "expire_token"}).union(
    PAGE_FAULTS, _WIRE_FAULTS, _REFUSALS
)
_MATCHES: Final = frozenset({"kind", "method", "path_contains", "query_contains", "body_contains"})
_TITLES: Final = {
    423: "423 Locked",
    477: "477 Migration in progress",
    500: "500 Internal Server Error",
    502: "502 Bad Gateway",
    503: "503 Service Temporarily Unavailable",
    504: "504 Gateway Time-out",
    520: "520 Web server is returning an unknown error",
    522: "522 Connection timed out",
    524: "524 Origin Time-out",
}


class FaultRuleError(ValueError):
    """A fault rule cannot be understood."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong."""

    type: str
    status: int = 500
    body: str = "json"
    message: str = "internal error"
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    results: int = 0

    def early_reply(self) -> Reply | None:
        """The reply that stands in for the endpoint's own, if any does."""
        if self.type in _REFUSALS:
            reply = _REFUSALS[self.type]().reply()
        elif self.type == "html_200":
            reply = html(200, "We are performing maintenance")
        elif self.type != "status":
            return None
        elif self.body == "html":
            reply = html(self.status, _TITLES.get(self.status, f"{self.status} Error"))
        elif self.body == "empty":
            reply = Reply(self.status, b"", content_type=HTML)
        else:
            reply = ApiError(self.status, self.message).reply()
            reply.content_type = JSON
        extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        reply.headers += extra.encode("latin-1")
        return reply

    def spoil(self, reply: Reply) -> Reply:
        """Damage an otherwise good reply on the wire."""
        reply.mangle = _WIRE_FAULTS.get(self.type, Mangle.NONE)
        if self.type == "stall":
            reply.delay += self.seconds
        if self.type == "cut_json" and isinstance(reply.body, bytes):
            reply.body = reply.body[: len(reply.body) // 2]
        return reply


@dataclass(slots=True)
class Rule:
    """When a fault strikes: matching requests number after+1 … after+times."""

    match: dict[str, str]
    fault: Fault
    after: int = 0
    times: int | None = 1
    seen: int = 0
    struck: int = 0

    @property
    def is_spent(self) -> bool:
        """Whether it will never strike again."""
        return self.times is not None and self.struck >= self.times

    def matches(self, facts: dict[str, str]) -> bool:
        """Whether a request is one of those meant."""
        return all(
            wanted in facts.get(key.removesuffix("_contains"), "")
            if key.endswith("_contains")
            else wanted == facts.get(key)
            for key, wanted in self.match.items()
        )


class Faults:
    """The rules in force. At most one strikes per request: the first that is due."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def clear(self) -> None:
        """Forget all rules."""
        self._rules.clear()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to look up."""
        return not self._rules

    def add(self, rule: dict[str, Any]) -> None:
        """Add one rule as the control endpoint receives it."""
        self._rules.append(_read_rule(rule))

    def take(self, facts: dict[str, str]) -> Fault | None:
        """The fault that strikes this request."""
        struck: Fault | None = None
        for rule in self._rules:
            if rule.is_spent or not rule.matches(facts):
                continue
            rule.seen += 1
            if struck is None and rule.seen > rule.after:
                rule.struck += 1
                struck = rule.fault
        return struck

    def state(self) -> list[dict[str, Any]]:
        """The rules with their counts."""
        return [
            {
                "match": rule.match,
                "fault": {"type": rule.fault.type, "status": rule.fault.status},
                "after": rule.after,
                "times": rule.times,
                "seen": rule.seen,
                "struck": rule.struck,
            }
            for rule in self._rules
        ]


def _read_rule(rule: dict[str, Any]) -> Rule:
    unknown = set(rule) - {"match", "fault", "after", "times"}
    match = rule.get("match") or {}
    fault = rule.get("fault")
    unknown |= set(match) - _MATCHES
    if unknown or not isinstance(fault, dict) or fault.get("type") not in FAULTS:
        message = f"Not a fault rule: {rule}; faults are {sorted(FAULTS)}"
        raise FaultRuleError(message)
    facts = {**fault, "headers": tuple((fault.get("headers") or {}).items())}
    if "html" in str(facts.get("body")) and "status" not in facts:
        facts["status"] = 502
    try:
        return Rule(dict(match), Fault(**facts), int(rule.get("after", 0)), rule.get("times", 1))
    except TypeError as error:
        message = f"Not a fault: {fault}"
        raise FaultRuleError(message) from error
