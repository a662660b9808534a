"""The part of a range that is still to be read, cut into shards of ascending deal ids.

What no shard holds has been read. Nothing here asks HubSpot anything.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

_UNKNOWN_END: Final = 4
"""How many times its first id an account is taken to reach, until its newest id is known."""
_SPARED: Final = 4
_FACTS: Final = ("listed", "read", "count", "searched", "since")


@dataclass(frozen=True, slots=True)
class Proof:
    """What a search must have shown before the ids above `start` and up to `top` count as read.

    `count` is what the search counted there, `read` what it has shown so far.
    """

    start: int
    top: int | None
    read: int
    count: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Deals with ids above `reached` and up to `upper`; None is the end of the account.

    With a proof it is read by search, without one by whoever takes it.
    """

    reached: int
    upper: int | None = None
    proof: Proof | None = None

    def to_json(self) -> list[int | None]:
        """Return the bounds, and what a proof adds to them."""
        proof = self.proof
        found = [proof.start, proof.top, proof.read, proof.count] if proof else []
        return [self.reached, self.upper, *found]

    @classmethod
    def from_json(cls, stored: list[Any]) -> "Shard":
        """Read back what `to_json` wrote."""
        reached, upper, *proof = stored
        return cls(reached, upper, Proof(*proof) if proof else None)


