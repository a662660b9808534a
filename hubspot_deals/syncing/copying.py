"""The copy of an account's deals: everything that a run reads of them gets into it here."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyroaring import BitMap64

from hubspot_deals.source.arrow import deals_to_arrow
from hubspot_deals.source.batches import merged_ids
from hubspot_deals.source.chunks import ChunkCutter
from hubspot_deals.source.deals import DealPage
from hubspot_deals.source.fates import End, Fate
from hubspot_deals.source.plan import Checkpoint
from hubspot_deals.source.properties import PropertySelection
from hubspot_deals.source.stage_history import stage_rows
from hubspot_deals.syncing.details import Details, rows_of, tombstone_rows
from hubspot_deals.syncing.reports import SyncReport
from hubspot_deals.tables import DEAL_STAGE_HISTORY
from hubspot_deals.warehouse.syncs.known import known_ids
from hubspot_deals.warehouse.syncs.leases import SyncLease
from hubspot_deals.warehouse.syncs.merging import DealChunk, merge_chunk


@dataclass(slots=True)
class ReadDeals:
    """Deals on their way into the tables: live ones, who was merged into them, and who is gone."""

    batches: Sequence[pa.Table]
    ids: list[str]
    losers: dict[str, str] = field(default_factory=dict)
    fates: Sequence[Fate] = ()
    is_certain: bool = False
    checkpoint: Checkpoint | None = None


class Copy:
    """The tables of one connection while a run writes them.

    `removed` are the ids that this run has found to be live no longer, `is_first_load` says that
    what is put is nothing that has changed.
    """

    def __init__(
        self,
        lease: SyncLease,
        selection: PropertySelection,
        as_of: datetime,
        report: SyncReport,
        beside: ThreadPoolExecutor,
    ) -> None:
        """`as_of` is the moment, by HubSpot's clock, from which on everything is read."""
        self.removed = BitMap64()
        self.is_first_load = False
        self._lease = lease
        self._selection = selection
        self._as_of = as_of
        self._report = report
        self._beside = beside
        # A million of them take a second, as do HubSpot's first answers.
        self._known: Future[BitMap64] = beside.submit(known_ids, lease)

    @property
    def known(self) -> BitMap64:
        """The ids of all live deals."""
        return self._known.result()

    def cut(self, pages: Iterator[DealPage], cutter: ChunkCutter) -> Iterator[ReadDeals]:
        """Yield the deals of a stream in chunks, each to be put before the next is asked for."""
        losers: dict[str, str] = {}
        for chunk in cutter.cut(_noting_losers(pages, losers)):
            ids = [deal_id for batch in chunk.batches for deal_id in batch["id"].to_pylist()]
            yield ReadDeals(chunk.batches, ids, dict(losers), checkpoint=chunk.checkpoint)
            losers.clear()
            self._report.unfit_values += cutter.unfit
            cutter.unfit.clear()

    def put(self, deals: ReadDeals, details: Details, state: dict[str, Any] | None = None) -> None:
        """Merge deals, with what they are associated with and where they stood."""
        associations = self._beside.submit(details.associations, deals.ids)
        stages = details.stages(deals.ids)
        self._merge(deals, associations.result(), stages, state)

    def put_refreshed(
        self, deals: Sequence[dict[str, Any]], details: Details, state: dict[str, Any]
    ) -> None:
        """Merge deals that were read by id, with their histories if those are wanted."""
        read = self._of(deals)
        stages = None
        if "stage_history" in details.wanted:
            rows = [row for deal in deals for row in stage_rows(deal)]
            stages = rows_of(DEAL_STAGE_HISTORY, rows)
        self._merge(read, details.associations(read.ids), stages, state)

    def settle(self, fates: Sequence[Fate], details: Details) -> None:
        """Put what is live, and bury what is not."""
        live = self._of([fate.deal for fate in fates if fate.end is End.LIVE and fate.deal])
        live.fates = [fate for fate in fates if fate.end is not End.LIVE]
        live.is_certain = True
        self.put(live, details)

    def _of(self, deals: Sequence[dict[str, Any]]) -> ReadDeals:
        losers = {loser: str(deal["id"]) for deal in deals for loser in merged_ids(deal)}
        batch = deals_to_arrow(deals, self._selection.typed, self._report.unfit_values)
        return ReadDeals([batch], [str(deal["id"]) for deal in deals], losers)

    def _merge(
        self,
        deals: ReadDeals,
        associations: pa.Table | None,
        stages: pa.Table | None,
        state: dict[str, Any] | None,
    ) -> None:
        buried = tombstone_rows(deals.fates, deals.losers)
        merged = merge_chunk(
            self._lease,
            DealChunk(
                as_of=self._as_of,
                properties=self._selection.fetched,
                deals=deals.batches,
                ids=deals.ids,
                associations=associations,
                stages=stages,
                buried=buried,
                is_certain=deals.is_certain,
                is_first_load=self.is_first_load,
            ),
            state,
        )
        self._report.add(merged)
        self.known.update(map(int, deals.ids))
        gone = BitMap64(map(int, [*merged.left_out, *buried["deal_id"].to_pylist()]))
        self.removed |= gone & self.known
        self.known.difference_update(gone)


def _noting_losers(pages: Iterator[DealPage], losers: dict[str, str]) -> Iterator[DealPage]:
    for page in pages:
        for deal in page.deals:
            losers.update(dict.fromkeys(merged_ids(deal), str(deal["id"])))
        yield page
