"""What the processes agree on about connections and their syncs. It imports no framework."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

CURRENT_SCHEMA: Final = "hubspot_deals_current"
ANALYSIS_SCHEMA: Final = "hubspot_deals_analysis"
SYNC_LOCATION: Final = "hubspot_deals_syncs"
"""A code location of its own: connections come and go, and the scans' one is not reloaded."""
CONNECTION_TAG: Final = "hubspot_deals/connection_id"
"""Runs of one connection take turns."""
UNTIL_NOW_TAG: Final = "hubspot_deals/until_now"
"""A run that brings a connection up to now although its partition was synchronized before."""

OBJECTS: Final = ("owners", "pipelines", "stage_history", "associations")
"""What a sync keeps current beside the deals, if it is wanted."""
START_DAYS: Final = 90
"""How long before its creation a connection's partitions begin, unless somebody says."""
CONNECTION_ID: Final = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
"""The form of a connection id; always used with `fullmatch`."""


class Cadence(StrEnum):
    """How long a partition is, and so how often a connection is synchronized."""

    HOURLY = "hourly"
    DAILY = "daily"

    @property
    def length(self) -> timedelta:
        """How long a partition is, clock changes aside."""
        return timedelta(hours=1) if self is Cadence.HOURLY else timedelta(days=1)

    @property
    def allowed_lag(self) -> timedelta:
        """How old deals may be: a sync may take a while, and one may fail and be tried again."""
        return 2 * self.length


class SyncKind(StrEnum):
    """What a run of a connection did."""

    FIRST_LOAD = "first_load"
    CHANGES = "changes"
    BACKFILL = "backfill"
    RECONCILIATION = "reconciliation"


class SyncOutcome(StrEnum):
    """How a run of a connection ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"


class ConnectionStatus(StrEnum):
    """Where a connection stands."""

    WAITING = "waiting"
    """It has never been read, and nobody reads it now."""
    LOADING = "loading"
    """It is being read for the first time."""
    CURRENT = "current"
    BEHIND = "behind"
    """What is kept is older than two partitions are long."""
    FAILING = "failing"
    """Its last run ended without completing."""
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """The recorded facts that a connection's status is derived from."""

    is_enabled: bool
    is_syncing: bool
    """A live worker is at it."""
    fresh_as_of: datetime | None
    last_outcome: SyncOutcome | None
    """Of the last run that ended otherwise than by being cancelled."""
    cadence: Cadence


def derive_connection_status(facts: ConnectionFacts, now: datetime) -> ConnectionStatus:
    """Return the one status that the facts allow at a moment. Total and pure.

    A first load that is tried again is `loading`, whatever became of the last try.
    """
    if not facts.is_enabled:
        return ConnectionStatus.PAUSED
    if facts.is_syncing and facts.fresh_as_of is None:
        return ConnectionStatus.LOADING
    if facts.last_outcome in {SyncOutcome.FAILED, SyncOutcome.CRASHED}:
        return ConnectionStatus.FAILING
    if facts.fresh_as_of is None:
        return ConnectionStatus.WAITING
    is_late = now - facts.fresh_as_of > facts.cadence.allowed_lag
    return ConnectionStatus.BEHIND if is_late else ConnectionStatus.CURRENT


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """How a connection is kept current.

    `properties` None means the standard deal properties, `("*",)` all that the account defines.
    `start_date` is the day of the first partition. Calculated values, associations and stage
    histories of deals that show no change are read anew every `refresh_hours`, and all ids are
    compared with HubSpot's list every `reconcile_hours`.
    """

    start_date: date
    cadence: Cadence = Cadence.HOURLY
    time_zone: str = "UTC"
    objects: tuple[str, ...] = OBJECTS
    properties: tuple[str, ...] | None = None
    refresh_hours: int = 24
    reconcile_hours: int = 168
    quota_share: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return the settings in the spelling of the REST interface."""
        return {
            "startDate": self.start_date.isoformat(),
            "cadence": self.cadence.value,
            "timeZone": self.time_zone,
            "objects": list(self.objects),
            "properties": None if self.properties is None else list(self.properties),
            "refreshHours": self.refresh_hours,
            "reconcileHours": self.reconcile_hours,
            "quotaShare": self.quota_share,
        }

    @classmethod
    def initial(cls, given: Mapping[str, Any], today: date) -> "SyncSettings":
        """Return the settings of a new connection: what is given, in that spelling, or defaults."""
        start = today - timedelta(days=START_DAYS)
        return cls.from_json({**cls(start_date=start).to_json(), **given})

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "SyncSettings":
        """Read back what `to_json` wrote."""
        properties = stored["properties"]
        return cls(
            start_date=date.fromisoformat(stored["startDate"]),
            cadence=Cadence(stored["cadence"]),
            time_zone=stored["timeZone"],
            objects=tuple(stored["objects"]),
            properties=None if properties is None else tuple(properties),
            refresh_hours=stored["refreshHours"],
            reconcile_hours=stored["reconcileHours"],
            quota_share=stored["quotaShare"],
        )


def sync_job_name(connection_id: str) -> str:
    """Return the name of the job that carries out a connection's syncs."""
    return f"sync_{connection_id}"
