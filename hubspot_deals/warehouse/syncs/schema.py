"""The tables that syncs keep current, in a schema of their own. `migrate` creates them.

A release that knows more columns than the last one adds them: nothing is ever changed or dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import sql

from hubspot_deals.sync_contract import CURRENT_SCHEMA
from hubspot_deals.tables import (
    DEAL_ASSOCIATIONS,
    DEAL_STAGE_HISTORY,
    DEAL_TOMBSTONES,
    DEALS_CURRENT,
    DECIMAL_PRECISION,
    DECIMAL_SCALE,
    OWNERS,
    PIPELINE_STAGES,
    PIPELINES,
    ColumnType,
    Table,
)

SQL_TYPES: Final[Mapping[ColumnType, str]] = {
    ColumnType.TEXT: "text",
    ColumnType.BIGINT: "bigint",
    ColumnType.DECIMAL: f"numeric({DECIMAL_PRECISION},{DECIMAL_SCALE})",
    ColumnType.BOOL: "boolean",
    ColumnType.TIMESTAMP: "timestamptz",
    ColumnType.JSON: "jsonb",
}
OWNER_COLUMNS: Final = ("organization_id", "connection_id")
OURS: Final = "organization_id = %(organization)s AND connection_id = %(connection)s"
"""Whether a row is a connection's, as `SyncLease.key` names it."""
_STORED_ON: Final = dict.fromkeys(OWNER_COLUMNS, "text NOT NULL")


@dataclass(frozen=True, slots=True)
class CurrentTable:
    """A table of the current schema: what is read of HubSpot, and what a sync adds to it.

    `key` are the columns that name a row within a connection. `added` has types and `notes`
    comments by column.
    """

    table: Table
    key: tuple[str, ...]
    comment: str
    added: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    indexes: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name with its schema."""
        return f"{CURRENT_SCHEMA}.{self.table.name}"

    @property
    def columns(self) -> dict[str, str]:
        """All columns with their SQL types."""
        read = {
            name: SQL_TYPES[kind] + (" NOT NULL" if name in self.key else "")
            for name, kind in self.table.columns.items()
        }
        return {**_STORED_ON, **read, **self.added}


_AS_OF: Final = {"as_of": "timestamptz NOT NULL", "removed_at": "timestamptz"}
_AS_OF_NOTES: Final = {
    "as_of": "Every value of the row was HubSpot's at this moment, or has become so since.",
    "removed_at": "When it was noticed that HubSpot lists it no longer; NULL while it does.",
}
_NOTICED: Final = "By HubSpot's clock, when the run began that"

CURRENT_TABLES: Final[Mapping[str, CurrentTable]] = {
    current.table.name: current
    for current in (
        CurrentTable(
            DEALS_CURRENT,
            ("id",),
            "The live deals of each connected account. Archived, merged and deleted ones are in"
            " deal_tombstones.",
            {
                "noticed_at": "timestamptz NOT NULL",
                "values_as_of": "timestamptz NOT NULL",
                "associations_as_of": "timestamptz",
                "stages_as_of": "timestamptz",
            },
            {
                "properties": "Every property that was read, as HubSpot sends it.",
                "noticed_at": f"{_NOTICED} noticed the last change of a value.",
                "values_as_of": "Every value of the row was HubSpot's at this moment, or has become"
                " so since: calculated ones change without a sign and are read anew on a cycle.",
                "associations_as_of": "The same of the deal's rows in deal_associations; NULL"
                " before they are read.",
                "stages_as_of": "The same of the deal's rows in deal_stage_history.",
            },
        ),
        CurrentTable(
            OWNERS,
            ("id",),
            "The owners of each account, archived ones too. An owner id of a deal that no list"
            " has stands alone.",
            {"as_of": "timestamptz", "removed_at": "timestamptz"},
            {**_AS_OF_NOTES, "as_of": f"{_AS_OF_NOTES['as_of']} NULL for an id that stands alone."},
        ),
        CurrentTable(
            PIPELINES, ("id",), "The deal pipelines of each account.", _AS_OF, _AS_OF_NOTES
        ),
        CurrentTable(
            PIPELINE_STAGES,
            ("pipeline_id", "id"),
            "The stages of the deal pipelines of each account.",
            _AS_OF,
            _AS_OF_NOTES,
        ),
        CurrentTable(
            DEAL_STAGE_HISTORY,
            ("deal_id", "entered_at", "place"),
            "How long deals stood in which stage: a row for each stay. As of stages_as_of of"
            " the deal; of a deal that is not live, as of when it last was.",
            notes={
                "place": "Tells stays apart that began in the same millisecond.",
                "visit": "1 for the first stay in this stage, as far as HubSpot still has it.",
                "left_at": "NULL while the deal stands there.",
                "seconds": "From entered_at to left_at.",
                "is_cut": "HubSpot may have dropped earlier stays of the deal.",
            },
        ),
        CurrentTable(
            DEAL_ASSOCIATIONS,
            ("deal_id", "object_type", "object_id"),
            "What live deals are associated with, all of it. As of associations_as_of of the deal.",
            notes={
                "object_type": "contacts, companies or line_items",
                "types": "The kinds of association between the two: category, typeId and label.",
            },
        ),
        CurrentTable(
            DEAL_TOMBSTONES,
            ("deal_id",),
            "What became of deals that are not live, or were not. A deal that is live again has"
            " restored_at set; archived again, its row is that of the last time.",
            {"noticed_at": "timestamptz NOT NULL", "restored_at": "timestamptz"},
            {
                "reason": "archived, merged, or deleted: HubSpot knows nothing of it any more. What"
                " was seen in the bin stays archived when it is purged from there.",
                "survivor": "The deal that it was merged into, which may have been merged too.",
                "archived_at": "As HubSpot tells it.",
                "properties": "The last that was read of it.",
                "noticed_at": f"{_NOTICED} noticed it.",
                "restored_at": f"{_NOTICED} found it live again; NULL while it is not.",
            },
            indexes={"deal_tombstones_noticed": "(organization_id, connection_id, noticed_at)"},
        ),
    )
}

DEAL_CHANGES: Final = "deal_changes"
TABLE_NAMES: Final = (*CURRENT_TABLES, DEAL_CHANGES)
"""All tables that have rows of connections, without their schema."""

_CHANGES: Final = f"{CURRENT_SCHEMA}.{DEAL_CHANGES}"
_CHANGES_DDL: Final = f"""
    CREATE TABLE IF NOT EXISTS {_CHANGES} (
        seq             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        organization_id text NOT NULL,
        connection_id   text NOT NULL,
        deal_id         text NOT NULL,
        kind            text NOT NULL,
        modified_at     timestamptz,
        noticed_at      timestamptz NOT NULL,
        changes         jsonb NOT NULL,
        run_no          integer NOT NULL
    );
    CREATE INDEX IF NOT EXISTS deal_changes_by_deal
        ON {_CHANGES} (organization_id, connection_id, deal_id, seq);
    CREATE INDEX IF NOT EXISTS deal_changes_by_time
        ON {_CHANGES} (organization_id, connection_id, noticed_at);
