"""When HubSpot is asked again, and when not until later: the one retry policy of the source.

A request is repeated until an answer is good, unless the next attempt would begin later than
`retry_time` after the first: pauses and waits for HubSpot's budgets count. So a request ends within
`retry_time` and the timeout of one attempt.
"""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from hubspot_deals.errors import (
    HubSpotBusyError,
    HubSpotDealsError,
    HubSpotRateLimitError,
    HubSpotUnavailableError,
)
from hubspot_deals.source.governor import Budget

REPEATED: Final[Mapping[int, float | None]] = {
    # Seconds to wait where HubSpot's answer names none; None is a pause that grows.
    408: None,
    423: 2.0,  # locked: "at least two seconds"
    477: 2.0,  # the account is being moved: up to a day, by Retry-After
    500: None,
    502: None,
    503: None,
    504: None,
    **dict.fromkeys(range(520, 527)),  # the network edge, as HTML
}
REFUSED: Final[Mapping[Budget, float]] = {Budget.SEARCH: 1.0, Budget.BURST: 2.0}
"""Seconds to wait after a 429, which seldom names any: a part of the window that was full."""
REJECTED: Final = frozenset({401, 530})
"""What a bad token gets from HubSpot, or from the network edge if it is malformed. Good tokens
were seen to get a 401 in mid-run, so one that worked before is tried once more."""

_SHORT_PAUSE, _LONG_PAUSE = 0.2, 20.0
_LONGEST_WAIT: Final = 86_400.0
"""The longest wait that HubSpot's documents speak of. Asking after that can do no harm."""
_WORTH_A_PAUSE: Final = 60.0
"""Seconds from which on a wait is left to a later run, even one that `retry_time` would allow."""
_SPREAD: Final = 60.0
"""Seconds over which scans begin again after a shared midnight."""


class RepeatableAnswer(Exception):  # noqa: N818 - never leaves the client
    """An answer that may be better next time.

    Attributes:
        what: The answer, fit to be shown.
        wait: Seconds until the next attempt; None for a pause that grows.
        asked: The wait that HubSpot asked for.
        refused: Whether it was the refusal of a budget.
        error: What to raise if the answer stays; None to decide that by the rest.
    """

    def __init__(
        self,
        what: str,
        *,
        wait: float | None = None,
        asked: float | None = None,
        refused: bool = False,
        error: HubSpotDealsError | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.wait = wait
        self.asked = asked
        self.refused = refused
        self.error = error


def attempts(retry_time: float, closed_for: Callable[[], float]) -> AsyncRetrying:
    """Return the attempts of one request; `closed_for` tells how long its budget stays closed."""

    def is_over(state: RetryCallState) -> bool:
        wait = max(state.upcoming_sleep, closed_for())
        return (state.seconds_since_start or 0.0) + wait >= retry_time

    return AsyncRetrying(
        retry=retry_if_exception_type(RepeatableAnswer), stop=is_over, wait=_pause, reraise=True
    )


def _pause(state: RetryCallState) -> float:
    """What the answer asked for, or else an exponential pause with full jitter."""
    answer = state.outcome.exception() if state.outcome else None
    if isinstance(answer, RepeatableAnswer) and answer.wait is not None:
        return answer.wait
    ceiling = min(_LONG_PAUSE, _SHORT_PAUSE * 2.0**state.attempt_number)
    return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - spreads retries, guards nothing


def final_error(
    request: str, budget: Budget, answer: RepeatableAnswer, *, seconds: float, retry_time: float
) -> HubSpotDealsError:
    """Return what to raise for an answer that stayed bad for some seconds."""
    if answer.error is not None:
        return answer.error
    free_at = None
    if answer.asked is not None and answer.asked > min(retry_time, _WORTH_A_PAUSE):
        free_at = datetime.now(UTC) + timedelta(seconds=answer.asked)
    if answer.refused:
        return HubSpotRateLimitError(request, budget.value, free_at, seconds=seconds)
    if free_at is not None:
        return HubSpotBusyError(request, answer.what, free_at)
    return HubSpotUnavailableError(request, answer.what, seconds)


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for, as a number or as a date (RFC 9110)."""
    value = headers.get("Retry-After", "")
    if value.isascii() and value.isdecimal():
        return min(float(value), _LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    # A date without a zone, or with `-0000`, is UTC.
    left = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(left, 0.0), _LONGEST_WAIT)


def day_is_over(headers: Mapping[str, str], zone: ZoneInfo | None) -> datetime:
    """Return the moment from which on the daily limit may be free again.

    The endpoint that names it is not asked: its requests count against the same limit.
    """
    if (asked := asked_wait(headers)) is not None:
        return datetime.now(UTC) + timedelta(seconds=asked)
    spread = timedelta(seconds=random.uniform(0, _SPREAD))  # noqa: S311 - guards nothing
    return next_reset(datetime.now(UTC), zone) + spread


def next_reset(now: datetime, zone: ZoneInfo | None) -> datetime:
    """Return the next midnight of an account as UTC.

    Where its time zone is not known that is the next full hour: midnight in some account. A
    midnight of our own choice might come before the account's own each day, and find it used up.
    """
    if zone is None:
        return now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    return datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone).astimezone(UTC)


def zone_of(name: Any) -> ZoneInfo | None:
    """Return the time zone that HubSpot calls by a name such as `US/Eastern`, if there is one."""
    try:
        return ZoneInfo(name) if isinstance(name, str) and name else None
    except (KeyError, ValueError, OSError):
        return None
