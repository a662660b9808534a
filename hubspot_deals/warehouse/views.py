"""Makes one view for each organization: a typed column for each property of its deals.

A view shows the full scan that completed last by itself; it is made anew only when the properties
have changed, and goes with the organization's last scan.
"""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg import Connection, sql

from hubspot_deals.warehouse.states import IS_VISIBLE

SCHEMA: Final = "hubspot_deals_views"
MOST_COLUMNS: Final = 1_600
"""What PostgreSQL allows a view."""

_VERSION: Final = 1
"""Of the way views are made; raise it when that changes."""

_LONGEST_NAME: Final = 63
_LONGEST_SLUG: Final = 40
_HASH_LETTERS: Final = 10
_ALL_DEALS: Final = "latest_deals"
_FIXED: Final = (
    "scan_id",
    "id",
    "archived",
    "archived_at",
    "created_at",
    "updated_at",
    "dealstage_label",
    "pipeline_label",
    "owner_email",
)
_NO_PROPERTIES: Final = {*_FIXED, "organization_id", "row_no", "properties"}
"""Columns of the view of all deals that do not hold the property of that name."""

# By the type of a definition; any other is text.
_CASTS: Final = {
    "number": ("numeric", "hubspot_deals.to_number({})"),
    "bool": ("boolean", "hubspot_deals.to_truth({})"),
    "datetime": ("timestamp with time zone", "hubspot_deals.to_moment({})"),
    "date": ("date", "hubspot_deals.to_day({})"),
}

_SCANS: Final = f"""
    SELECT EXISTS (SELECT FROM hubspot_deals_views.latest_scans l
            WHERE l.organization_id = %(organization)s),
        EXISTS (SELECT FROM hubspot_deals.scans s
            WHERE s.organization_id = %(organization)s AND {IS_VISIBLE})
"""

_logger = logging.getLogger(__name__)

_Columns = dict[str, tuple[str, sql.Composable]]
"""PostgreSQL's type and the expression of each column."""


def keep_view(connection: Connection[Any], organization_id: str) -> None:
    """Bring an organization's view up to date within seconds; what goes wrong is only logged.

    The view that there was stays then, and the next scan that completes tries again.
    """
    try:
        refresh_view(connection, organization_id)
    except psycopg.Error as error:
        _logger.warning(
            "The view of organization %r was left as it is: %s",
            organization_id,
            type(error).__name__,
        )


def refresh_view(connection: Connection[Any], organization_id: str) -> None:
    """Make, change or drop an organization's view, whichever is due; raises psycopg.Error.

    The connection is in autocommit. Whoever reads the view is waited for two seconds.
    """
    with connection.transaction():
        connection.execute("SET LOCAL lock_timeout = '2s'")
        connection.execute("SET LOCAL statement_timeout = '15s'")
        connection.execute("SELECT pg_advisory_xact_lock(4863, hashtext(%s))", (organization_id,))
        has_full, has_any = connection.execute(
            _SCANS, {"organization": organization_id}
        ).fetchall()[0]
        if has_full:
            _make(connection, organization_id)
        elif not has_any:
            _drop(connection, organization_id)


def view_name(organization_id: str) -> str:
    """Return the name that only this organization's view has."""
    slug = re.sub("[^a-z0-9]+", "_", organization_id.lower()).strip("_")[:_LONGEST_SLUG]
    return "_".join(filter(None, ("deals", slug, _hash(organization_id))))


def _make(connection: Connection[Any], organization_id: str) -> None:
    name = view_name(organization_id)
    wanted, left_out = _wanted_columns(connection, organization_id)
    present = _present_columns(connection, name)
    types = {column: kind for column, (kind, _) in wanted.items()}
    stored = connection.execute(
        "SELECT version, left_out FROM hubspot_deals_views.organization_views"
        " WHERE organization_id = %s",
        (organization_id,),
    ).fetchone()
    if types == present and stored == (_VERSION, left_out):
        return
    if present and any(types.get(column) != kind for column, kind in present.items()):
        # A view can gain columns, but not lose any.
        connection.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier(SCHEMA, name)))
        present = {}
    ordered = {column: wanted[column][1] for column in [*present, *wanted]}
    connection.execute(_statement(name, organization_id, ordered))
    connection.execute(
        "INSERT INTO hubspot_deals_views.organization_views"
        " (organization_id, view_name, left_out, version) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (organization_id) DO UPDATE SET view_name = EXCLUDED.view_name,"
        " left_out = EXCLUDED.left_out, version = EXCLUDED.version, made_at = now()",
        (organization_id, name, left_out, _VERSION),
    )


def _drop(connection: Connection[Any], organization_id: str) -> None:
    name = sql.Identifier(SCHEMA, view_name(organization_id))
    connection.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(name))
    connection.execute(
        "DELETE FROM hubspot_deals_views.organization_views WHERE organization_id = %s",
        (organization_id,),
    )


def _wanted_columns(
    connection: Connection[Any], organization_id: str
) -> tuple[_Columns, list[str]]:
    """Return the columns, and the properties that get none, by name.

    Standard properties come first, then the account's own, then the rest of HubSpot's.
    """
    everywhere = _present_columns(connection, _ALL_DEALS)
    definitions = connection.execute(
        "SELECT name, type FROM hubspot_deals_views.latest_deal_properties"
        " WHERE organization_id = %s ORDER BY hubspot_defined, name",
        (organization_id,),
    ).fetchall()
    columns: _Columns = {name: (everywhere[name], sql.Identifier("d", name)) for name in _FIXED}
    columns |= {
        name: (kind, sql.Identifier("d", name))
        for name, kind in everywhere.items()
        if name not in _NO_PROPERTIES
    }
    left_out = []
    for name, kind in dict(definitions).items():
        column = _column_name(name)
        if name in everywhere and name not in _NO_PROPERTIES:
            continue
        if not column or column in columns or len(columns) >= MOST_COLUMNS:
            left_out.append(name)
        else:
            columns[column] = _typed(name, kind)
    return columns, sorted(left_out)


def _typed(name: str, kind: str | None) -> tuple[str, sql.Composable]:
    text = sql.SQL("d.properties ->> {}").format(sql.Literal(name))
    type_name, cast = _CASTS.get(kind or "", ("text", "{}"))
    return type_name, sql.SQL(cast).format(text)


def _statement(
    name: str, organization_id: str, columns: Mapping[str, sql.Composable]
) -> sql.Composed:
    selected: Sequence[sql.Composable] = [
        sql.SQL("{} AS {}").format(expression, sql.Identifier(column))
        for column, expression in columns.items()
    ]
    return sql.SQL(
        "CREATE OR REPLACE VIEW {} AS SELECT {} FROM hubspot_deals_views.latest_deals d"
        " WHERE d.organization_id = {}"
    ).format(sql.Identifier(SCHEMA, name), sql.SQL(", ").join(selected), organization_id)


def _present_columns(connection: Connection[Any], name: str) -> dict[str, str]:
    """Return the types of a view's columns, in order; of none where there is no such view."""
    return dict(
        connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text))"
            " ORDER BY attnum",
            (SCHEMA, name),
        ).fetchall()
    )


def _column_name(name: str) -> str:
    """Return a name as PostgreSQL takes it: what is too long is shortened, but stays unique."""
    text = name.encode()
    if len(text) <= _LONGEST_NAME:
        return name
    kept = text[: _LONGEST_NAME - _HASH_LETTERS - 1].decode(errors="ignore")
    return f"{kept}_{_hash(name)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LETTERS]
