"""What one run of a connection did."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from hubspot_deals.sync_contract import SyncKind
from hubspot_deals.tables import DEALS_CURRENT
from hubspot_deals.warehouse.syncs.merging import Merged
from hubspot_deals.warehouse.syncs.staging import MergeCounts


@dataclass(slots=True)
class SyncReport:
    """What one run did: for its metadata and its row.

    `read_until` is the moment of HubSpot's clock up to which changes are in the tables; without
    `is_proved` the next run reads them again. `counts` are by table, `tombstones` new ones by
    reason. `unlocated` deals vanished or appeared without having been found yet. `refreshed` deals
    were read although they showed no change, with `refresh_requests` of the `requests`.
    """

    kind: SyncKind
    read_until: datetime | None = None
    is_proved: bool = False
    counts: dict[str, MergeCounts] = field(default_factory=dict)
    tombstones: Counter[str] = field(default_factory=Counter)
    unlocated: int = 0
    refreshed: int = 0
    refresh_requests: int = 0
    requests: int = 0
    retries: int = 0
    throttled_seconds: float = 0.0
    seconds: float = 0.0
    portal_id: int | None = None
    unfit_values: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def deals(self) -> int:
        """How many deals were read and merged, whether they had changed or not."""
        return self.counts.get(DEALS_CURRENT.name, MergeCounts()).rows

    def add(self, merged: Merged) -> None:
        """Count what a transaction has done."""
        self.add_counts(merged.counts)
        self.tombstones += merged.buried

    def add_counts(self, counts: dict[str, MergeCounts]) -> None:
        """Count what was done to some tables."""
        for name, more in counts.items():
            self.counts[name] = self.counts.get(name, MergeCounts()) + more

    def to_json(self) -> dict[str, Any]:
        """Return what callers see of it, in the spelling of the REST documents."""
        return {
            "kind": self.kind.value,
            "readUntil": self.read_until.isoformat() if self.read_until else None,
            "isProved": self.is_proved,
            "tables": {name: asdict(counts) for name, counts in sorted(self.counts.items())},
            "tombstones": dict(self.tombstones),
            "unlocated": self.unlocated,
            "refreshed": self.refreshed,
            "refreshRequests": self.refresh_requests,
            "requests": self.requests,
            "retries": self.retries,
            "throttledSeconds": round(self.throttled_seconds, 3),
            "seconds": round(self.seconds, 3),
            "portalId": self.portal_id,
            "unfitValues": dict(self.unfit_values),
            "notes": self.notes,
        }
