"""The steps of one run of a connection.

Their order is that of docs/decisions/0024, how they are committed that of 0025.
"""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from math import ceil
from typing import Any, Final

import psycopg
import pyarrow as pa
from pyroaring import BitMap64

from hubspot_deals.contract import ScanFilters
from hubspot_deals.errors import HubSpotRequestError
from hubspot_deals.settings import PipelineSettings
from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.arrow import rows_to_arrow
from hubspot_deals.source.batches import MERGED_PROPERTY, read_batches
from hubspot_deals.source.changes import LAG, OVERLAP, open_changes
from hubspot_deals.source.chunks import ChunkCutter
from hubspot_deals.source.deals import LIST_PAGE
from hubspot_deals.source.fates import archived_fate, find_fates
from hubspot_deals.source.identities import (
    MOST_REQUESTS,
    Stretch,
    find_arrivals,
    find_difference,
    list_ids,
    read_archived,
)
from hubspot_deals.source.owners import owner_rows
from hubspot_deals.source.pipelines import pipeline_rows, stage_rows
from hubspot_deals.source.plan import Checkpoint, ListRange
from hubspot_deals.source.properties import (
    PropertySelection,
    needs_definitions,
    select_properties,
)
from hubspot_deals.source.search import UnsoundSearchError
from hubspot_deals.source.stage_history import HISTORY
from hubspot_deals.sync_contract import SyncKind
from hubspot_deals.sync_errors import WrongPortalError
from hubspot_deals.syncing.copying import Copy
from hubspot_deals.syncing.details import Details, chosen
from hubspot_deals.syncing.reports import SyncReport
from hubspot_deals.tables import OWNERS, PIPELINE_STAGES, PIPELINES, Table
from hubspot_deals.warehouse.syncs import runs
from hubspot_deals.warehouse.syncs.known import ids_after, tidy_after_first_load
from hubspot_deals.warehouse.syncs.leases import SyncLease
from hubspot_deals.warehouse.syncs.merging import merge_lists
from hubspot_deals.warehouse.syncs.states import write_state

_ARCHIVED_PAGES: Final = 2
"""Of the archived list, in an ordinary run. A hundred deals each."""
_SLICE: Final = 1_000
"""Deals that are read by id at once, and committed together."""
_ARCHIVED_SLICE: Final = 10
"""Pages of the archived list that are held in memory, where all of it is read."""
_UNPROVED: Final = 3
"""Runs without a proof after which the list takes the search's place."""
_COST: Final = 13
"""Requests that it takes to find one deal by counting; the list has a hundred in each."""
_MANY_PAGES: Final = 2_000
"""Pages of the list up to which a run finds all that vanished at once, whatever that takes."""
_LOOKS: Final = 3
"""Times that a run compares its ids with counts, while deals appear that it did not know of."""
_LEAST_REFRESHED: Final = 100
"""Deals that must be due before any is read: a request is for so many."""


