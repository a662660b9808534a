"""A simulated stretch of an account's life: a reproducible random mix of everything that happens.

Changes are made one after the other at their own times, so that the search index learns of each
as late as it would.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from hubspot_sandbox.account import ARCHIVED, LIVE, Ints
from hubspot_sandbox.endpoint import World
from hubspot_sandbox.names import DAY_MS
from hubspot_sandbox.pipelines import STAGES

BIN_DAYS: Final = 90
RATES: Final[Mapping[str, float]] = {
    "update": 60,
    "stage": 20,
    "create": 12,
    "associate": 6,
    "recalculate": 6,
    "archive": 4,
    "restore": 1.5,
    "merge": 1,
    "delete": 0.5,
    "bulk": 0.05,
}
"""Events an hour, unless told otherwise."""
_LONGEST_BULK: Final = 300
_TRIES: Final = 50
_TARGETS: Final = ("0-1", "0-2", "0-8")
_MANY: Final = 250


class Life:
    """Lets one account live on. The same seed makes the same events of the same account."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._store = world.store
        self._rng = np.random.default_rng(seed)
        self._events: Mapping[str, Callable[[], bool]] = {
            "create": self._create,
            "update": self._update,
            "stage": self._move_stage,
            "bulk": self._update_many,
            "archive": self._archive,
            "restore": self._restore,
            "merge": self._merge,
            "delete": self._delete,
            "associate": self._associate,
            "recalculate": self._recalculate,
        }

    def go_on(self, seconds: float, rates: Mapping[str, float]) -> dict[str, int]:
        """Live on for so many seconds; return how often what has happened.

        `rates` are events an hour, by name. Ends with the clock at the end of the time.
        """
        unknown = set(rates) - set(self._events)
        if unknown:
            message = f"An account's life has no {sorted(unknown)}, only {sorted(self._events)}"
            raise ValueError(message)
        clock = self._world.clock
        start = clock.seconds()
        done = dict.fromkeys(rates, 0)
        for offset, name in self._schedule(seconds, rates):
            clock.move_to(start + offset)
            done[name] += self._events[name]()
        clock.move_to(start + seconds)
        purged = self._store.empty_bin(clock.ms() - BIN_DAYS * DAY_MS)
        return done | {"purged": len(purged)}

    def _schedule(self, seconds: float, rates: Mapping[str, float]) -> list[tuple[float, str]]:
        events = [
            (offset, name)
            for name, rate in sorted(rates.items())
            for offset in self._rng.uniform(
                0, seconds, self._rng.poisson(rate * seconds / 3_600)
            ).tolist()
        ]
        return sorted(events)

    # -- events: each tells whether there was a deal for it

    def _create(self) -> bool:
        self._store.create([self._values() | self._stage()], self._world.clock)
        return True

    def _update(self) -> bool:
        rows = self._live()
        if len(rows):
            self._store.update(rows, self._values(), self._world.clock.ms())
        return bool(len(rows))

    def _move_stage(self) -> bool:
        rows = self._live()
        if len(rows):
            self._store.update(rows, self._stage(), self._world.clock.ms())
        return bool(len(rows))

    def _update_many(self) -> bool:
        """An import or a workflow: many deals in one millisecond."""
        live = self._store.rows_in_state(LIVE)
        count = min(len(live), int(self._rng.integers(2, _LONGEST_BULK)))
        rows = np.sort(self._rng.choice(live, count, replace=False))
        if count:
            self._store.update(rows, self._values(), self._world.clock.ms())
        return bool(count)

    def _archive(self) -> bool:
        rows = self._live()
        if len(rows):
            self._store.archive(rows, self._world.clock.ms())
        return bool(len(rows))

    def _restore(self) -> bool:
        rows = self._any_of(ARCHIVED)
        if len(rows):
            self._store.restore(rows, self._world.clock.ms())
        return bool(len(rows))

    def _merge(self) -> bool:
        """One deal swallows one or two; it takes over what they were associated with."""
        rows = self._live(3)
        if len(rows) < 2:  # noqa: PLR2004
            return False
        winner, losers = int(rows[0]), rows[1 : 2 + int(self._rng.integers(2))]
        ids, links = self._world.account.ids, self._world.links
        for target in _TARGETS:
            joined = [one for row in (winner, *losers) for one in links.of(int(ids[row]), target)]
            links.put(int(ids[winner]), target, joined)
        self._store.merge(winner, losers, self._world.clock.ms())
        return True

    def _delete(self) -> bool:
        """For good, from the bin or past it."""
        rows = self._any_of(LIVE if self._rng.random() < 0.5 else ARCHIVED)  # noqa: PLR2004
        if len(rows):
            self._store.delete(rows)
        return bool(len(rows))

    def _associate(self) -> bool:
        """Moves no time of last change."""
        rows = self._live()
        if not len(rows):
            return False
        deal = int(self._world.account.ids[rows[0]])
        target = _TARGETS[int(self._rng.integers(len(_TARGETS)))]
        links = self._world.links
        kept = [one for one in links.of(deal, target) if self._rng.random() < 0.5]  # noqa: PLR2004
        count = _MANY if self._rng.random() < 0.05 else int(self._rng.integers(4))  # noqa: PLR2004
        links.put(deal, target, kept + self._rng.integers(1_000, 10**9, count).tolist())
        return True

    def _recalculate(self) -> bool:
        """Moves no time of last change."""
        rows = self._live()
        if len(rows):
            number = int(self._rng.integers(1_000))
            values = {"health_score": str(number), "num_associated_contacts": str(number % 7)}
            self._store.recalculate(rows, values)
        return bool(len(rows))

    # -- picks

    def _live(self, count: int = 1) -> Ints:
        """Some live deals; quick, because nearly all are."""
        state = self._world.account.state
        found: list[int] = []
        for row in self._rng.integers(0, max(1, len(state)), _TRIES if len(state) else 0).tolist():
            if state[row] == LIVE and row not in found:
                found.append(row)
            if len(found) == count:
                break
        return np.array(found, dtype=np.int64)

    def _any_of(self, state: int) -> Ints:
        rows = self._store.rows_in_state(state)
        return self._rng.choice(rows, 1) if len(rows) else rows

    def _values(self) -> dict[str, str | None]:
        number = int(self._rng.integers(1_000_000))
        owners = self._world.people.owner_ids
        values: dict[str, str | None] = {
            "dealname": f"Deal {number}",
            "amount": f"{number // 100}.{number % 100:02d}",
        }
        if owners and number % 3 == 0:
            values["hubspot_owner_id"] = owners[number % len(owners)]
        return values

    def _stage(self) -> dict[str, str | None]:
        return {"dealstage": tuple(STAGES)[int(self._rng.integers(len(STAGES)))]}
