"""What was asked of the sandbox: counts, highest rates, and the last requests without tokens."""

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any, Final

_KEPT: Final = 2_000
_SPANS: Final = {"max_in_1s": 1.0, "max_in_10s": 10.0}


@dataclass(frozen=True, slots=True)
class Entry:
    """One request; never its token, and of its query only the length."""

    at: float
    kind: str
    method: str
    path: str
    query_length: int
    status: int
    token_number: int


class _Peak:
    """The most requests ever seen within a span of seconds."""

    def __init__(self, span: float) -> None:
        self._span = span
        self._moments: deque[float] = deque()
        self.highest = 0

    def note(self, now: float) -> None:
        self._moments.append(now)
        while self._moments[0] <= now - self._span:
            self._moments.popleft()
        self.highest = max(self.highest, len(self._moments))


class RequestLog:
    """Counts every request outside the control endpoint."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start from nothing."""
        self._entries: deque[Entry] = deque(maxlen=_KEPT)
        self._counts: Counter[tuple[str, int]] = Counter()
        self._peaks: dict[tuple[str, str], _Peak] = {}
        self._tokens: dict[str, int] = {}
        self._bytes = 0

    def number_of(self, token: str) -> int:
        """A small number that stands for a token in the log."""
        return self._tokens.setdefault(token, len(self._tokens) + 1)

    def note(self, entry: Entry, family: str, size: int) -> None:
        """Count one answered request."""
        self._entries.append(entry)
        self._counts[entry.kind, entry.status] += 1
        self._bytes += size
        for name, span in _SPANS.items():
            peak = self._peaks.get((family, name))
            if peak is None:
                peak = self._peaks[family, name] = _Peak(span)
            peak.note(entry.at)

    def state(self, last: int) -> dict[str, Any]:
        """Everything, with the last few requests."""
        kinds: dict[str, dict[str, int]] = {}
        for (kind, status), count in sorted(self._counts.items()):
            kinds.setdefault(kind, {})[str(status)] = count
        rates: dict[str, dict[str, int]] = {}
        for (family, name), peak in sorted(self._peaks.items()):
            rates.setdefault(family, {})[name] = peak.highest
        entries = list(self._entries)[-last:] if last else []
        return {
            "total": self._counts.total(),
            "bytes": self._bytes,
            "by_kind": kinds,
            "rates": rates,
            "tokens": len(self._tokens),
            "last": [asdict(entry) for entry in entries],
        }
