"""Finds out who calls before anything else is done with a request."""

import asyncio
from typing import Final

import psycopg
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access.actor import ANONYMOUS, Actor
from api.access.credentials import Credentials
from hubspot_deals.errors import HubSpotDealsError

_HEALTH: Final = ("/health", "/api/v1/health")
_HEALTH_SECONDS: Final = 0.3
"""Nobody waits longer for who asks whether the service works: perhaps it does not."""


class AccessGate:
    """Puts the `actor` into `request.state`, or into `refusal` why nobody knows one.

    Neither is there without a credential. It refuses nothing itself, for some routes are open to
    anybody; `GuardedRoute` does.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            credentials: Credentials | None = state.get("credentials")
            if credentials is not None:
                try:
                    if (actor := await _identify(credentials, scope)) is not ANONYMOUS:
                        state["actor"] = actor
                except (HubSpotDealsError, psycopg.Error, TimeoutError) as error:
                    state["refusal"] = error
        await self._app(scope, receive, send)


async def _identify(credentials: Credentials, scope: Scope) -> Actor:
    if not scope["path"].startswith(_HEALTH):
        return await credentials.identify(scope)
    async with asyncio.timeout(_HEALTH_SECONDS):
        return await credentials.identify(scope)
