"""Decides what a connection needs next. It asks nobody: what is known is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import dagster as dg

from hubspot_deals.warehouse.syncs.launches import Standing

SCHEDULE_GRACE: Final = timedelta(seconds=90)
"""A partition that has just ended is its schedule's; afterwards it counts as missed."""
FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(hours=1)
_MOST_DOUBLINGS: Final = 10


@dataclass(frozen=True, slots=True)
class Launch:
    """A run to ask Dagster for: the whole partitions of a stretch, and why."""

    window: dg.TimeWindow
    why: str
    is_until_now: bool = False
    """Its partitions were synchronized before: it is wanted for what has happened since."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is to be launched, for this reason."""

    why: str


def decide(
    standing: Standing,
    complete: dg.TimeWindow,
    last: dg.TimeWindow,
    gaps: Sequence[dg.TimeWindow],
    now: datetime,
) -> Launch | Rest:
    """Return what a connection that has no run needs.

    `complete` is the stretch of all partitions that are over, `last` the last of them, and `gaps`
    are the stretches of partitions that no completed run was for, the oldest first.
    """
    if (obstacle := _obstacle(standing, now)) is not None:
        return Rest(obstacle)
    if not standing.is_loaded:
        return Launch(complete, "nothing was ever read")
    if standing.is_wanted:
        is_open = bool(gaps) and gaps[-1].end == last.end
        return Launch(gaps[-1] if is_open else last, "somebody wants it now", not is_open)
    if missed := _behind_schedule(gaps, last, now):
        return Launch(missed[-1], "these partitions were missed or have failed")
    return Rest("every partition that is over was synchronized")


def _obstacle(standing: Standing, now: datetime) -> str | None:
    """Say what speaks against launching anything; a wish overrides what failures have taught."""
    if not standing.is_enabled:
        return "it is paused"
    if not standing.failures or standing.is_wanted:
        return None
    pause = _pause(standing)
    if pause is None or now >= pause:
        return None
    return f"after {standing.failures} failures it is tried again at {pause:%H:%M:%S}"


def _behind_schedule(
    gaps: Sequence[dg.TimeWindow], last: dg.TimeWindow, now: datetime
) -> list[dg.TimeWindow]:
    """Leave the last partition out while its schedule may still launch it."""
    if not gaps or gaps[-1].end < last.end or now - last.end >= SCHEDULE_GRACE:
        return list(gaps)
    rest = dg.TimeWindow(gaps[-1].start, last.start)
    return [*gaps[:-1], rest] if rest.start < rest.end else list(gaps[:-1])


def _pause(standing: Standing) -> datetime | None:
    """Return the end of a pause that doubles with each failure in a row."""
    if standing.last_end is None:
        return None
    doublings = min(standing.failures - 1, _MOST_DOUBLINGS)
    return standing.last_end + min(FIRST_PAUSE * (1 << doublings), LONGEST_PAUSE)
