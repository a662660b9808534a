"""Request budgets: the rolling ten seconds, the search second and the day, with their headers."""

from collections import deque
from typing import Final

from hubspot_sandbox.clock import Clock
from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.failures import (
    ApiError,
    burst_exceeded,
    daily_exceeded,
    search_exceeded,
)

_WINDOW_SECONDS: Final = 10.0
_DAY_SECONDS: Final = 86_400


class RollingWindow:
    """At most `limit` accepted requests in any ten seconds."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._accepted: deque[float] = deque()

    def admit(self, now: float) -> bool:
        """Take one place if there is one."""
        horizon = now - _WINDOW_SECONDS
        while self._accepted and self._accepted[0] <= horizon:
            self._accepted.popleft()
        # Doubtful: a rejected request is taken not to use the burst, only the day.
        if len(self._accepted) >= self.limit:
            return False
        self._accepted.append(now)
        return True

    @property
    def remaining(self) -> int:
        """Places left after the last admission."""
        return max(0, self.limit - len(self._accepted))

    def last_second(self, now: float) -> int:
        """Requests accepted in the last second."""
        count = 0
        for moment in reversed(self._accepted):
            if moment <= now - 1:
                break
            count += 1
        return count


class Budgets:
    """All budgets of one account: bursts per token; search and day shared by all tokens."""

    def __init__(self, config: SandboxConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._tier = config.budgets
        self.reset()

    def reset(self) -> None:
        """Forget everything spent."""
        self._bursts: dict[tuple[str, str], RollingWindow] = {}
        self._search_second = 0
        self._searches = 0
        self._day = 0
        self.daily_used = 0

    @property
    def daily_limit(self) -> int | None:
        """Requests a day, or None where HubSpot counts none."""
        return self._tier.daily

    def spend(self, token: str, family: str) -> tuple[bytes, ApiError | None]:
        """Count one request of a family (search, associations, ordinary).

        Returns the headers to send, and the refusal if a budget is used up.
        """
        if not self._config.limits:
            return b"", None
        now = self._clock.seconds()
        refusal = self._spend_day(now)
        if family == "search":
            return self._daily_headers(), refusal or self._spend_search(now)
        window = self._window(token, family)
        if refusal is None and not window.admit(now):
            refusal = burst_exceeded(self._config.portal_id)
        # Doubtful: recordings show no association calls; they are given the ordinary headers.
        return self._window_headers(window, now) + self._daily_headers(), refusal

    def _spend_day(self, now: float) -> ApiError | None:
        if self._tier.daily is None:
            return None
        day = int(now // _DAY_SECONDS)
        if day != self._day:
            self._day, self.daily_used = day, 0
        # Rejected requests count too: recordings lose exactly one per request, 429 included.
        self.daily_used += 1
        return daily_exceeded() if self.daily_used > self._tier.daily else None

    def _spend_search(self, now: float) -> ApiError | None:
        # Recordings show a hard clock second without burst credit.
        if int(now) != self._search_second:
            self._search_second, self._searches = int(now), 0
        if self._searches >= self._config.search_per_second:
            return search_exceeded()
        self._searches += 1
        return None

    def _window(self, token: str, family: str) -> RollingWindow:
        key = (token, family)
        window = self._bursts.get(key)
        if window is None:
            # Doubtful: HubSpot's specification exempts association reads from the ten seconds,
            # its guide lists a burst of their own; the sandbox gives them their own.
            is_association = family == "associations"
            limit = self._tier.associations_burst if is_association else self._tier.burst
            window = self._bursts[key] = RollingWindow(limit)
        return window

    @staticmethod
    def _window_headers(window: RollingWindow, now: float) -> bytes:
        secondly = window.limit // 10
        return (
            b"X-HubSpot-RateLimit-Max: %d\r\nX-HubSpot-RateLimit-Remaining: %d\r\n"
            b"X-HubSpot-RateLimit-Interval-Milliseconds: 10000\r\n"
            b"X-HubSpot-RateLimit-Secondly: %d\r\nX-HubSpot-RateLimit-Secondly-Remaining: %d\r\n"
        ) % (
            window.limit,
            window.remaining,
            secondly,
            max(0, secondly - window.last_second(now)),
        )

    def _daily_headers(self) -> bytes:
        if self._tier.daily is None or self._tier.is_oauth:
            return b""
        return b"X-HubSpot-RateLimit-Daily: %d\r\nX-HubSpot-RateLimit-Daily-Remaining: %d\r\n" % (
            self._tier.daily,
            max(0, self._tier.daily - self.daily_used),
        )