@dataclass(slots=True)
class SyncSteps:
    """The steps of one run of a connection, in order. A window is read again where it is over."""

    settings: PipelineSettings
    window: tuple[datetime | None, datetime | None]
    lease: SyncLease
    account: HubSpotAccount
    report: SyncReport
    beside: ThreadPoolExecutor
    log: logging.Logger
    _began: float = field(default_factory=time.monotonic)
    _after: dict[str, Any] = field(default_factory=dict)
    """Where the next run goes on; written with the run's end."""
    _selection: PropertySelection = field(init=False)
    _now: datetime = field(init=False)
    _details: Details = field(init=False)
    _copy: Copy = field(init=False)

    def carry_out(self) -> SyncReport:
        """Carry them all out; raises HubSpotDealsError."""
        try:
            self._carry_out()
        finally:
            self._count_effort()
        return self._complete()

    def _carry_out(self) -> None:
        self.account.check_access()
        self._check_portal()
        self._selection = self._select()
        self._now = self.account.now()
        self._details = Details(
            self.account, chosen(self.lease.settings.objects), self.report.notes
        )
        self._copy = Copy(self.lease, self._selection, self._now, self.report, self.beside)
        if self.report.kind is SyncKind.BACKFILL:
            self._read_window()
        else:
            self._bring_up_to_date()

    def _count_effort(self) -> None:
        report, counts = self.report, self.account.counts
        report.requests, report.retries = counts.requests, counts.retries
        report.throttled_seconds = self.account.throttled_seconds
        report.seconds = time.monotonic() - self._began
        report.notes += self.account.notes

    def _check_portal(self) -> None:
        found, known = self.account.portal_id, self.lease.portal_id
        if None not in {found, known} and found != known:
            raise WrongPortalError(self.lease.connection_id, known, found)
        self.report.portal_id = found
        if known is None and found is not None:
            # Before any row is: what is loaded in part goes on with this account's deals only.
            runs.claim_portal(self.lease, found)

    def _select(self) -> PropertySelection:
        filters = ScanFilters(properties=self.lease.settings.properties)
        definitions = self.account.fetch_definitions(required=needs_definitions(filters))
        selection = select_properties(filters, definitions)
        return replace(
            selection, fetched=tuple(dict.fromkeys([*selection.fetched, MERGED_PROPERTY]))
        )

    def _cutter(self) -> ChunkCutter:
        return ChunkCutter(
            self.settings.chunk_rows, self.settings.chunk_seconds, self._selection.typed
        )

    def _read_window(self) -> None:
        """Read the changes of a window again; what has changed later is none of them any more."""
        start, end = self.window
        if start is None or end is None:
            msg = "A window that is read again has both ends."
            raise ValueError(msg)
        self._read_changes(start, until=end, overlap=timedelta(0))

    def _bring_up_to_date(self) -> None:
        lists = self.beside.submit(self._fetch_lists)
        since = self.lease.state.cursor or self._load_everything()
        self._read_changes(since)
        self._merge_lists(lists)
        self._read_archived()
        self._compare_ids()
        self._refresh()

    def _load_everything(self) -> datetime:
        """Read the list, from the last committed chunk on; return when that began."""
        stored = self.lease.state.full_pass or {}
        began = datetime.fromisoformat(stored["began"]) if stored else self._now
        earlier = ((str(number), None) for number in self._copy.known.copy())
        start = Checkpoint.from_json(stored.get("checkpoint"))
        self._copy.is_first_load = True
        with self.account.open_deals(
            [ListRange()], self._selection.fetched, start=start, earlier=earlier
        ) as stream:
            for deals in self._copy.cut(stream.pages, self._cutter()):
                reached = deals.checkpoint.to_json() if deals.checkpoint else None
                state = {"began": began.isoformat(), "checkpoint": reached}
                self._copy.put(deals, self._details, {"full_pass": state})
                self.log.info("%s deals loaded", f"{len(self._copy.known):,}")
        self._copy.is_first_load = False
        with self.lease.fenced() as cursor:
            whole = {"cursor": began, "reconciled_at": began, "refreshed_at": began}
            write_state(cursor, self.lease.connection_id, {**whole, "full_pass": None})
        with suppress(psycopg.Error):
            tidy_after_first_load(self.lease)
        return began

    def _read_changes(
        self, since: datetime, *, until: datetime | None = None, overlap: timedelta = OVERLAP
    ) -> None:
        with open_changes(
            self.account,
            since,
            self._selection.fetched,
            until=until,
            overlap=overlap,
            or_list=self.lease.state.unproved_runs >= _UNPROVED,
        ) as stream:
            for deals in self._copy.cut(stream.pages, self._cutter()):
                self._copy.put(deals, self._details)
        self.report.is_proved = stream.is_proved
        self.report.read_until = stream.cursor
        self._after["cursor"] = stream.cursor
        unproved = 0 if stream.is_proved else self.lease.state.unproved_runs + 1
        self._after["unproved_runs"] = unproved

    def _read_archived(self) -> None:
        """Read some of the archived list, going on where the last run stopped."""
        self._after["archived_after"] = self._bury_archived(
            self.lease.state.archived_after, _ARCHIVED_PAGES
        )

    def _bury_archived(self, after: str | None, pages: int) -> str | None:
        passed = self.account.ask(
            partial(
                read_archived, properties=self._selection.fetched, after=after, most_pages=pages
            )
        )
        if passed.deals:
            self._copy.settle([archived_fate(deal) for deal in passed.deals], self._details)
        return passed.following

    def _compare_ids(self) -> None:
        """Find what vanished by counting, or by the list where that is due or no dearer."""
        state = self.lease.state
        if not self._is_due(state.reconciled_at, self.lease.settings.reconcile_hours):
            # Refused, or not to be relied on.
            with suppress(UnsoundSearchError, HubSpotRequestError):
                if self._find_by_counting():
                    return
        self._reconcile()

    def _find_by_counting(self) -> bool:
        """Return whether all is found, or will be found more cheaply by the runs to come."""
        since = self._now - OVERLAP
        suspects = [(low, high) for low, high in self.lease.state.suspects]
        for _ in range(_LOOKS):
            left_open, suspects = self._count_and_find(suspects)
            # What the index has learned meanwhile may have hidden as many that vanished.
            arrived = self.account.ask(partial(find_arrivals, known=self._copy.known, since=since))
            if not arrived:
                break
            self._look_up(arrived)
        self._after |= {"suspects": suspects, "unlocated": self.report.unlocated}
        return not left_open

    def _count_and_find(self, suspects: Sequence[Stretch]) -> tuple[bool, list[Stretch]]:
        """Return whether the list is the cheaper way to what is still open, and where that is."""
        list_pages = len(self._copy.known) // LIST_PAGE
        is_big = list_pages > _MANY_PAGES
        most = MOST_REQUESTS if is_big else max(MOST_REQUESTS, list_pages)
        before = self.account.counts.requests
        found = self.account.ask(
            partial(
                find_difference,
                known=self._copy.known,
                removed=self._copy.removed,
                suspects=suspects,
                most_requests=most,
            )
        )
        # What the index counts wrongly for a while is not found with any number of requests.
        is_over = self.account.counts.requests - before >= most
        self._look_up(found.missing | found.extra)
        self.report.unlocated = found.unlocated
        is_dear = not is_big or found.unlocated * _COST > list_pages
        return bool(found.unlocated and is_over and is_dear), found.suspects

    def _reconcile(self) -> None:
        """Compare all ids with the list, and read the whole bin."""
        if self.report.kind is SyncKind.CHANGES:
            self.report.kind = SyncKind.RECONCILIATION
        after = self._bury_archived(None, _ARCHIVED_SLICE)
        while after is not None:
            after = self._bury_archived(after, _ARCHIVED_SLICE)
        self._look_up(self._copy.known ^ list_ids(self.account))
        self.report.unlocated = 0
        self._after |= {"suspects": [], "unlocated": 0, "reconciled_at": self._now}
        self._after["archived_after"] = None

    def _look_up(self, numbers: BitMap64) -> None:
        """Find out what became of deals, some at a time."""
        ids = [str(number) for number in numbers]
        for start in range(0, len(ids), _SLICE):
            fates = self.account.ask(
                partial(
                    find_fates,
                    ids=ids[start : start + _SLICE],
                    properties=self._selection.fetched,
                )
            )
            self._copy.settle(fates, self._details)

    def _refresh(self) -> None:
        """Read deals anew whose turn it is: all of them in each cycle, in the order of their ids.

        So the next one is always one of those that were read the longest ago, unless it changed.
        """
        before = self.account.counts.requests
        left = self._due_for_refresh()
        after = self.lease.state.refresh_after or ""
        while left > 0:
            ids = ids_after(self.lease.connection, self.lease, after, min(left, _SLICE))
            if not ids and not after:
                break
            # Behind the last one the next cycle begins.
            after = ids[-1] if ids else ""
            self._read_anew(ids, after)
            left -= len(ids)
            self._after["refreshed_at"] = self._now
            self.report.refreshed += len(ids)
        self.report.refresh_requests = self.account.counts.requests - before

    def _due_for_refresh(self) -> int:
        total, last = len(self._copy.known), self.lease.state.refreshed_at
        if last is None:
            return 0
        cycle = timedelta(hours=self.lease.settings.refresh_hours)
        # Rounded up: what is left over of each share would be missing at the end of a cycle.
        due = ceil(min(1.0, (self._now - last) / cycle) * total)
        return due if due >= min(_LEAST_REFRESHED, total) else 0

    def _read_anew(self, ids: Sequence[str], after: str) -> None:
        history = HISTORY if "stage_history" in self._details.wanted else ()
        read = self.account.ask(
            partial(read_batches, ids=ids, properties=self._selection.fetched, history=history)
        )
        self._copy.put_refreshed(read.own(), self._details, {"refresh_after": after})

    def _is_due(self, last: datetime | None, hours: int) -> bool:
        return last is None or self._now - last >= timedelta(hours=hours)

    def _fetch_lists(self) -> dict[Table, pa.Table]:
        """Fetch owners, pipelines and stages; what is refused is left as it is."""
        wanted, lists = self.lease.settings.objects, {}
        refused = len(self.account.refusals)
        if "owners" in wanted:
            owners = self.account.fetch_owners()
            if len(self.account.refusals) == refused:
                lists[OWNERS] = rows_to_arrow(OWNERS, owner_rows(owners, ()))
        refused = len(self.account.refusals)
        if "pipelines" in wanted:
            pipelines = self.account.fetch_pipelines()
            if len(self.account.refusals) == refused:
                lists[PIPELINES] = rows_to_arrow(PIPELINES, pipeline_rows(pipelines))
                lists[PIPELINE_STAGES] = rows_to_arrow(PIPELINE_STAGES, stage_rows(pipelines))
        return lists

    def _merge_lists(self, lists: Future[dict[Table, pa.Table]]) -> None:
        if fetched := lists.result():
            self.report.add_counts(merge_lists(self.lease, fetched, self._now))

    def _complete(self) -> SyncReport:
        report = self.report
        if report.kind is SyncKind.BACKFILL:
            self._after = {}
        elif report.is_proved and not report.unlocated and report.read_until:
            self._after["fresh_as_of"] = report.read_until - LAG
        runs.complete_run(
            self.lease,
            report.kind,
            report.to_json(),
            read_until=report.read_until,
            is_proved=report.is_proved,
            state=self._after,
        )
        return report
