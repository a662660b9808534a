"""Keeps readers inside HubSpot's two request budgets.

Ordinary calls draw on a rolling ten-second burst of each app; searches draw on five requests a
second of the whole account and not on the burst. What HubSpot's headers and refusals say wins
over the defaults.

A request reserves a slot and waits for it. Who keeps the slots decides who shares them: one
process, or, with a pace in the database, every worker that reads the same account.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

BURST_SECONDS: Final = 10
BURST_REQUESTS: Final = 190
"""The most common tier's burst, until the first answer's headers name the account's own."""
SEARCHES_PER_SECOND: Final = 5

_LIMIT: Final = re.compile(r"[0-9]{1,9}")
_BUCKET: Final = 2
"""Requests that may go at once."""
_BUNCHING: Final = {"ten-second": 0.25, "search": 0.04}
"""Seconds by which a request may catch up with an earlier one on its way to HubSpot. What arrives
in a window was sent in the window and this; the pace is such that both together hold the limit."""
_MISSED_SLOTS: Final = 3
"""A busy process misses a slot by more than that; it takes another, unless it is always so busy."""
_FULL_PAUSE: Final = 1.0
"""Seconds to let a full burst window drain: a tenth of it."""

_SLOWER, _SLOWEST, _RECOVERY = 0.75, 0.2, 0.002
"""After a refusal others are using the budget: factor of the pace, its floor, and what each
request gives back of it."""


def now() -> float:
    """Return seconds by the event loop's clock, which a rehearsal lets run ahead of the world's."""
    return asyncio.get_running_loop().time()


class Budget(StrEnum):
    """Which of HubSpot's budgets a request draws on."""

    BURST = "ten-second"
    SEARCH = "search"


class Pace(Protocol):
    """Keeps the next free slot of each key. Times in seconds."""

    async def reserve(self, key: str, interval: float, slack: float) -> float:
        """Take the next slot, `interval` after the last one; return how long to wait for it.

        Slots of the last `slack` seconds that nobody took may still be taken. Less than nothing
        to wait tells that the slot has passed before the answer came.
        """

    async def postpone(self, key: str, seconds: float) -> None:
        """Let no slot be earlier than in so many seconds."""


@dataclass(slots=True)
class LocalPace:
    """The slots of one process, by its own clock."""

    _next: dict[str, float] = field(default_factory=dict)

    async def reserve(self, key: str, interval: float, slack: float) -> float:
        """Take the next slot; return how long to wait for it."""
        at = now()
        slot = max(self._next.get(key, 0.0), at - slack)
        self._next[key] = slot + interval
        return max(slot - at, 0.0)

    async def postpone(self, key: str, seconds: float) -> None:
        """Let no slot be earlier than in so many seconds."""
        opening = now() + seconds
        self._next[key] = max(self._next.get(key, 0.0), opening)


@dataclass(slots=True)
class _Gate:
    key: str
    limit: float
    factor: float = 1.0
    closed_until: float = 0.0
    """Until when this process sends nothing: others learn of it by the next slot."""
    must_postpone: bool = False
    waiting: int = 0
    """Requests of this process that wait for a slot."""
    last_wait: float = 0.0


class Governor:
    """Admits requests at the pace HubSpot allows and counts the seconds spent waiting.

    `share` is the part of both budgets that is used at most; `app` names whose burst it is.
    """

    def __init__(
        self,
        searches_per_second: float = SEARCHES_PER_SECOND,
        *,
        pace: Pace | None = None,
        app: str = "app",
        share: float = 1.0,
    ) -> None:
        self.throttled_seconds = 0.0
        self.when_admitted: Callable[[], None] = lambda: None
        """Is called each time that a request needs to wait no longer."""
        self.burst_limit: int | None = None
        """Requests that HubSpot's headers allow this app in ten seconds; None before they did."""
        self._pace = pace or LocalPace()
        self._share = share
        self._gates = {
            Budget.BURST: _Gate(f"{app} {Budget.BURST}", BURST_REQUESTS),
            Budget.SEARCH: _Gate(f"{app} {Budget.SEARCH}", searches_per_second),
        }

    def name_account(self, account: str) -> None:
        """Share the search budget, which is the account's, with all of its apps."""
        self._gates[Budget.SEARCH].key = f"{account} {Budget.SEARCH}"

    async def admit(self, budget: Budget) -> None:
        """Wait until one more request may be sent."""
        began = now()
        gate = self._gates[budget]
        gate.waiting += 1
        try:
            for _ in range(_MISSED_SLOTS):
                if await self._wait_for_slot(budget, gate) <= _BUNCHING[budget]:
                    break
        finally:
            gate.waiting -= 1
            self.when_admitted()
        gate.factor = min(1.0, gate.factor + _RECOVERY)
        gate.last_wait = now() - began
        self.throttled_seconds += gate.last_wait

    def is_free(self, budget: Budget) -> bool:
        """Tell whether no request of this process waits: only then is one more reader of use."""
        return not self._gates[budget].waiting

    def last_wait(self, budget: Budget) -> float:
        """Seconds that the last request has waited for its slot."""
        return self._gates[budget].last_wait

    async def _wait_for_slot(self, budget: Budget, gate: _Gate) -> float:
        """Wait for the next slot; return the seconds by which it was missed all the same."""
        if gate.must_postpone:
            gate.must_postpone = False
            await self._pace.postpone(gate.key, self.closed_for(budget))
        wait = await self._pace.reserve(gate.key, *self._spacing(budget))
        slot = now() + wait
        if (wait := max(wait, self.closed_for(budget))) > 0:
            await asyncio.sleep(wait)
        return now() - slot

    def closed_for(self, budget: Budget) -> float:
        """Seconds for which nothing more is sent on a budget."""
        return max(0.0, self._gates[budget].closed_until - now())

    def close(self, budget: Budget, seconds: float) -> None:
        """Send nothing more on this budget for a while, and less for some time after.

        HubSpot has refused a request, so somebody else is using the budget too.
        """
        gate = self._gates[budget]
        gate.factor = max(_SLOWEST, gate.factor * _SLOWER)
        self._pause(gate, seconds)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Take the account's burst limit from an answer's headers, and a hint that it is near."""
        limit = headers.get("X-HubSpot-RateLimit-Max", "")
        gate = self._gates[Budget.BURST]
        if _LIMIT.fullmatch(limit) and int(limit) > _BUCKET:
            gate.limit = self.burst_limit = int(limit)
        if headers.get("X-HubSpot-RateLimit-Remaining") == "0":
            # Somebody else uses this token too; the next request would be refused.
            self._pause(gate, _FULL_PAUSE)

    def _pause(self, gate: _Gate, seconds: float) -> None:
        gate.closed_until = max(gate.closed_until, now() + seconds)
        gate.must_postpone = True

    def _spacing(self, budget: Budget) -> tuple[float, float]:
        """Return the seconds between slots, and for how long unused ones may be made up for.

        For the burst a few requests may go at once, and the rest so slowly that no ten seconds
        hold more than the limit. A search's second holds no more than its limit however they come.
        """
        gate = self._gates[budget]
        limit, bunching = gate.limit * self._share, _BUNCHING[budget]
        if budget is Budget.SEARCH:
            return (1 + bunching) / limit / gate.factor, 0.0
        interval = (BURST_SECONDS + bunching) / max(limit - _BUCKET, 1) / gate.factor
        return interval, (_BUCKET - 1) * interval
