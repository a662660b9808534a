"""What the processes agree on about connections and their syncs. It imports no framework."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, Final

CURRENT_SCHEMA: Final = "hubspot_deals_current"
ANALYSIS_SCHEMA: Final = "hubspot_deals_analysis"
SYNC_LOCATION: Final = "hubspot_deals_syncs"
"""A code location of its own: connections come and go, and the scans' one is not reloaded."""
CONNECTION_TAG: Final = "hubspot_deals/connection_id"
"""Runs of one connection take turns."""

OBJECTS: Final = ("owners", "pipelines", "stage_history", "associations")
"""What a sync keeps current beside the deals, if it is wanted."""
CONNECTION_ID_PATTERN: Final = r"[a-z][a-z0-9_]{0,62}"


class Cadence(StrEnum):
    """How long a partition is, and so how often a connection is synchronized."""

    HOURLY = "hourly"
    DAILY = "daily"


class SyncKind(StrEnum):
    """What a run of a connection did."""

    FIRST_LOAD = "first_load"
    CHANGES = "changes"
    BACKFILL = "backfill"
    RECONCILIATION = "reconciliation"


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
