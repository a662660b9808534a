"""Proves a scan before it is served: what HubSpot counts, what was read, and what is stored.

The numbers come from different places. HubSpot's count is its search's, which read nothing of a
full scan or at least was not the count that ended it; `read` is what the reader has seen;
`committed` and the hashes of chunks were written down before rows were loaded; the rest is counted
and hashed anew by PostgreSQL.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.recount import Agreement, KnownDeals, Recount
from hubspot_deals.tables import DEALS
from hubspot_deals.warehouse.audits import TableAudit
from hubspot_deals.warehouse.certificates import live_deals, reading_began
from hubspot_deals.warehouse.leases import Lease

_MARGIN: Final = timedelta(minutes=5)
"""What changed so long before reading began is not held against the scan: HubSpot's search lags
behind half a minute, and its clock is not the database's."""


@dataclass(frozen=True, slots=True)
class HubSpotCount:
    """What HubSpot counted when reading had ended, or why it did not."""

    deals: int | None
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a scan is completed with."""

    audits: Sequence[TableAudit]
    read: int
    recount: Recount
    began: datetime
    made_at: datetime

    @property
    def is_complete(self) -> bool:
        """Whether every row that was read is stored, and nothing says that deals are missing."""
        return self.recount.is_complete and all(audit.is_exact for audit in self.audits)

    def to_json(self) -> dict[str, Any]:
        """Return it in the spelling of the REST documents; moments in UTC."""
        return {
            "madeAt": _text(self.made_at),
            "readingBegan": _text(self.began),
            "complete": self.is_complete,
            "statements": list(self._statements()),
            "hubspot": self.recount.to_json(),
            "tables": [
                {
                    "name": audit.table_name,
                    "read": self.read if audit.table_name == DEALS.name else audit.committed,
                    "committed": audit.committed,
                    "stored": audit.stored,
                    "distinct": audit.distinct_rows,
                    "archived": audit.archived,
                    "keyHash": audit.key_hash,
                }
                for audit in self.audits
            ],
        }

    def _statements(self) -> Iterator[str]:
        recount, deals = self.recount, find_audit(self.audits)
        yield f"{self.read:,} deals were read, and {deals.stored:,} are stored, each once."
        counted = recount.counted
        match recount.status:
            case Agreement.EQUAL:
                yield f"HubSpot counts {counted:,} live deals, as many as are stored."
            case Agreement.NOT_COUNTED:
                yield f"HubSpot did not count its deals: {recount.note}"
            case _:
                yield f"HubSpot counts {counted:,} live deals, and {recount.stored:,} are stored."
        for why, (count, _) in recount.reasons.items():
            yield f"{count:,} deals: {why}."
        if recount.missing:
            yield f"{len(recount.missing):,} deals are missing."
        if recount.unexplained:
            way = "more" if recount.unexplained > 0 else "fewer"
            yield f"HubSpot counts {abs(recount.unexplained):,} {way} for no reason that was found."
            if recount.note:
                yield recount.note
        if deals.archived:
            yield (
                f"{deals.archived:,} archived deals were read from HubSpot's list of them, which "
                "was read to its end; HubSpot's search does not count them."
            )


def certify(
    lease: Lease,
    account: HubSpotAccount,
    audits: Sequence[TableAudit],
    read: int,
    hubspot: HubSpotCount,
) -> Certificate:
    """Compare HubSpot's count with what is stored, and find out why where they differ."""
    began = reading_began(lease)
    deals = find_audit(audits)
    live = deals.stored - deals.archived
    recount = Recount(live, hubspot.deals, note=hubspot.refusal)
    if hubspot.deals == live:
        recount.status = Agreement.EQUAL
    elif hubspot.deals is not None:
        since = began - _MARGIN
        stored, fresh = live_deals(lease, since)
        known = KnownDeals(stored, fresh, int(since.timestamp() * 1000))
        recount = account.explain_count(lease.config.filters.date_range, hubspot.deals, known)
    return Certificate(audits, read, recount, began, datetime.now(UTC))


def find_audit(audits: Sequence[TableAudit], name: str = DEALS.name) -> TableAudit:
    """Return the audit of one table."""
    return next(audit for audit in audits if audit.table_name == name)


def faults_of(audits: Sequence[TableAudit], read: int) -> list[str]:
    """Say what is stored otherwise than it was read; nothing if all is right."""
    faults = [str(audit) for audit in audits if not audit.is_exact]
    if (committed := find_audit(audits).committed) != read:
        faults.append(f"deals: {read} read, {committed} committed")
    return faults


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
