"""HubSpot to rows. Pure dlt: nothing here knows Dagster, PostgreSQL or the REST facade.

Runs alone as `python -m hubspot_deals.source`.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

import dlt
import pyarrow as pa
from dlt.extract import DltResource

from hubspot_deals.contract import SOURCE_NAME, ScanFilters
from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.arrow import rows_to_arrow
from hubspot_deals.source.chunks import ChunkCutter
from hubspot_deals.source.owners import owner_rows
from hubspot_deals.source.pipelines import pipeline_rows, stage_rows
from hubspot_deals.source.plan import build_plan
from hubspot_deals.source.properties import (
    definition_row,
    needs_definitions,
    select_properties,
)
from hubspot_deals.tables import (
    DEAL_PROPERTIES,
    DEALS,
    PIPELINE_STAGES,
    PIPELINES,
    USERS,
    Table,
)

if TYPE_CHECKING:
    from dlt.common.schema.typing import TTableSchemaColumns

_CHUNK_ROWS, _CHUNK_SECONDS = 10_000, 10.0


def table_resource(table: Table, batches: Iterable[pa.Table]) -> DltResource:
    """Return Arrow batches of one of our tables as a dlt resource."""
    resource: DltResource = dlt.resource(
        iter(batches), name=table.name, columns=_columns(table), write_disposition="append"
    )
    return resource


def _columns(table: Table) -> "TTableSchemaColumns":
    return cast("TTableSchemaColumns", table.dlt_columns())


@dlt.source(name=SOURCE_NAME, max_table_nesting=0)
def hubspot_deals_source(
    account: HubSpotAccount, filters: ScanFilters | None = None
) -> tuple[DltResource, ...]:
    """Deals of a HubSpot account with owners, pipelines, stages and property definitions.

    Args:
        account: The account, entered before the source is extracted.
        filters: Which deals and properties; all live deals with their standard properties if None.

    Returns:
        The resources `deals`, `users`, `pipelines`, `pipeline_stages` and `deal_properties`.
    """
    wanted = filters or ScanFilters()
    owner_ids: set[str] = set()

    def deals() -> Iterator[pa.Table]:
        """An empty batch is the last one: behind it all owners are known."""
        selection = select_properties(
            wanted, account.fetch_definitions(required=needs_definitions(wanted))
        )
        cutter = ChunkCutter(_CHUNK_ROWS, _CHUNK_SECONDS, selection.typed)
        with account.open_deals(build_plan(wanted), selection.fetched) as stream:
            for chunk in cutter.cut(stream.pages):
                yield from chunk.batches
        owner_ids.update(stream.reader.owner_ids)
        yield DEALS.arrow_schema().empty_table()

    def users(batch: pa.Table) -> Iterator[pa.Table]:
        """Follows the deals instead of standing beside them: dlt takes resources in turns."""
        if batch.num_rows == 0:
            yield rows_to_arrow(USERS, owner_rows(account.fetch_owners(), owner_ids))

    def pipelines() -> Iterator[pa.Table]:
        yield rows_to_arrow(PIPELINES, pipeline_rows(account.fetch_pipelines()))

    def pipeline_stages() -> Iterator[pa.Table]:
        yield rows_to_arrow(PIPELINE_STAGES, stage_rows(account.fetch_pipelines()))

    def deal_properties() -> Iterator[pa.Table]:
        yield rows_to_arrow(
            DEAL_PROPERTIES, [definition_row(item) for item in account.fetch_definitions()]
        )

    read_deals = table_resource(DEALS, deals())
    return (
        read_deals,
        dlt.transformer(
            users,
            data_from=read_deals,
            name=USERS.name,
            columns=_columns(USERS),
            write_disposition="append",
        ),
        table_resource(PIPELINES, pipelines()),
        table_resource(PIPELINE_STAGES, pipeline_stages()),
        table_resource(DEAL_PROPERTIES, deal_properties()),
    )
