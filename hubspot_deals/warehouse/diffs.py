"""Compares the deals of two snapshots, range by range of their ids.

Each range is one statement that brings nothing once either snapshot is not served any more, so no
transaction stays open, and neither memory nor the time of a statement grows with the snapshots.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.rows import class_row
from psycopg.types.numeric import Int8

from hubspot_deals.contract import DATASET_NAME
from hubspot_deals.warehouse.results import COUNTED, IS_SERVED, OWN, RAW_TABLE, Snapshot, values_of

MOST_IDS: Final = 5_000
"""Of one range, so that its rows fit into PostgreSQL's memory for one hash table."""


def _of_new(old: str) -> str:
    """Turn what is said of the old snapshot, parameters $1 to $3, into the same of the new one."""
    return old.replace("$1", "$4").replace("$2", "$5").replace("$3", "$6")


_DEALS: Final = f"""
    SELECT r.id, r.archived, r.archived_at, r.properties FROM {DATASET_NAME}.deals r
    WHERE r.scan_id = $1 AND r.id > $7 AND r.id <= (SELECT last_id FROM reach)
    AND r._dlt_load_id IN ({COUNTED.format(name="'deals'")})
"""

# Whole objects are compared first: only of deals that differ is each property looked at.
_DIFFERING: Final = f"""
    WITH reach AS MATERIALIZED (
        SELECT count(*) = 0 AS is_end, coalesce(min(e.id), greatest(
            (SELECT max(r.id) FROM {DATASET_NAME}.deals r WHERE r.scan_id = $1),
            (SELECT max(r.id) FROM {DATASET_NAME}.deals r WHERE r.scan_id = $4)
        )) AS last_id
        FROM (
            (SELECT r.id FROM {DATASET_NAME}.deals r
                WHERE r.scan_id = $1 AND r.id > $7 ORDER BY r.id OFFSET $8 - 1 LIMIT 1)
            UNION ALL
            (SELECT r.id FROM {DATASET_NAME}.deals r
                WHERE r.scan_id = $4 AND r.id > $7 ORDER BY r.id OFFSET $8 - 1 LIMIT 1)
        ) e
    ), differing AS MATERIALIZED (
        SELECT coalesce(o.id, n.id) AS id,
            CASE WHEN o.id IS NULL THEN 'added' WHEN n.id IS NULL THEN 'removed' ELSE 'changed' END
                AS kind,
            o.archived AS old_archived, o.archived_at AS old_archived_at,
            n.archived AS new_archived, n.archived_at AS new_archived_at,
            o.properties AS old, n.properties AS new
        FROM ({_DEALS}) o
        FULL JOIN ({_of_new(_DEALS)}) n ON n.id = o.id
        WHERE o.id IS NULL OR n.id IS NULL
            OR o.archived IS DISTINCT FROM n.archived
            OR o.archived_at IS DISTINCT FROM n.archived_at
            OR (o.properties IS DISTINCT FROM n.properties AND EXISTS (
                SELECT FROM unnest($9::text[]) name
                WHERE o.properties ->> name IS DISTINCT FROM n.properties ->> name))
        {{limited}}
    )
"""

_OLD_SERVED: Final = f"EXISTS (SELECT FROM hubspot_deals.scans s WHERE {IS_SERVED})"
_SERVED: Final = f"{_OLD_SERVED} AND {_of_new(_OLD_SERVED)}"

# What differs between two deals: property, its place, and both values as JSON.
_VALUES: Final = """
    SELECT p.place, p.name, coalesce(d.old -> p.name, 'null')::text AS old,
        coalesce(d.new -> p.name, 'null')::text AS new
    FROM unnest($9::text[]) WITH ORDINALITY p (name, place)
    WHERE d.old ->> p.name IS DISTINCT FROM d.new ->> p.name
    UNION ALL
    SELECT 1e6, 'archived', hubspot_deals.to_answer(d.old_archived),
        hubspot_deals.to_answer(d.new_archived)
    WHERE d.old_archived IS DISTINCT FROM d.new_archived
    UNION ALL
    SELECT 1e6 + 1, 'archivedAt', hubspot_deals.to_answer(d.old_archived_at),
        hubspot_deals.to_answer(d.new_archived_at)
    WHERE d.old_archived_at IS DISTINCT FROM d.new_archived_at
"""

_RECORD: Final = """
    SELECT string_agg(concat(to_json(p.name), ':', CASE p.name
        WHEN 'id' THEN hubspot_deals.to_answer(d.id)
        WHEN 'archived' THEN hubspot_deals.to_answer(d.{side}_archived)
        WHEN 'archivedAt' THEN hubspot_deals.to_answer(d.{side}_archived_at)
        ELSE coalesce((d.{side} -> p.name)::text, 'null') END), ',' ORDER BY p.place)
    FROM unnest({columns}::text[]) WITH ORDINALITY p (name, place)
"""

