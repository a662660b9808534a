"""Merges what was read of deals into the tables of a connection, and notes what has changed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import psycopg
import pyarrow as pa

from hubspot_deals.sync_contract import CURRENT_SCHEMA
from hubspot_deals.tables import (
    DEAL_ASSOCIATIONS,
    DEAL_STAGE_HISTORY,
    DEAL_TOMBSTONES,
    DEALS_CURRENT,
    OWNERS,
    Table,
)
from hubspot_deals.warehouse.syncs.leases import SyncLease
from hubspot_deals.warehouse.syncs.schema import CURRENT_TABLES, OWNER_COLUMNS
from hubspot_deals.warehouse.syncs.staging import MergeCounts, stage, staged, upsert
from hubspot_deals.warehouse.syncs.states import write_state

_DEALS: Final = CURRENT_TABLES[DEALS_CURRENT.name].name
_TOMBSTONES: Final = CURRENT_TABLES[DEAL_TOMBSTONES.name].name
_ASSOCIATIONS: Final = CURRENT_TABLES[DEAL_ASSOCIATIONS.name].name
_OWNERS: Final = CURRENT_TABLES[OWNERS.name].name
_STAGED: Final = staged(DEALS_CURRENT)
_OURS: Final = "{0}.organization_id = %(organization)s AND {0}.connection_id = %(connection)s"
_VALUES: Final = [name for name in DEALS_CURRENT.columns if name != "id"]

# A merge is never undone, so a page that still has a deal which was merged away is an old one.
_LEAVE_MERGED_OUT: Final = f"""
    DELETE FROM {_STAGED} s USING {_TOMBSTONES} t
    WHERE {_OURS.format("t")} AND t.deal_id = s.id AND t.reason = 'merged'
        AND t.restored_at IS NULL
    RETURNING s.id
"""
_PUT_DEALS: Final = f"""
    WITH read AS (
        SELECT s.*, d.id IS NULL AS is_new, t.deal_id IS NOT NULL AS is_back,
            coalesce(d.properties, t.properties) AS before,
            d.id IS NULL OR d.properties IS DISTINCT FROM s.properties AS is_other
        FROM {_STAGED} s
        LEFT JOIN {_DEALS} d ON {_OURS.format("d")} AND d.id = s.id
        LEFT JOIN {_TOMBSTONES} t
            ON {_OURS.format("t")} AND t.deal_id = s.id AND t.restored_at IS NULL
    ), put AS (
        INSERT INTO {_DEALS} AS d ({", ".join((*OWNER_COLUMNS, *DEALS_CURRENT.columns))},
            noticed_at, values_as_of, associations_as_of, stages_as_of)
        SELECT %(organization)s, %(connection)s,
            {", ".join(f"r.{name}" for name in DEALS_CURRENT.columns)}, %(as_of)s, %(as_of)s,
            CASE WHEN %(with_associations)s THEN %(as_of)s::timestamptz END,
            CASE WHEN %(with_stages)s THEN %(as_of)s::timestamptz END
        FROM read r
        ON CONFLICT ({", ".join(OWNER_COLUMNS)}, id) DO UPDATE SET
            {", ".join(f"{name} = EXCLUDED.{name}" for name in _VALUES)},
            noticed_at = CASE WHEN d.properties IS DISTINCT FROM EXCLUDED.properties
                THEN EXCLUDED.noticed_at ELSE d.noticed_at END,
            values_as_of = EXCLUDED.values_as_of,
            associations_as_of = coalesce(EXCLUDED.associations_as_of, d.associations_as_of),
            stages_as_of = coalesce(EXCLUDED.stages_as_of, d.stages_as_of)
    ), back AS (
        UPDATE {_TOMBSTONES} t SET restored_at = %(as_of)s FROM read r
        WHERE {_OURS.format("t")} AND t.deal_id = r.id AND t.restored_at IS NULL AND r.is_back
    ), owners AS (
        INSERT INTO {_OWNERS} ({", ".join(OWNER_COLUMNS)}, id)
        SELECT DISTINCT %(organization)s, %(connection)s, r.properties ->> 'hubspot_owner_id'
        FROM read r WHERE r.properties ->> 'hubspot_owner_id' <> ''
        ON CONFLICT DO NOTHING
    ), noted AS (
        INSERT INTO {CURRENT_SCHEMA}.deal_changes (organization_id, connection_id, deal_id, kind,
            modified_at, noticed_at, changes, run_no)
        SELECT %(organization)s, %(connection)s, r.id,
            CASE WHEN NOT r.is_new THEN 'updated' WHEN r.is_back THEN 'restored'
                ELSE 'created' END,
            coalesce(r.hs_lastmodifieddate, r.updated_at), %(as_of)s, coalesce(c.changes, '{{}}'),
            %(run_no)s
        FROM read r CROSS JOIN LATERAL (
            SELECT jsonb_object_agg(key, jsonb_build_array(o.value, n.value)) AS changes
            FROM jsonb_each(r.before) o FULL JOIN jsonb_each(r.properties) n USING (key)
            WHERE coalesce(o.value, 'null') <> coalesce(n.value, 'null')
                AND key = ANY(%(properties)s)
        ) c
        WHERE r.is_other AND NOT %(is_first_load)s AND (r.is_new OR c.changes IS NOT NULL)
        ORDER BY coalesce(r.hs_lastmodifieddate, r.updated_at), r.id
    )
    SELECT count(*), count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new AND is_other)
    FROM read
