"""The views of a connection as assets: a table, a plot and a check of each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from hubspot_deals.defs.failures import secrets_kept
from hubspot_deals.defs.markdown import as_markdown
from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.sync_contract import ANALYSIS_SCHEMA
from hubspot_deals.sync_defs.plots import plot_bars
from hubspot_deals.warehouse.syncs.analysis import ViewReading, read_view
from hubspot_deals.warehouse.syncs.connections import StoredConnection

ADDS_UP_CHECK: Final = "adds_up"
_MOST_ROWS: Final = 60
_Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _View:
    """What is told of a view: the tables it is made of, and what its bars are."""

    tables: Sequence[str]
    description: str
    title: str
    label: Callable[[_Row], str]
    bars: Mapping[str, str]


def _month(row: _Row) -> str:
    return f"{row['month']:%Y-%m}" if row["month"] else "no close date"


_VIEWS: Final[Mapping[str, _View]] = {
    "won_lost": _View(
        ("deals_current", "pipelines", "pipeline_stages", "owners"),
        "Deals won and lost by month, owner and pipeline: how many, their value, the rate.",
        "Closed deals by month",
        _month,
        {"won": "won", "lost": "lost"},
    ),
    "time_in_stage": _View(
        ("deal_stage_history", "pipelines", "pipeline_stages"),
        "How long deals stand in each stage: median, mean and 90th percentile.",
        "Days in stage",
        lambda row: str(row["stage"])[:24],
        {"median": "median_days", "90 of 100 deals at most": "p90_days"},
    ),
    "pipeline_value_by_month": _View(
        ("deals_current", "pipelines", "pipeline_stages"),
        "Value of the open deals by the month of their close date, in full and weighted.",
        "Open pipeline by month",
        _month,
        {"value": "value", "weighted": "weighted_value"},
    ),
}


def build_analysis(connection: StoredConnection) -> dg.AssetsDefinition:
    """Return the views over a connection's tables. They are views: a run only looks at them."""
    connection_id = connection.connection_id

    @dg.multi_asset(
        name=f"analyse_{connection_id}",
        specs=[_spec(connection_id, name, view) for name, view in _VIEWS.items()],
        check_specs=[
            dg.AssetCheckSpec(
                ADDS_UP_CHECK,
                asset=[connection_id, name],
                description="Every deal, or stay in a stage, is counted once, with its value.",
            )
            for name in _VIEWS
        ],
    )
    def views(
        pipeline: PipelineSettingsResource,
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """Look at the views, draw them, and check them against the tables."""
        database_url = pipeline.resolve().database_url
        with secrets_kept():
            for name, view in _VIEWS.items():
                reading = read_view(database_url, connection.organization_id, connection_id, name)
                yield _result(connection_id, name, view, reading)

    return views


def _spec(connection_id: str, name: str, view: _View) -> dg.AssetSpec:
    return dg.AssetSpec(
        [connection_id, name],
        deps=[[connection_id, table] for table in view.tables],
        group_name=connection_id,
        description=view.description,
        kinds={"view", "postgres"},
        metadata={"dagster/table_name": f"{ANALYSIS_SCHEMA}.{name}"},
    )


def _result(
    connection_id: str, name: str, view: _View, reading: ViewReading
) -> dg.MaterializeResult[Any]:
    labels = [view.label(row) for row in reading.rows]
    bars = {
        shown: [float(row[column] or 0) for row in reading.rows]
        for shown, column in view.bars.items()
    }
    return dg.MaterializeResult(
        asset_key=[connection_id, name],
        metadata={
            "plot": dg.MetadataValue.md(plot_bars(view.title, labels, bars)),
            "table": dg.MetadataValue.md(
                as_markdown(reading.rows[-_MOST_ROWS:], if_empty="nothing yet")
            ),
            "rows": dg.MetadataValue.int(len(reading.rows)),
        },
        check_results=[
            dg.AssetCheckResult(
                asset_key=[connection_id, name],
                check_name=ADDS_UP_CHECK,
                passed=reading.adds_up,
                metadata={
                    "counted": dg.MetadataValue.int(reading.counted),
                    "expected": dg.MetadataValue.int(reading.expected),
                    "value": dg.MetadataValue.text(f"{reading.total:f}"),
                    "expected_value": dg.MetadataValue.text(f"{reading.expected_total:f}"),
                },
            )
        ],
    )
