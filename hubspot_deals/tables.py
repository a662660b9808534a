"""The tables of a scan and the types of their columns, as Arrow and as dlt hints.

`source` builds Arrow batches of them, `warehouse` declares them to dlt; neither knows the other.
Standard HubSpot properties have one type in every account, so they get typed columns; everything
that was requested is also kept, exactly as sent, in `deals.properties`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa


class ColumnType(StrEnum):
    """A column's type in dlt's words."""

    TEXT = "text"
    BIGINT = "bigint"
    DECIMAL = "decimal"
    BOOL = "bool"
    TIMESTAMP = "timestamp"
    JSON = "json"


DECIMAL_PRECISION: Final = 38
DECIMAL_SCALE: Final = 18
"""HubSpot's calculated amounts carry up to 17 significant digits: 18 decimals keep them exact."""

_TEXT, _DECIMAL, _BOOL, _TIMESTAMP = (
    ColumnType.TEXT,
    ColumnType.DECIMAL,
    ColumnType.BOOL,
    ColumnType.TIMESTAMP,
)

ARROW_TYPES: Final[Mapping[ColumnType, pa.DataType]] = {
    ColumnType.TEXT: pa.string(),
    ColumnType.BIGINT: pa.int64(),
    ColumnType.DECIMAL: pa.decimal128(DECIMAL_PRECISION, DECIMAL_SCALE),
    ColumnType.BOOL: pa.bool_(),
    ColumnType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    ColumnType.JSON: pa.string(),
}

CORE_PROPERTIES: Final[Mapping[str, ColumnType]] = {
    "dealname": _TEXT,
    "amount": _DECIMAL,
    "dealstage": _TEXT,
    "pipeline": _TEXT,
    "closedate": _TIMESTAMP,
    "createdate": _TIMESTAMP,
    "hs_createdate": _TIMESTAMP,
    "hs_lastmodifieddate": _TIMESTAMP,
    "hubspot_owner_id": _TEXT,
    "hubspot_owner_assigneddate": _TIMESTAMP,
    "hubspot_team_id": _TEXT,
    "dealtype": _TEXT,
    "description": _TEXT,
    "deal_currency_code": _TEXT,
    "amount_in_home_currency": _DECIMAL,
    "hs_priority": _TEXT,
    "hs_next_step": _TEXT,
    "hs_acv": _DECIMAL,
    "hs_arr": _DECIMAL,
    "hs_mrr": _DECIMAL,
    "hs_tcv": _DECIMAL,
    "hs_closed_amount": _DECIMAL,
    "hs_closed_amount_in_home_currency": _DECIMAL,
    "hs_projected_amount": _DECIMAL,
    "hs_projected_amount_in_home_currency": _DECIMAL,
    "hs_forecast_amount": _DECIMAL,
    "hs_forecast_probability": _DECIMAL,
    "hs_manual_forecast_category": _TEXT,
    "hs_deal_stage_probability": _DECIMAL,
    "hs_is_closed": _BOOL,
    "hs_is_closed_won": _BOOL,
    "closed_lost_reason": _TEXT,
    "closed_won_reason": _TEXT,
    "days_to_close": _DECIMAL,
    "num_associated_contacts": _DECIMAL,
    "num_notes": _DECIMAL,
    "notes_last_updated": _TIMESTAMP,
    "notes_next_activity_date": _TIMESTAMP,
    "hs_analytics_source": _TEXT,
    "hs_merged_object_ids": _TEXT,
}
"""Standard deal properties with a typed column; also what a scan reads when none are named."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table's name and columns, in order."""

    name: str
    columns: Mapping[str, ColumnType]

    def arrow_schema(self) -> pa.Schema:
        """Return the columns as Arrow fields; JSON travels as text."""
        return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in self.columns.items()])

    def dlt_columns(self) -> dict[str, dict[str, Any]]:
        """Return the columns as dlt column hints."""
        return {name: _dlt_column(name, kind) for name, kind in self.columns.items()}


def _dlt_column(name: str, kind: ColumnType) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "data_type": kind.value, "nullable": True}
    if kind is ColumnType.DECIMAL:
        column |= {"precision": DECIMAL_PRECISION, "scale": DECIMAL_SCALE}
    return column


DEALS: Final = Table(
    "deals",
    {
        "id": _TEXT,
        "created_at": _TIMESTAMP,
        "updated_at": _TIMESTAMP,
        "archived": _BOOL,
        "archived_at": _TIMESTAMP,
        **CORE_PROPERTIES,
        "properties": ColumnType.JSON,
    },
)
USERS: Final = Table(
    "users",
    {
        "id": _TEXT,
        "email": _TEXT,
        "first_name": _TEXT,
        "last_name": _TEXT,
        "type": _TEXT,
        "user_id": _TEXT,
        "archived": _BOOL,
        "created_at": _TIMESTAMP,
        "updated_at": _TIMESTAMP,
        "teams": ColumnType.JSON,
    },
)
PIPELINES: Final = Table(
    "pipelines",
    {
        "id": _TEXT,
        "label": _TEXT,
        "display_order": ColumnType.BIGINT,
        "archived": _BOOL,
        "created_at": _TIMESTAMP,
        "updated_at": _TIMESTAMP,
    },
)
PIPELINE_STAGES: Final = Table(
    "pipeline_stages",
    {
        "id": _TEXT,
        "pipeline_id": _TEXT,
        "label": _TEXT,
        "display_order": ColumnType.BIGINT,
        "is_closed": _BOOL,
        "probability": _DECIMAL,
        "archived": _BOOL,
        "created_at": _TIMESTAMP,
        "updated_at": _TIMESTAMP,
        "metadata": ColumnType.JSON,
    },
)
DEAL_PROPERTIES: Final = Table(
    "deal_properties",
    {
        "name": _TEXT,
        "label": _TEXT,
        "type": _TEXT,
        "field_type": _TEXT,
        "group_name": _TEXT,
        "description": _TEXT,
        "calculated": _BOOL,
        "hubspot_defined": _BOOL,
        "options": ColumnType.JSON,
    },
)
TABLES: Final = {
    table.name: table for table in (USERS, DEALS, PIPELINES, PIPELINE_STAGES, DEAL_PROPERTIES)
}

DEALS_CURRENT: Final = Table(
    "deals_current",
    {name: kind for name, kind in DEALS.columns.items() if name not in {"archived", "archived_at"}},
)
OWNERS: Final = Table("owners", USERS.columns)
DEAL_STAGE_HISTORY: Final = Table(
    "deal_stage_history",
    {
        "deal_id": _TEXT,
        "entered_at": _TIMESTAMP,
        "place": ColumnType.BIGINT,
        "visit": ColumnType.BIGINT,
        "stage_id": _TEXT,
        "pipeline_id": _TEXT,
        "left_at": _TIMESTAMP,
        "seconds": _DECIMAL,
        "is_cut": _BOOL,
        "source_type": _TEXT,
        "source_id": _TEXT,
        "user_id": _TEXT,
    },
)
DEAL_ASSOCIATIONS: Final = Table(
    "deal_associations",
    {"deal_id": _TEXT, "object_type": _TEXT, "object_id": _TEXT, "types": ColumnType.JSON},
)
DEAL_TOMBSTONES: Final = Table(
    "deal_tombstones",
    {
        "deal_id": _TEXT,
        "reason": _TEXT,
        "survivor": _TEXT,
        "archived_at": _TIMESTAMP,
        "properties": ColumnType.JSON,
    },
)
"""The last five, PIPELINES and PIPELINE_STAGES are what syncs keep current."""