"""
_RANK: Final = "array_position(ARRAY['deleted', 'archived', 'merged'], {}.reason)"
_BURY: Final = f"""
    WITH gone AS (
        DELETE FROM {_DEALS} d USING {staged(DEAL_TOMBSTONES)} s
        WHERE {_OURS.format("d")} AND d.id = s.deal_id
        RETURNING d.id, d.properties, d.updated_at, s.reason, s.survivor
    ), cut AS (
        DELETE FROM {_ASSOCIATIONS} a USING {staged(DEAL_TOMBSTONES)} s
        WHERE {_OURS.format("a")} AND a.deal_id = s.deal_id
    ), noted AS (
        INSERT INTO {CURRENT_SCHEMA}.deal_changes (organization_id, connection_id, deal_id, kind,
            modified_at, noticed_at, changes, run_no)
        SELECT %(organization)s, %(connection)s, g.id, g.reason, g.updated_at, %(as_of)s,
            CASE WHEN g.survivor IS NULL THEN '{{}}' ELSE
                jsonb_build_object('survivor', jsonb_build_array(NULL, g.survivor)) END,
            %(run_no)s
        FROM gone g ORDER BY g.id
    ), put AS (
        INSERT INTO {_TOMBSTONES} AS t ({", ".join(OWNER_COLUMNS)}, deal_id, reason, survivor,
            archived_at, properties, noticed_at)
        SELECT %(organization)s, %(connection)s, s.deal_id, s.reason, s.survivor, s.archived_at,
            coalesce(s.properties, g.properties), %(as_of)s
        FROM {staged(DEAL_TOMBSTONES)} s LEFT JOIN gone g ON g.id = s.deal_id
        ON CONFLICT ({", ".join(OWNER_COLUMNS)}, deal_id) DO UPDATE SET
            reason = EXCLUDED.reason, survivor = EXCLUDED.survivor,
            archived_at = EXCLUDED.archived_at, noticed_at = EXCLUDED.noticed_at,
            properties = coalesce(EXCLUDED.properties, t.properties), restored_at = NULL
        WHERE t.restored_at IS NOT NULL OR {_RANK.format("EXCLUDED")} > {_RANK.format("t")}
            OR (EXCLUDED.reason = t.reason AND (EXCLUDED.survivor, EXCLUDED.archived_at)
                IS DISTINCT FROM (t.survivor, t.archived_at))
        RETURNING t.reason
    )
    SELECT (SELECT count(*) FROM gone), reason, count(*) FROM put GROUP BY reason
    UNION ALL SELECT (SELECT count(*) FROM gone), NULL, 0
"""
_DROP_ASSOCIATIONS: Final = f"""
    DELETE FROM {_ASSOCIATIONS} a WHERE {_OURS.format("a")} AND a.deal_id = ANY(%(ids)s)
        AND NOT EXISTS (
            SELECT FROM {staged(DEAL_ASSOCIATIONS)} s WHERE s.deal_id = a.deal_id
            AND s.object_type = a.object_type AND s.object_id = a.object_id)
