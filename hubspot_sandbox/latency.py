"""How long HubSpot takes to answer."""

from typing import Final

import numpy as np

# The one known pair of ranges is 150-400 ms for lists and 200-600 ms for searches; both are
# estimates. Doubtful: everything about latency.
_SEARCH_LOW: Final = 200 / 150
_SEARCH_HIGH: Final = 600 / 400


class Latency:
    """Draws a delay per request, longer for searches."""

    def __init__(self, range_ms: tuple[float, float]) -> None:
        self._low, self._high = (bound / 1000 for bound in range_ms)
        self._rng = np.random.default_rng()

    def seconds(self, family: str) -> float:
        """The delay of one request."""
        if not self._high:
            return 0.0
        low, high = self._low, self._high
        if family == "search":
            low, high = low * _SEARCH_LOW, high * _SEARCH_HIGH
        return float(self._rng.uniform(low, high))