"""
_CHANGES_NOTES: Final = {
    "seq": "In the order in which they were noticed.",
    "kind": "created, updated, archived, restored, merged or deleted.",
    "modified_at": "The deal's hs_lastmodifieddate behind the change. A calculated value changes"
    " without moving it.",
    "noticed_at": f"{_NOTICED} noticed it. Several changes between two runs are one.",
    "changes": '{property: [old, new]} as HubSpot sends them; of a merge {"survivor": [null, id]}.',
    "run_no": "The run of the connection, in hubspot_deals.sync_runs.",
}


def create_current_tables(connection: psycopg.Connection[Any]) -> None:
    """Create the tables that are missing, and the columns that a new release brings."""
    with connection.transaction():
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {CURRENT_SCHEMA}")
        there = _stored_columns(connection)
        for current in CURRENT_TABLES.values():
            _create(connection, current, there.get(current.table.name, set()))
        if DEAL_CHANGES not in there:
            connection.execute(_CHANGES_DDL)
            _comment(
                connection,
                _CHANGES,
                "What has changed of deals, as syncs have noticed it. A"
                " connection's first load writes none.",
                _CHANGES_NOTES,
            )


def _stored_columns(connection: psycopg.Connection[Any]) -> dict[str, set[str]]:
    """Ask what there is: altering what needs no change would wait for every sync."""
    there: dict[str, set[str]] = {}
    for table, column in connection.execute(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = %s",
        (CURRENT_SCHEMA,),
    ):
        there.setdefault(table, set()).add(column)
    return there


def _create(connection: psycopg.Connection[Any], current: CurrentTable, there: set[str]) -> None:
    missing = {name: kind for name, kind in current.columns.items() if name not in there}
    if not there:
        columns = ", ".join(f"{name} {kind}" for name, kind in missing.items())
        key = ", ".join((*OWNER_COLUMNS, *current.key))
        connection.execute(f"CREATE TABLE {current.name} ({columns}, PRIMARY KEY ({key}))")
        for name, on in current.indexes.items():
            connection.execute(f"CREATE INDEX {name} ON {current.name} {on}")
    else:
        for name, kind in missing.items():
            connection.execute(f"ALTER TABLE {current.name} ADD COLUMN {name} {kind}")
    if missing:
        _comment(connection, current.name, current.comment, current.notes)


def _comment(
    connection: psycopg.Connection[Any], table: str, comment: str, notes: Mapping[str, str]
) -> None:
    """Say what a table and its columns hold, where every tool shows it."""
    connection.execute(sql.SQL(f"COMMENT ON TABLE {table} IS {{}}").format(comment))
    for column, note in notes.items():
        connection.execute(sql.SQL(f"COMMENT ON COLUMN {table}.{column} IS {{}}").format(note))
