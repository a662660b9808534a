"""Reads the views over what syncs keep current, and checks them against the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from psycopg.rows import dict_row
from pydantic import SecretStr

from hubspot_deals.sync_contract import ANALYSIS_SCHEMA, CURRENT_SCHEMA
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.syncs.schema import OURS

_ROWS: Final[Mapping[str, str]] = {
    "won_lost": f"""
        SELECT month, sum(won)::bigint AS won, sum(lost)::bigint AS lost,
            sum(won_value) AS won_value, sum(lost_value) AS lost_value,
            sum(won) / sum(won + lost) AS win_rate
        FROM {ANALYSIS_SCHEMA}.won_lost WHERE {OURS} GROUP BY month ORDER BY month NULLS LAST
    """,
    "time_in_stage": f"""
        SELECT coalesce(pipeline, pipeline_id) AS pipeline, coalesce(stage, stage_id) AS stage,
            stays, still_there, median_days, mean_days, p90_days
        FROM {ANALYSIS_SCHEMA}.time_in_stage WHERE {OURS}
        ORDER BY pipeline, display_order NULLS LAST, stage
    """,
    "pipeline_value_by_month": f"""
        SELECT month, sum(deals)::bigint AS deals, sum(value) AS value,
            sum(weighted_value) AS weighted_value
        FROM {ANALYSIS_SCHEMA}.pipeline_value_by_month WHERE {OURS}
        GROUP BY month ORDER BY month NULLS LAST
    """,
}
VIEWS: Final = tuple(_ROWS)
_EACH_DEAL: Final = (
    f"""
    SELECT coalesce(sum(c), 0), coalesce(sum(v), 0) FROM (
        SELECT won + lost AS c, won_value + lost_value AS v FROM {ANALYSIS_SCHEMA}.won_lost
        WHERE {OURS}
        UNION ALL
        SELECT deals, value FROM {ANALYSIS_SCHEMA}.pipeline_value_by_month WHERE {OURS}
    ) parts
    """,
    (
        "SELECT count(*), coalesce(sum(coalesce(amount_in_home_currency, amount)), 0)"
        f" FROM {CURRENT_SCHEMA}.deals_current WHERE {OURS}"
    ),
)
_EACH_STAY: Final = (
    (
        "SELECT coalesce(sum(stays + still_there), 0), 0"
        f" FROM {ANALYSIS_SCHEMA}.time_in_stage WHERE {OURS}"
    ),
    f"SELECT count(*), 0 FROM {CURRENT_SCHEMA}.deal_stage_history WHERE {OURS}",
)
_SUMS: Final[Mapping[str, tuple[str, str]]] = {
    "won_lost": _EACH_DEAL,
    "time_in_stage": _EACH_STAY,
    "pipeline_value_by_month": _EACH_DEAL,
}


@dataclass(frozen=True, slots=True)
class ViewReading:
    """What a view shows of one connection, and whether it adds up to the tables below it.

    `counted` and `total` are of the view (with the one that has the other deals), `expected` and
    `expected_total` of the table: deals and their values, or stays in stages.
    """

    rows: Sequence[Mapping[str, Any]]
    counted: int
    total: Decimal
    expected: int
    expected_total: Decimal

    @property
    def adds_up(self) -> bool:
        """Nothing is left out, and nothing counted twice."""
        return (self.counted, self.total) == (self.expected, self.expected_total)


def read_view(
    database_url: SecretStr, organization_id: str, connection_id: str, view: str
) -> ViewReading:
    """Read one of VIEWS as of one moment, summed up for a table or a plot."""
    values = {"organization": organization_id, "connection": connection_id}
    with open_connection(database_url) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        rows = connection.cursor(row_factory=dict_row).execute(_ROWS[view], values).fetchall()
        (counted, total), (expected, expected_total) = (
            connection.execute(query, values).fetchall()[0] for query in _SUMS[view]
        )
    return ViewReading(rows, int(counted), Decimal(total), int(expected), Decimal(expected_total))
