"""What the processes agree on: names, a scan's configuration, and how facts become a status.

The REST facade, the Dagster code location, the command line and the tests import this module;
it imports no framework, so that none of them drags another one's dependencies in.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any, Final

SERVICE_NAME: Final = "hubspot_deals_extraction"
SOURCE_NAME: Final = "hubspot_deals"
DATASET_NAME: Final = "hubspot_deals_extraction"

CODE_LOCATION: Final = "hubspot_deals"
JOB_NAME: Final = "scan_deals"
SCANS_PARTITIONS: Final = "scans"

SCAN_ID_TAG: Final = "hubspot_deals/scan_id"
ORGANIZATION_TAG: Final = "hubspot_deals/organization_id"
ACCOUNT_TAG: Final = "hubspot_deals/account"
"""Stands for the access token, without revealing it, so that runs can be limited per account."""
LAUNCH_EPOCH_TAG: Final = "hubspot_deals/launch_epoch"
"""The scan's epoch when its run was asked for: a run whose scan has moved on is superseded."""

REQUEST_ID_TAG: Final = "hubspot_deals/request_id"
"""The API request that the run goes back to: it is on the log lines of both."""
TRACE_PARENT_TAG: Final = "hubspot_deals/traceparent"
"""The trace that the run is part of, as W3C's `traceparent`; only where traces are collected."""

TABLE_NAMES: Final = ("users", "deals", "pipelines", "pipeline_stages", "deal_properties")
DEFAULT_TABLE: Final = "users"

SCAN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)
"""The form of a scan id; always used with `fullmatch`, which takes no line break at the end."""

SCAN_TYPES: Final = ("user",)
DEALS_TYPE: Final = "deals"
"""Another name for the same thing, in the words of the family's other interface."""
DATE_FIELDS: Final = ("createdate", "closedate", "hs_lastmodifieddate")
"""Deal properties that `filters.dateRange.field` may name; the first one is the default."""

ALL_PROPERTIES: Final = "*"
"""As the only entry of `filters.properties`: every property that the account defines."""


class ScanStatus(StrEnum):
    """What a caller is told about a scan."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    RESUMING = "resuming"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"


class AccessLevel(StrEnum):
    """What a caller may do; each level includes those before it."""

    READ = "read"
    RUN = "run"
    ADMIN = "admin"

    def includes(self, other: "AccessLevel") -> bool:
        """Tell whether who may do this may do the other."""
        order = list(AccessLevel)
        return order.index(self) >= order.index(other)


class Outcome(StrEnum):
    """How a scan ended. Once recorded, only a run started by hand in Dagster changes it."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class LaunchReason(StrEnum):
    """Why a run of a scan was launched."""

    START = "start"
    RESUME = "resume"
    CRASH = "crash"
    QUOTA = "quota"
    RERUN = "rerun"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """The recorded facts that a status is derived from."""

    outcome: Outcome | None
    is_paused: bool
    """Somebody, or HubSpot's daily limit, wants it to rest."""
    is_held: bool
    """A live worker holds the lease of the scan's current epoch."""
    is_resuming: bool
    """It is to go on, and no worker has taken it up since."""
    has_started: bool
    will_resume: bool
    """Whether a sensor resumes it when its worker is gone."""


def derive_status(facts: ScanFacts) -> ScanStatus:
    """Return the one status that the facts allow. Total and pure: no clock, no memory.

    `crashed` is the word for a scan that needs somebody: one whose worker is gone and that goes on
    by itself is `resuming`.
    """
    if facts.outcome is not None:
        return ScanStatus(facts.outcome.value)
    if facts.is_paused:
        return ScanStatus.PAUSED
    if facts.is_held:
        return ScanStatus.RUNNING
    if facts.is_resuming:
        return ScanStatus.RESUMING
    if facts.has_started:
        return ScanStatus.RESUMING if facts.will_resume else ScanStatus.CRASHED
    return ScanStatus.PENDING


@dataclass(frozen=True, slots=True)
class DateRange:
    """Whole UTC days, both ends included, on one date property."""

    start: date | None = None
    end: date | None = None
    field: str = DATE_FIELDS[0]

    @property
    def first_millisecond(self) -> int | None:
        """The first epoch millisecond inside the range, or None when it is open."""
        if self.start is None:
            return None
        return _epoch_ms(datetime.combine(self.start, time.min, UTC))

    @property
    def last_millisecond(self) -> int | None:
        """The last epoch millisecond inside the range, or None when it is open."""
        if self.end is None:
            return None
        return _epoch_ms(datetime.combine(self.end, time.min, UTC) + timedelta(days=1)) - 1


@dataclass(frozen=True, slots=True)
class ScanFilters:
    """Which deals a scan reads, and which of their properties.

    `properties` None means the standard deal properties, `("*",)` all that the account defines.
    """

    properties: tuple[str, ...] | None = None
    include_archived: bool = False
    date_range: DateRange | None = None


@dataclass(frozen=True, slots=True)
class ScanConfig:
    """What a caller asked for, without the credential."""

    scan_id: str
    organization_id: str
    scan_type: str = SCAN_TYPES[0]
    filters: ScanFilters = field(default_factory=ScanFilters)

    def to_json(self) -> dict[str, Any]:
        """Return the configuration in the spelling of the REST documents."""
        filters: dict[str, Any] = {"includeArchived": self.filters.include_archived}
        if self.filters.properties is not None:
            filters["properties"] = list(self.filters.properties)
        if (span := self.filters.date_range) is not None:
            filters["dateRange"] = {
                "startDate": span.start.isoformat() if span.start else None,
                "endDate": span.end.isoformat() if span.end else None,
                "field": span.field,
            }
        return {
            "scanId": self.scan_id,
            "organizationId": self.organization_id,
            "type": [self.scan_type],
            "filters": filters,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "ScanConfig":
        """Read back what `to_json` wrote."""
        filters = stored["filters"]
        span = filters.get("dateRange")
        return cls(
            scan_id=stored["scanId"],
            organization_id=stored["organizationId"],
            scan_type=stored["type"][0],
            filters=ScanFilters(
                properties=tuple(filters["properties"]) if "properties" in filters else None,
                include_archived=filters["includeArchived"],
                date_range=None
                if span is None
                else DateRange(
                    start=date.fromisoformat(span["startDate"]) if span["startDate"] else None,
                    end=date.fromisoformat(span["endDate"]) if span["endDate"] else None,
                    field=span["field"],
                ),
            ),
        )


def _epoch_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
