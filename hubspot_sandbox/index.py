"""The search index: a copy of what can be searched, some seconds behind the live account."""

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hubspot_sandbox.account import LIVE, Ints
from hubspot_sandbox.clock import Clock
from hubspot_sandbox.store import Properties, Store


@dataclass(frozen=True, slots=True)
class _Snapshot:
    due: float
    rows: Ints
    created_ms: Ints
    modified_ms: Ints
    listed: npt.NDArray[np.bool_]
    changes: list[Properties | None]


class SearchIndex:
    """What search matches on; results are then shown with live values."""

    def __init__(self, store: Store, clock: Clock, lag_seconds: float) -> None:
        account = store.account
        self.store = store
        self._clock = clock
        self._lag = lag_seconds
        self._pending: deque[_Snapshot] = deque()
        self.created_ms = account.created_ms.copy()
        self.modified_ms = account.modified_ms.copy()
        self.listed: npt.NDArray[np.bool_] = account.state == LIVE
        # By property, because a filter asks for one property of all changed rows.
        self.changes: dict[str, dict[int, str | None]] = {}
        self.version = 0
        for row, properties in store.overlay.items():
            self._lay(row, properties)
        store.observe(self._note)

    @property
    def size(self) -> int:
        """Rows in the index."""
        return len(self.listed)

    @property
    def pending(self) -> int:
        """Rows whose last change the index has not seen."""
        self.catch_up()
        return sum(len(snapshot.rows) for snapshot in self._pending)

    def catch_up(self) -> None:
        """Take over every change that is old enough."""
        now = self._clock.seconds()
        while self._pending and self._pending[0].due <= now:
            self._apply(self._pending.popleft())

    def _note(self, rows: Ints) -> None:
        account = self.store.account
        self._pending.append(
            _Snapshot(
                due=self._clock.seconds() + self._lag,
                rows=rows,
                created_ms=account.created_ms[rows],
                modified_ms=account.modified_ms[rows],
                listed=account.state[rows] == LIVE,
                changes=[self.store.overlay.get(row) for row in rows.tolist()],
            )
        )

    def _apply(self, snapshot: _Snapshot) -> None:
        self._grow(int(snapshot.rows.max(initial=-1)) + 1)
        self.created_ms[snapshot.rows] = snapshot.created_ms
        self.modified_ms[snapshot.rows] = snapshot.modified_ms
        self.listed[snapshot.rows] = snapshot.listed
        for row, properties in zip(snapshot.rows.tolist(), snapshot.changes, strict=True):
            if properties:
                self._lay(row, properties)
        self.version += 1

    def _grow(self, size: int) -> None:
        missing = size - self.size
        if missing > 0:
            zeros = np.zeros(missing, dtype=np.int64)
            self.created_ms = np.concatenate([self.created_ms, zeros])
            self.modified_ms = np.concatenate([self.modified_ms, zeros])
            self.listed = np.concatenate([self.listed, np.zeros(missing, dtype=np.bool_)])

    def _lay(self, row: int, properties: Properties) -> None:
        for name, value in properties.items():
            self.changes.setdefault(name, {})[row] = value
