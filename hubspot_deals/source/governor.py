"""Keeps a reader inside HubSpot's two request budgets.

Ordinary calls draw on a rolling ten-second burst of each app; searches draw on five requests a
second of the whole account and not on the burst. What HubSpot's headers and refusals say wins
over the defaults.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aiolimiter import AsyncLimiter

BURST_SECONDS: Final = 10
BURST_REQUESTS: Final = 190
"""The most common tier's burst, until the first answer's headers name the account's own."""
SEARCHES_PER_SECOND: Final = 5

_LIMIT: Final = re.compile(r"[0-9]{1,9}")
_SHARE: Final = 0.97
"""Of the budget, so that clock differences to HubSpot never cost a refusal."""
_BUCKET: Final = 5
"""Requests that may go at once. Bucket and rate together stay inside the rolling window."""

_FULL_PAUSE: Final = 1.0
"""Seconds to let a full burst window drain: a tenth of it."""


class Budget(StrEnum):
    """Which of HubSpot's budgets a request draws on."""

    BURST = "ten-second"
    SEARCH = "search"


@dataclass(slots=True)
class _Gate:
    limiter: AsyncLimiter
    limit: float
    closed_until: float = 0.0


class Governor:
    """Admits requests at the pace HubSpot allows and counts the seconds spent waiting."""

    def __init__(self, searches_per_second: float = SEARCHES_PER_SECOND) -> None:
        self.throttled_seconds = 0.0
        self._gates = {
            Budget.BURST: _Gate(_burst_limiter(BURST_REQUESTS), BURST_REQUESTS),
            Budget.SEARCH: _Gate(
                AsyncLimiter(1, 1 / (searches_per_second * _SHARE)), searches_per_second
            ),
        }

    async def admit(self, budget: Budget) -> None:
        """Wait until one more request may be sent."""
        began = time.monotonic()
        gate = self._gates[budget]
        if (wait := self.closed_for(budget)) > 0:
            await asyncio.sleep(wait)
        await gate.limiter.acquire()
        self.throttled_seconds += time.monotonic() - began

    def closed_for(self, budget: Budget) -> float:
        """Seconds for which nothing more is sent on a budget."""
        return max(0.0, self._gates[budget].closed_until - time.monotonic())

    def close(self, budget: Budget, seconds: float) -> None:
        """Send nothing more on this budget for a while: HubSpot has refused a request."""
        gate = self._gates[budget]
        gate.closed_until = max(gate.closed_until, time.monotonic() + seconds)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Take the account's burst limit from an answer's headers, and a hint that it is near."""
        limit = headers.get("X-HubSpot-RateLimit-Max", "")
        gate = self._gates[Budget.BURST]
        if _LIMIT.fullmatch(limit) and int(limit) > _BUCKET and int(limit) != gate.limit:
            gate.limit = int(limit)
            gate.limiter = _burst_limiter(gate.limit)
        if headers.get("X-HubSpot-RateLimit-Remaining") == "0":
            # Somebody else uses this token too; the next request would be refused.
            self.close(Budget.BURST, _FULL_PAUSE)


def _burst_limiter(limit: float) -> AsyncLimiter:
    """A bucket of a few requests that refills so slowly that no ten seconds hold over `limit`."""
    rate = (limit * _SHARE - _BUCKET) / BURST_SECONDS
    return AsyncLimiter(_BUCKET, _BUCKET / rate)