"""
_PUT_ASSOCIATIONS: Final = upsert(DEAL_ASSOCIATIONS)
_PUT_STAGES: Final = upsert(DEAL_STAGE_HISTORY)


@dataclass(frozen=True, slots=True)
class DealChunk:
    """What was read of some deals, each once, as of one moment of HubSpot's clock.

    `details` are the rows of their associations and stage histories, as far as those were read.
    `buried` are the rows of tombstones. `is_certain` says that these deals were live beyond doubt,
    even if one was merged away once.
    """

    as_of: datetime
    properties: Sequence[str] = ()
    deals: Sequence[pa.Table] = ()
    ids: Sequence[str] = ()
    associations: pa.Table | None = None
    stages: pa.Table | None = None
    buried: pa.Table | None = None
    is_certain: bool = False
    is_first_load: bool = False


@dataclass(slots=True)
class Merged:
    """What a chunk has done to the tables."""

    counts: dict[str, MergeCounts] = field(default_factory=dict)
    buried: Counter[str] = field(default_factory=Counter)
    """New tombstones by reason."""
    left_out: list[str] = field(default_factory=list)
    """Deals that were merged away."""

    def add(self, table: Table, counts: MergeCounts) -> None:
        """Add to what was done to a table."""
        self.counts[table.name] = self.counts.get(table.name, MergeCounts()) + counts


def merge_chunk(lease: SyncLease, chunk: DealChunk, state: dict[str, Any] | None = None) -> Merged:
    """Merge a chunk in one transaction of the lease's epoch, with where the run goes on."""
    merged = Merged()
    values = {
        **lease.key,
        "as_of": chunk.as_of,
        "properties": list(chunk.properties),
        "ids": list(chunk.ids),
        "with_associations": chunk.associations is not None,
        "with_stages": chunk.stages is not None,
        "is_first_load": chunk.is_first_load,
    }
    with lease.transaction() as cursor:
        stage(cursor, DEALS_CURRENT, chunk.deals)
        for table, rows in (
            (DEAL_ASSOCIATIONS, chunk.associations),
            (DEAL_STAGE_HISTORY, chunk.stages),
            (DEAL_TOMBSTONES, chunk.buried),
        ):
            if rows is not None:
                stage(cursor, table, [rows])
        # From here on the connection's row is locked, which its heartbeat and a pause wait for.
        lease.fence(cursor)
        _put_deals(cursor, chunk, values, merged)
        if chunk.buried is not None and chunk.buried.num_rows:
            _bury(cursor, chunk.buried.num_rows, values, merged)
        write_state(cursor, lease.connection_id, state or {})
    return merged


def _put_deals(
    cursor: psycopg.Cursor[Any], chunk: DealChunk, values: dict[str, Any], merged: Merged
) -> None:
    if not chunk.ids:
        return
    if not chunk.is_certain:
        merged.left_out = [row[0] for row in cursor.execute(_LEAVE_MERGED_OUT, values)]
    rows, inserted, updated = cursor.execute(_PUT_DEALS, values).fetchone() or (0, 0, 0)
    merged.add(DEALS_CURRENT, MergeCounts(rows, inserted, updated))
    if chunk.associations is not None:
        deleted = cursor.execute(_DROP_ASSOCIATIONS, values).rowcount
        counts = _upsert(cursor, _PUT_ASSOCIATIONS, values, chunk.associations.num_rows)
        merged.add(DEAL_ASSOCIATIONS, counts + MergeCounts(deleted=deleted))
    if chunk.stages is not None:
        counts = _upsert(cursor, _PUT_STAGES, values, chunk.stages.num_rows)
        merged.add(DEAL_STAGE_HISTORY, counts)


def _bury(cursor: psycopg.Cursor[Any], rows: int, values: dict[str, Any], merged: Merged) -> None:
    gone = 0
    for removed, reason, count in cursor.execute(_BURY, values):
        gone = removed
        if reason is not None:
            merged.buried[reason] += count
    merged.add(DEALS_CURRENT, MergeCounts(deleted=gone))
    merged.add(DEAL_TOMBSTONES, MergeCounts(rows, inserted=merged.buried.total()))


def _upsert(
    cursor: psycopg.Cursor[Any], statement: str, values: dict[str, Any], rows: int
) -> MergeCounts:
    inserted, updated = cursor.execute(statement, values).fetchone() or (0, 0)
    return MergeCounts(rows, inserted, updated)


def merge_lists(
    lease: SyncLease, lists: dict[Table, pa.Table], as_of: datetime
) -> dict[str, MergeCounts]:
    """Merge whole lists, such as all owners, and mark what they have no longer as removed."""
    counts = {}
    values = {**lease.key, "as_of": as_of}
    with lease.transaction() as cursor:
        for table, rows in lists.items():
            stage(cursor, table, [rows])
        lease.fence(cursor)
        for table, rows in lists.items():
            put = upsert(table, as_of="%(as_of)s", removed_at="NULL")
            counts[table.name] = _upsert(cursor, put, values, rows.num_rows)
            key = " AND ".join(f"s.{name} = t.{name}" for name in CURRENT_TABLES[table.name].key)
            removed = cursor.execute(
                f"UPDATE {CURRENT_TABLES[table.name].name} t SET removed_at = %(as_of)s"
                f" WHERE {_OURS.format('t')} AND t.as_of IS NOT NULL AND t.removed_at IS NULL"
                f" AND NOT EXISTS (SELECT FROM {staged(table)} s WHERE {key})",
                values,
            )
            counts[table.name] += MergeCounts(deleted=removed.rowcount)
    return counts
