"""The sandbox's own time: real time plus what a test has advanced it by."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

_EPOCH_DAY_SECONDS: Final = 86_400
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")


class Clock:
    """Wall clock that can be moved forward; budgets and the search index read time only here."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._offset = 0.0

    def seconds(self) -> float:
        """Epoch seconds."""
        return self._source() + self._offset

    def ms(self) -> int:
        """Epoch milliseconds."""
        return int(self.seconds() * 1000)

    def advance(self, seconds: float) -> None:
        """Jump forward."""
        self._offset += seconds

    def move_to(self, seconds: float) -> None:
        """Jump forward to an epoch second; a past one changes nothing."""
        self.advance(max(0.0, seconds - self.seconds()))

    def next_midnight(self) -> float:
        """When the daily budget starts again (the account's time zone is UTC)."""
        return (self.seconds() // _EPOCH_DAY_SECONDS + 1) * _EPOCH_DAY_SECONDS


def iso_ms(ms: int) -> str:
    """Render epoch milliseconds the way HubSpot prints datetimes."""
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def parse_ms(text: str) -> int | None:
    """Epoch milliseconds of an epoch-ms string, an ISO datetime or an ISO date; None if neither."""
    stripped = text.strip()
    if _WHOLE.fullmatch(stripped):
        return int(stripped)
    try:
        moment = datetime.fromisoformat(stripped)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    # Integer arithmetic: a float timestamp may round a millisecond down.
    delta = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * _EPOCH_DAY_SECONDS + delta.seconds) * 1000 + delta.microseconds // 1000