# `properties || '{}'` unpacks a big value once instead of once per property.
_CHANGES: Final = f"""
    {_DIFFERING.format(limited="ORDER BY 1 LIMIT $10")}, unpacked AS MATERIALIZED (
        SELECT d.id, d.kind, d.old_archived, d.old_archived_at, d.new_archived, d.new_archived_at,
            d.old || '{{}}' AS old, d.new || '{{}}' AS new
        FROM differing d
    )
    SELECT p.records, p.returned, r.is_end AND p.returned < $10 AS is_end,
        CASE WHEN p.returned < $10 THEN r.last_id ELSE p.last_id END AS last_id
    FROM reach r, (
        SELECT convert_to(coalesce(string_agg(concat(
                '{{"kind":"', d.kind, '","id":', to_json(d.id), CASE d.kind
                    WHEN 'added' THEN
                        concat(',"record":{{', ({_RECORD.format(side="new", columns="$12")}))
                    WHEN 'removed' THEN
                        concat(',"record":{{', ({_RECORD.format(side="old", columns="$11")}))
                    ELSE concat(',"changes":{{', (
                        SELECT string_agg(concat(to_json(v.name), ':{{"old":', v.old, ',"new":',
                            v.new, '}}'), ',' ORDER BY v.place) FROM ({_VALUES}) v))
                END, '}}}}'
            ), $13 ORDER BY d.id), ''), 'UTF8') AS records,
            count(*) AS returned, max(d.id) AS last_id
        FROM unpacked d
    ) p WHERE {_SERVED}
"""

_COUNTS: Final = f"""
    {_DIFFERING.format(limited="")}, unpacked AS MATERIALIZED (
        SELECT d.old_archived, d.old_archived_at, d.new_archived, d.new_archived_at,
            d.old || '{{}}' AS old, d.new || '{{}}' AS new
        FROM differing d WHERE d.kind = 'changed'
    )
    SELECT r.is_end, r.last_id,
        (SELECT coalesce(jsonb_object_agg(k.kind, k.deals), '{{}}') FROM (
            SELECT d.kind, count(*) AS deals FROM differing d GROUP BY d.kind) k) AS kinds,
        (SELECT coalesce(jsonb_object_agg(k.name, k.deals), '{{}}') FROM (
            SELECT v.name, count(*) AS deals
            FROM unpacked d CROSS JOIN LATERAL ({_VALUES}) v GROUP BY v.name) k) AS properties
    FROM reach r WHERE {_SERVED}
"""


@dataclass(frozen=True)
class Pair:
    """Two snapshots, from the old one to the new one."""

    old: Snapshot
    new: Snapshot

    @cached_property
    def compared(self) -> list[str]:
        """The properties that both scans have read."""
        return [name for name in _properties(self.old) if name in _properties(self.new)]

    @cached_property
    def only_in_old(self) -> list[str]:
        """The properties that only the old scan has read."""
        return [name for name in _properties(self.old) if name not in self.compared]

    @cached_property
    def only_in_new(self) -> list[str]:
        """The properties that only the new scan has read."""
        return [name for name in _properties(self.new) if name not in self.compared]


@dataclass(frozen=True, slots=True)
class Changes:
    """Some changes by ascending id, as JSON texts; what follows comes behind `last_id`."""

    records: bytes
    returned: int
    last_id: str | None
    is_end: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """How many deals of a range differ, by kind, and the changed ones by property."""

    kinds: Counter[str]
    properties: Counter[str]
    last_id: str | None
    is_end: bool


async def find_changes(  # noqa: PLR0913 - one parameter per part of the question
    connection: AsyncConnection[Any],
    pair: Pair,
    *,
    after: str,
    ids: int,
    limit: int,
    separator: str,
) -> Changes | None:
    """Return the first changes behind an id; None once either snapshot is not served.

    At most `limit` of them, among at most twice `ids` deals: a call may well find none and not be
    the last.
    """
    cursor = AsyncRawCursor(connection, row_factory=class_row(Changes))
    values = (Int8(limit), _columns(pair.old), _columns(pair.new), separator)
    await cursor.execute(_CHANGES, (*_range(pair, after, ids), *values), binary=True)
    return await cursor.fetchone()


async def count_changes(
    connection: AsyncConnection[Any], pair: Pair, *, after: str, ids: int
) -> Counts | None:
    """Count the changes among at most twice `ids` deals behind an id; None as above."""
    cursor = AsyncRawCursor(connection)
    await cursor.execute(_COUNTS, _range(pair, after, ids), binary=True)
    if (found := await cursor.fetchone()) is None:
        return None
    is_end, last_id, kinds, properties = found
    return Counts(Counter(kinds), Counter(properties), last_id, is_end)


def _range(pair: Pair, after: str, ids: int) -> tuple[Any, ...]:
    return (*values_of(pair.old), *values_of(pair.new), after, Int8(ids), pair.compared)


def _columns(snapshot: Snapshot) -> list[str]:
    found = [table.columns for table in snapshot.tables if table.table_name == RAW_TABLE]
    return list(dict.fromkeys(found[0])) if found else []


def _properties(snapshot: Snapshot) -> list[str]:
    return [name for name in _columns(snapshot) if name not in OWN]
