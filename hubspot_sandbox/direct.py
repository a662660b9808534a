"""The sandbox without a socket, for tests that ask it thousands of things."""

from collections.abc import Mapping
from dataclasses import dataclass
from http.client import parse_headers
from io import BytesIO
from typing import Any, Final

import orjson

from hubspot_sandbox.app import build_app
from hubspot_sandbox.clock import Clock
from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.messages import Request
from hubspot_sandbox.testing import GOOD_TOKEN

DEALS: Final = "/crm/v3/objects/deals"


@dataclass(frozen=True, slots=True)
class DirectReply:
    """A reply as a test wants to see it."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.content)


class DirectSandbox:
    """Calls the application itself; `token=None` sends no token."""

    def __init__(self, config: SandboxConfig, clock: Clock | None = None) -> None:
        self._application = build_app(config, clock)

    def get(self, target: str, *, token: str | None = GOOD_TOKEN) -> DirectReply:
        """A GET."""
        return self.ask("GET", target, token=token)

    def post(self, target: str, body: object, *, token: str | None = GOOD_TOKEN) -> DirectReply:
        """A POST of a JSON body."""
        return self.ask("POST", target, orjson.dumps(body), token=token)

    def search(self, *, token: str | None = GOOD_TOKEN, **body: object) -> DirectReply:
        """A search for deals."""
        return self.post(f"{DEALS}/search", body, token=token)

    def control(self, method: str, path: str, body: object = None) -> Any:
        """A control request; NDJSON comes back as a list."""
        reply = self.ask(method, f"/_sandbox/{path}", orjson.dumps(body or {}), token=None)
        if path.partition("?")[0] == "deals":
            return [orjson.loads(line) for line in reply.content.splitlines()]
        if reply.status != 200:  # noqa: PLR2004
            raise AssertionError(reply.content)
        return reply.json

    def ask(
        self, method: str, target: str, body: bytes = b"", *, token: str | None = GOOD_TOKEN
    ) -> DirectReply:
        """Any request."""
        headers = {b"host": b"127.0.0.1:8090"}
        if token is not None:
            headers[b"authorization"] = f"Bearer {token}".encode()
        reply = self._application(Request(method, target.encode(), headers, body))
        content = reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)
        parsed = parse_headers(BytesIO(reply.headers + b"\r\n"))
        return DirectReply(reply.status, dict(parsed.items()), content)
