"""When a process that ended is started again: soon, then after growing pauses, and not for ever."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_FIRST_PAUSE_SECONDS: Final = 0.2
_GROWTH: Final = 2.0
MOST_ENDS: Final = 8
WITHIN_SECONDS: Final = 60.0


@dataclass(slots=True)
class Restarts:
    """How often each process has ended lately."""

    clock: Callable[[], float] = time.monotonic
    first_pause: float = _FIRST_PAUSE_SECONDS
    _ends: dict[str, list[float]] = field(default_factory=dict)

    def note_end(self, name: str) -> float | None:
        """Return how long to wait before the next start, None when there should be none.

        A process that ends again and again has a reason that another start does not change.
        """
        now = self.clock()
        ends = [at for at in self._ends.get(name, []) if now - at < WITHIN_SECONDS] + [now]
        self._ends[name] = ends
        if len(ends) >= MOST_ENDS:
            return None
        return self.first_pause * _GROWTH ** (len(ends) - 1)
