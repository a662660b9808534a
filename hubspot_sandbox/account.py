"""The deals of an account as numpy columns, made from the seed alone."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.names import (
    BROKEN,
    CLEARED,
    DAY_MS,
    LONGEST_DEAL_DAYS,
    NOTHING,
    amount_pool,
    close_code,
    name_pool,
)
from hubspot_sandbox.profiles import PROFILES

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint16]

LIVE: Final = 0
ARCHIVED: Final = 1
GONE: Final = 2

_MERGED_SHARE: Final = 0.002
_SMALLEST_WITH_MERGES: Final = 100
_MOVED_SHARE: Final = 0.003
_BIN_DAYS: Final = 90
_MEAN_TOUCH_MS: Final = 20 * DAY_MS
# Share of the deals, first id, largest sensible mean gap: ids of 9, 10 and 11 digits, so that
# an extractor that orders ids as text is found out.
_ID_RANGES: Final = (
    (0.2, 712_004_318, 1_300),
    (0.4, 1_906_550_127, 9_000),
    (0.4, 13_480_771_902, 60_000),
)


@dataclass(slots=True)
class Account:
    """One row per deal ever made, by ascending id."""

    ids: Ints
    born_ms: Ints
    created_ms: Ints
    modified_ms: Ints
    archived_ms: Ints
    state: npt.NDArray[np.uint8]
    profile: Codes
    name: Codes
    amount: Codes
    close: Codes
    # Row that lost a merge -> row that won it.
    merges: dict[int, int]

    @property
    def size(self) -> int:
        """Rows, whatever their state."""
        return len(self.ids)


def build_account(config: SandboxConfig) -> Account:
    """Make the account: the same configuration gives the same deals."""
    live = config.deals
    archived = round(live * config.archived_share)
    merged = max(1, round(live * _MERGED_SHARE)) if live >= _SMALLEST_WITH_MERGES else 0
    total = live + archived + merged
    rng = np.random.default_rng(config.seed)
    born = np.sort(rng.integers(config.start_ms, max(config.start_ms + 1, config.end_ms), total))
    state = np.zeros(total, dtype=np.uint8)
    order = rng.permutation(total)
    state[order[:archived]] = ARCHIVED
    losers = order[archived : archived + merged]
    state[losers] = GONE
    winners = rng.choice(np.flatnonzero(state == LIVE), merged, replace=False) if merged else losers
    account = Account(
        ids=_ids(total, rng),
        born_ms=born,
        created_ms=born.copy(),
        modified_ms=_modified(born, config, rng),
        archived_ms=np.zeros(total, dtype=np.int64),
        state=state,
        profile=rng.integers(0, PROFILES, total, dtype=np.uint16),
        name=rng.integers(1, len(name_pool()), total, dtype=np.uint16),
        amount=_amounts(total, config, rng),
        close=_close_dates(born, config, rng),
        merges=dict(zip(losers.tolist(), winners.tolist(), strict=True)),
    )
    _move_some_creations(account, config, rng)
    _share_one_timestamp(account, config)
    _archive(account, config, rng)
    return account


def _ids(total: int, rng: np.random.Generator) -> Ints:
    """Ascending ids with uneven gaps, runs without any, and jumps between lengths."""
    pieces: list[Ints] = []
    left = total
    for place, (share, first, widest) in enumerate(_ID_RANGES):
        count = left if place == len(_ID_RANGES) - 1 else min(left, round(total * share))
        left -= count
        # Heavy-tailed, so that equal cuts of the id space hold very unequal numbers of deals.
        gaps = np.exp(rng.normal(0.0, 1.7, count))
        gaps = 1 + np.minimum(gaps * (widest / 8), widest * 3.0).astype(np.int64)
        gaps[rng.random(count) < 0.15] = 1  # noqa: PLR2004
        pieces.append(first + np.cumsum(gaps))
    return np.concatenate(pieces).astype(np.int64)


def _modified(born: Ints, config: SandboxConfig, rng: np.random.Generator) -> Ints:
    touch = rng.exponential(_MEAN_TOUCH_MS, len(born)).astype(np.int64)
    return np.asarray(np.minimum(born + touch, np.maximum(born, config.end_ms - 1)), dtype=np.int64)


def _amounts(total: int, config: SandboxConfig, rng: np.random.Generator) -> Codes:
    codes = rng.integers(BROKEN + 1, len(amount_pool()), total, dtype=np.uint16)
    chance = rng.random(total)
    codes[chance < 0.06] = NOTHING  # noqa: PLR2004
    codes[chance > 0.99] = CLEARED  # noqa: PLR2004
    if not config.clean_values:
        codes[(chance > 0.5) & (chance < 0.5005)] = BROKEN  # noqa: PLR2004
    return codes


def _close_dates(born: Ints, config: SandboxConfig, rng: np.random.Generator) -> Codes:
    days = (born - config.start_ms) // DAY_MS + rng.integers(5, LONGEST_DEAL_DAYS, len(born))
    codes = (close_code(0) + days).astype(np.uint16)
    chance = rng.random(len(born))
    codes[chance < 0.08] = NOTHING  # noqa: PLR2004
    codes[chance > 0.99] = CLEARED  # noqa: PLR2004
    if not config.clean_values:
        codes[(chance > 0.5) & (chance < 0.5005)] = BROKEN  # noqa: PLR2004
    return codes


def _move_some_creations(account: Account, config: SandboxConfig, rng: np.random.Generator) -> None:
    """Backdate a few: createdate is editable, so ids do not follow it."""
    moved = np.flatnonzero(rng.random(account.size) < _MOVED_SHARE)
    share = rng.random(len(moved))
    span = account.born_ms[moved] - config.start_ms
    account.created_ms[moved] = config.start_ms + (span * share).astype(np.int64)


def _share_one_timestamp(account: Account, config: SandboxConfig) -> None:
    """Let K deals in the middle share the millisecond of creation and of last change."""
    if not config.same_timestamp:
        return
    live = np.flatnonzero(account.state == LIVE)
    first = max(0, (len(live) - config.same_timestamp) // 2)
    rows = live[first : first + config.same_timestamp]
    moment = int(account.born_ms[rows[0]]) if len(rows) else 0
    account.created_ms[rows] = moment
    account.modified_ms[rows] = moment


def _archive(account: Account, config: SandboxConfig, rng: np.random.Generator) -> None:
    """Archive within the last ninety days, and always after the last change."""
    rows = np.flatnonzero(account.state == ARCHIVED)
    age = rng.integers(0, _BIN_DAYS * DAY_MS, len(rows))
    earliest = account.modified_ms[rows] + 1 + rng.integers(0, DAY_MS, len(rows))
    account.archived_ms[rows] = np.maximum(earliest, config.end_ms - age)