@dataclass(frozen=True, slots=True)
class Frontier:
    """Everything of a range that is still to be read, in a form that a chunk can record.

    `listed` tells that the search was given up for the list. `read` are the deals that searches
    have shown and proved so far, `count` how many the range had at the start. `searched` is the
    highest id that was read by search beside the list, `since` the epoch millisecond of the start.
    """

    shards: tuple[Shard, ...]
    listed: bool = False
    read: int = 0
    count: int | None = None
    searched: int = 0
    since: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it for a committed chunk."""
        found = {name: getattr(self, name) for name in _FACTS}
        return {"shards": [shard.to_json() for shard in self.shards], **found}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Frontier":
        """Read back what `to_json` wrote."""
        shards = tuple(Shard.from_json(shard) for shard in stored["shards"])
        return cls(shards, **{name: stored[name] for name in _FACTS})


@dataclass(slots=True)
class _Outlook:
    """What was learned about the rest of a shard.

    `gap` is from one id to the next on its last page, `left` how many deals a search has counted.
    `cut` is the part of it that a split leaves; ids come in clusters, so halves may be empty. While
    that is not known of the half with the key `unknown`, none is split off again.
    """

    parent: int | None
    gap: float | None = None
    left: int | None = None
    cut: int = 2
    unknown: int | None = None


class ShardLedger:
    """The shards of one reading: who works on which, and how much each may still hold.

    Every change is made between two awaits, so that the frontier is right at any moment.
    """

    def __init__(self, frontier: Frontier) -> None:
        self._frontier = frontier
        self.read = frontier.read
        self.count = frontier.count
        self.searched = frontier.searched
        self.since = frontier.since
        self.newest: int | None = None
        """The highest id of the account, as soon as it is known."""
        self.shards: dict[int, Shard] = {}
        self._outlooks: dict[int, _Outlook] = {}
        self._held: set[int] = set()
        self._fixed: set[int] = set()
        self._last_key = 0
        self._changed = asyncio.Event()
        for shard in frontier.shards:
            self.add(shard)

    def frontier(self) -> Frontier:
        """Return what is still to be read now."""
        shards = tuple(self.shards.values())
        return replace(self._frontier, shards=shards, read=self.read, searched=self.searched)

    def add(self, shard: Shard, *, held: bool = False, parent: int | None = None) -> int:
        """Add a shard, and return the key it is known by. `parent` is what it was split off."""
        self._last_key += 1
        self.shards[self._last_key] = shard
        self._outlooks[self._last_key] = _Outlook(parent)
        if held:
            self._held.add(self._last_key)
        self.wake()
        return self._last_key

    def move(self, key: int, reached: int, *, gap: float, read: int) -> None:
        """Note that so many deals are read, up to an id; `gap` is from one id to the next there."""
        self.shards[key] = replace(self.shards[key], reached=reached)
        outlook = self._outlooks[key]
        outlook.gap = max(1.0, gap)
        if outlook.left is not None:
            outlook.left = max(0, outlook.left - read)
        self.wake()

    def found(self, key: int, *, deals: bool) -> None:
        """Note whether the first request of a shard found deals in it: if not, cut lower next."""
        parent = self._outlooks.get(self._outlooks[key].parent or 0)
        if parent is not None and parent.unknown == key:
            parent.cut = 2 if deals else parent.cut * 4
            parent.unknown = None
            self.wake()

    def replace(self, key: int, shard: Shard) -> None:
        """Let a shard be another one."""
        self.shards[key] = shard
        self.wake()

    def close(self, key: int) -> None:
        """Take a shard as read."""
        self.found(key, deals=True)
        del self.shards[key], self._outlooks[key]
        self._held.discard(key)
        self._fixed.discard(key)
        self.wake()

    def release(self, key: int) -> None:
        """Leave a shard to whoever takes it next."""
        self._held.discard(key)
        self.wake()

    def fix(self, key: int, *, fixed: bool) -> None:
        """Keep the end of a shard where it is for a while."""
        (self._fixed.add if fixed else self._fixed.discard)(key)
        self.wake()

    def is_fixed(self, key: int) -> bool:
        """Tell whether the end of a shard has to stay where it is for now."""
        return key in self._fixed

    def take(self, wanted: Callable[[int, Shard], bool]) -> int | None:
        """Take the first shard that nobody works on."""
        for key, shard in self.shards.items():
            if key not in self._held and wanted(key, shard):
                self._held.add(key)
                return key
        return None

    def largest(self, *, least: int, spared: int | None = None) -> int | None:
        """Return the shard that has most left, if that is so much and it may be cut.

        The `spared` one has to have much more left than others, and may be cut at any time.
        """
        able = [
            key
            for key, shard in self.shards.items()
            if shard.proof is None
            and (key not in self._fixed or key == spared)
            and self._outlooks[key].unknown is None
        ]
        key = max(
            able,
            key=lambda key: self.estimate(key) / (_SPARED if key == spared else 1),
            default=None,
        )
        return None if key is None or self.estimate(key) < least else key

    def halve(self, key: int) -> int | None:
        """Take the upper part of a shard, blindly: nobody knows yet whether it has deals."""
        shard = self.shards[key]
        middle = shard.reached + (self._end(shard) - shard.reached) // self._outlooks[key].cut
        if middle <= shard.reached:
            return None
        half, outlook = self.cut(key, middle), self._outlooks[key]
        outlook.unknown = half
        if outlook.left is not None:
            outlook.left //= 2
        return half

    def cut(self, key: int, middle: int) -> int:
        """Take the part of a shard above an id."""
        shard = self.shards[key]
        self.shards[key] = replace(shard, upper=middle)
        return self.add(Shard(middle, shard.upper), held=True, parent=key)

    def end_before(self, key: int, upper: int) -> None:
        """Leave the part of a shard above an id to whoever takes it next."""
        shard = self.shards[key]
        self.shards[key] = replace(shard, upper=upper)
        self.add(Shard(upper, shard.upper))

    def learn(self, key: int, *, left: int) -> None:
        """Note how many deals a shard has left."""
        self._outlooks[key].left = left

    def estimate(self, key: int) -> float:
        """Tell or guess, from the ids on its last page, how many deals a shard has left.

        0 before it has one.
        """
        outlook, shard = self._outlooks[key], self.shards[key]
        if outlook.left is not None:
            return outlook.left
        gap = outlook.gap
        return max(0.0, (self._end(shard) - shard.reached) / gap) if gap else 0.0

    async def change(self) -> None:
        """Wait until any shard has changed."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        """Let everybody who waits for a change look again."""
        self._changed.set()

    def _end(self, shard: Shard) -> int:
        if shard.upper is not None:
            return shard.upper
        return self.newest if self.newest is not None else shard.reached * _UNKNOWN_END


async def work_together(workers: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait until all workers are done; the first failure ends the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
