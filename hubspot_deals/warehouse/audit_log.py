"""The audit log: what callers of the API changed and read, and what operators did to its keys."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final, Literal

from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row

from hubspot_deals.warehouse.owners import OwnedKind

AuditOutcome = Literal["begun", "done", "refused", "failed", "cut off"]

_DELETE_ROWS: Final = 20_000
"""At once, so that it takes a moment and is gone on with at the next tick."""

# Of what the API could not know without asking: whose the object is.
_INSERT: Final = """
    INSERT INTO hubspot_deals.audit_log
        (at, actor, action, organization_id, object_id, outcome, status, request_id)
    SELECT e.at, e.actor, e.action, coalesce(e.organization_id, s.organization_id,
        c.organization_id, w.organization_id), e.object_id, e.outcome, e.status, e.request_id
    FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
        %s::smallint[], %s::text[], %s::text[]) WITH ORDINALITY AS
        e(at, actor, action, organization_id, object_id, outcome, status, request_id, kind, place)
    LEFT JOIN hubspot_deals.scans s ON e.kind = 'scan' AND s.scan_id = e.object_id
    LEFT JOIN hubspot_deals.connections c
        ON e.kind = 'connection' AND c.connection_id = e.object_id
    LEFT JOIN hubspot_deals.webhooks w ON e.kind = 'webhook' AND w.webhook_id = e.object_id
    ORDER BY e.place RETURNING id
"""
_CLOSE: Final = """
    UPDATE hubspot_deals.audit_log SET outcome = %s, status = %s,
        organization_id = coalesce(%s, organization_id), object_id = coalesce(%s, object_id)
    WHERE id = %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One thing that somebody did."""

    at: datetime
    actor: str
    action: str
    organization_id: str | None = None
    object_id: str | None = None
    outcome: AuditOutcome = "begun"
    status: int | None = None
    request_id: str | None = None
    object_kind: OwnedKind | None = field(default=None, compare=False)
    """Where to look whose the object is; not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries are wanted; what is None does not matter."""

    actor: str | None = None
    action: str | None = None
    organization_id: str | None = None
    object_id: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def write_entries(connection: AsyncConnection[Any], entries: Sequence[AuditEntry]) -> None:
    """Write entries in their order, with one statement."""
    await connection.execute(_INSERT, _columns(entries))


async def begin_entry(connection: AsyncConnection[Any], entry: AuditEntry) -> int:
    """Write down that something is about to be changed; return the entry's number."""
    cursor = await connection.execute(_INSERT, _columns([entry]))
    ((number,),) = await cursor.fetchall()
    return int(number)


async def close_entry(connection: AsyncConnection[Any], number: int, entry: AuditEntry) -> None:
    """Write down how it ended, and what is known of it since."""
    values = (entry.outcome, entry.status, entry.organization_id, entry.object_id, number)
    await connection.execute(_CLOSE, values)


def write_operator_entry(connection: Connection[Any], action: str, object_id: str) -> None:
    """Write down what an operator did on the command line."""
    entry = AuditEntry(
        at=datetime.now(UTC),
        actor="operator",
        action=action,
        object_id=object_id,
        outcome="done",
    )
    connection.execute(_INSERT, _columns([entry]))


def find_entries(
    connection: Connection[Any], wanted: AuditFilter, *, limit: int
) -> list[AuditEntry]:
    """Return the newest entries that meet all conditions, newest first."""
    conditions = {
        "actor": "actor = %(actor)s",
        "action": "action = %(action)s",
        "organization_id": "organization_id = %(organization_id)s",
        "object_id": "object_id = %(object_id)s",
        "outcome": "outcome = %(outcome)s",
        "since": "at >= %(since)s",
        "until": "at < %(until)s",
    }
    values = {name: getattr(wanted, name) for name in conditions}
    chosen = [text for name, text in conditions.items() if values[name] is not None]
    names = ", ".join(one.name for one in fields(AuditEntry) if one.compare)
    cursor = connection.cursor(row_factory=class_row(AuditEntry))
    cursor.execute(
        f"SELECT {names} FROM hubspot_deals.audit_log"
        f" WHERE {' AND '.join(chosen) or 'true'} ORDER BY id DESC LIMIT %(limit)s",
        {**values, "limit": limit},
    )
    return cursor.fetchall()


def delete_old_entries(connection: Connection[Any], *, days_old: int) -> int:
    """Delete some of the entries that are older than so many days; return their number."""
    return connection.execute(
        "DELETE FROM hubspot_deals.audit_log WHERE id IN (SELECT id FROM hubspot_deals.audit_log"
        " WHERE at < now() - make_interval(days => %s) ORDER BY at LIMIT %s)",
        (days_old, _DELETE_ROWS),
    ).rowcount


def _columns(entries: Sequence[AuditEntry]) -> list[list[Any]]:
    # Not `astuple`, which makes a deep copy of each value.
    values = attrgetter(*(field.name for field in fields(AuditEntry)))
    return [list(column) for column in zip(*map(values, entries), strict=True)]
