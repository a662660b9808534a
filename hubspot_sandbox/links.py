"""Which contacts, companies and line items a deal has: computed from its id until changed."""

from collections.abc import Iterable
from typing import Final

_CROWDED_ONE_IN: Final = 97
_MASK: Final = 0xFFFFFFFFFFFFFFFF
_FIRST_IDS: Final = {"0-1": 286_101, "0-2": 7_945_028, "0-8": 91_000_417}


class Links:
    """The associated records of every deal. Changing them is no change of the deal."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._changed: dict[tuple[int, str], list[int]] = {}

    def of(self, deal: int, target: str) -> list[int]:
        """Ids of one type of records, ascending."""
        changed = self._changed.get((deal, target))
        return target_ids(self._seed, deal, target) if changed is None else changed

    def put(self, deal: int, target: str, ids: Iterable[int]) -> None:
        """Let a deal have these records of one type and no others."""
        self._changed[deal, target] = sorted(set(ids))


def target_ids(seed: int, deal: int, target: str) -> list[int]:
    """Ids of the associated records, ascending; more than a page for one deal in a hundred."""
    first = _FIRST_IDS[target]
    noise = _mix(deal * 31 + seed + first)
    count = {"0-1": noise % 4, "0-2": noise % 2, "0-8": noise % 3}[target]
    if target == "0-1" and noise % _CROWDED_ONE_IN == 0:
        count = 130 + noise % 120
    start = first + noise % 1_000_000
    return [start + step * (1 + noise % 7) for step in range(count)]


def _mix(number: int) -> int:
    """SplitMix64: neighbouring ids get unrelated neighbours."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)
