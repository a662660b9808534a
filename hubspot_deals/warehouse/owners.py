"""Whose an object is that a caller names: a statement for each kind, by its primary key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import class_row

from hubspot_deals.warehouse.states import IS_VISIBLE


class OwnedKind(StrEnum):
    """What organizations own."""

    SCAN = "scan"
    CONNECTION = "connection"
    WEBHOOK = "webhook"


_STATEMENTS: Final[Mapping[OwnedKind, str]] = {
    OwnedKind.SCAN: f"""
        SELECT s.scan_id AS object_id, s.seq, s.organization_id FROM hubspot_deals.scans s
        WHERE s.scan_id = ANY(%s) AND {IS_VISIBLE}
    """,
    OwnedKind.CONNECTION: """
        SELECT c.connection_id AS object_id, c.seq, c.organization_id
        FROM hubspot_deals.connections c
        WHERE c.connection_id = ANY(%s) AND c.removed_at IS NULL
    """,
    OwnedKind.WEBHOOK: """
        SELECT w.webhook_id AS object_id, w.seq, w.organization_id FROM hubspot_deals.webhooks w
        WHERE w.webhook_id = ANY(%s)
    """,
}


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose it is; `seq` tells the object from others that had or will have its id."""

    object_id: str
    seq: int
    organization_id: str


async def find_owners(
    connection: AsyncConnection[Any], kind: OwnedKind, object_ids: Sequence[str]
) -> list[Owner]:
    """Return whose these objects are, as far as there are such ones."""
    cursor = connection.cursor(row_factory=class_row(Owner))
    await cursor.execute(_STATEMENTS[kind], (list(object_ids),))
    return await cursor.fetchall()
