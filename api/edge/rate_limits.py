"""Counts each request against the limit that it draws on, and refuses what is too much."""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import limits
from fastapi import Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.edge.counter import Hit, HitCounter
from api.edge.limits import LimitName, caller_of, is_read, limit_of
from api.error_bodies import error_response
from hubspot_deals.warehouse.rate_limits import Window

_PATIENCE: Final[Mapping[LimitName, float]] = {"health": 0.5}
_MOST_PATIENCE: Final = 5.0
"""Seconds after which a request is answered without its count."""


class _RefusedError(Exception):
    """The request is one too many; raised where its answer would begin."""


@dataclass(frozen=True, slots=True)
class RateLimiter:
    """The limits of one process, and what counts for all of them."""

    counter: HitCounter
    limits: Mapping[LimitName, limits.RateLimitItem]

    def count(self, name: LimitName, scope: Scope) -> "Count":
        """Begin to count a request."""
        item = self.limits[name]
        hit = self.counter.hit(
            f"{name}/{caller_of(scope)}", most=item.amount, seconds=item.get_expiry()
        )
        return Count(item.amount, hit, _PATIENCE.get(name, _MOST_PATIENCE))


class Count:
    """One request that is being counted."""

    def __init__(self, most: int, hit: Hit, patience: float) -> None:
        self._most = most
        self._hit = hit
        self._until = time.monotonic() + patience

    @property
    def is_known(self) -> bool:
        """Whether nobody has to be waited for."""
        return self._hit.done()

    async def window(self) -> Window | None:
        """Return what was counted, None if nobody could count; raises _RefusedError."""
        if not self._hit.done():
            await asyncio.wait([self._hit], timeout=max(self._until - time.monotonic(), 0))
        if not self._hit.done():
            self._hit.cancel()
        if self._hit.cancelled():
            return None
        window = self._hit.result()
        if window is not None and window.used > self._most:
            raise _RefusedError
        return window

    def headers(self, window: Window) -> dict[str, str]:
        """Return where the caller stands, the reset as Unix time."""
        return {
            "X-RateLimit-Limit": str(self._most),
            "X-RateLimit-Remaining": str(max(self._most - window.used, 0)),
            "X-RateLimit-Reset": str(math.ceil(window.resets_at)),
        }

    def refuse(self) -> Response:
        """Return the documented answer to one too many."""
        window = self._hit.result()
        seconds = max(math.ceil(window.seconds_left), 1) if window else 1
        headers = {"Retry-After": str(seconds)} | (self.headers(window) if window else {})
        text = f"Rate limit exceeded. Please retry after {seconds} seconds."
        return error_response(
            429, "RATE_LIMIT_EXCEEDED", text, headers=headers, error="Rate limit exceeded"
        )


class RateLimits:
    """Limits requests as the `rate_limits` of the application's state say; without it, none.

    What only reads is served while it is being counted, and its answer waits for the count.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or answer 429."""
        limiter: RateLimiter | None = scope.get("state", {}).get("rate_limits")
        name = limit_of(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if limiter is None or name is None:
            await self._app(scope, receive, send)
            return
        count = limiter.count(name, scope)

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start" and (window := await count.window()):
                MutableHeaders(scope=message).update(count.headers(window))
            await send(message)

        try:
            if count.is_known or not is_read(scope["method"]):
                await count.window()
            await self._app(scope, receive, send_counted)
        except _RefusedError:
            await count.refuse()(scope, receive, send)
