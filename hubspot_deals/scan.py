"""One run of a scan: read chunk by chunk, commit each, prove the whole, then serve it.

This is where source and warehouse meet. It knows nothing of Dagster, which calls it from an asset.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import psycopg
import pyarrow as pa

from hubspot_deals.certificate import Certificate, HubSpotCount, certify, faults_of
from hubspot_deals.errors import (
    DatabaseLostError,
    DealsMissingError,
    HubSpotBusyError,
    HubSpotDealsError,
    IncompleteScanError,
    LeaseLostError,
    LoadFailedError,
    ScanPausedError,
    TransientError,
)
from hubspot_deals.redaction import redact
from hubspot_deals.settings import PipelineSettings
from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.arrow import rows_to_arrow
from hubspot_deals.source.chunks import Chunk, ChunkCutter
from hubspot_deals.source.client import ConnectionOptions
from hubspot_deals.source.owners import owner_rows
from hubspot_deals.source.pipelines import pipeline_rows, stage_rows
from hubspot_deals.source.plan import Checkpoint, build_plan
from hubspot_deals.source.properties import (
    PropertySelection,
    definition_row,
    needs_definitions,
    select_properties,
)
from hubspot_deals.tables import (
    DEAL_PROPERTIES,
    DEALS,
    PIPELINE_STAGES,
    PIPELINES,
    TABLES,
    USERS,
    Table,
)
from hubspot_deals.warehouse import chunks, outcomes
from hubspot_deals.warehouse.audits import TableAudit, audit_tables
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.figures import counted
from hubspot_deals.warehouse.leases import Lease, hold_lease
from hubspot_deals.warehouse.loading import ChunkLoader
from hubspot_deals.warehouse.outcomes import TableResult
from hubspot_deals.warehouse.paces import SharedPace
from hubspot_deals.warehouse.pipeline import ScanPipeline
from hubspot_deals.warehouse.views import keep_view

_LOG_SECONDS: Final = 10.0
_PREVIEW_ROWS: Final = 5
_PREVIEW_COLUMNS: Final = ("id", "dealname", "amount", "dealstage", "closedate", "archived")


@dataclass(slots=True)
class ScanReport:
    """What one run did: for the run's metadata and the scan's status."""

    counts: list[TableAudit] = field(default_factory=list)
    certificate: Certificate | None = None
    seconds: float = 0.0
    requests: int = 0
    retries: int = 0
    throttled_seconds: float = 0.0
    portal_id: int | None = None
    unknown_properties: tuple[str, ...] = ()
    unfit_values: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    preview: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return what callers see of it, in the spelling of the REST documents."""
        return {
            "tables": {count.table_name: count.stored for count in self.counts},
            "seconds": round(self.seconds, 3),
            "requests": self.requests,
            "retries": self.retries,
            "throttledSeconds": round(self.throttled_seconds, 3),
            "portalId": self.portal_id,
            "unknownProperties": list(self.unknown_properties),
            "unfitValues": self.unfit_values,
            "notes": self.notes,
        }


@dataclass(frozen=True, slots=True)
class Launch:
    """Which run carries out which scan; `epoch` is None for a rerun by hand."""

    scan_id: str
    run_id: str
    epoch: int | None


def run_scan(
    settings: PipelineSettings,
    launch: Launch,
    *,
    log: logging.Logger,
    is_cancelled: Callable[[], bool],
) -> ScanReport:
    """Carry one scan out, from its last committed chunk on, and record how it ended.

    Raises HubSpotDealsError: LeaseLostError when the scan was paused, cancelled or taken over,
    ScanPausedError when it waits for HubSpot. An interrupt leaves the scan without outcome, so that
    it goes on, unless `is_cancelled` says that it was meant.
    """
    # Arrow's own allocator keeps what it has freed: 40 MB of a worker's memory, measured.
    pa.set_memory_pool(pa.system_memory_pool())
    with (
        hold_lease(
            settings.database_url, launch.scan_id, launch.run_id, launch_epoch=launch.epoch
        ) as lease,
        counted(lease) as figures,
        _recorded_failure(lease, is_cancelled),
        HubSpotAccount(
            lease.get_token(KeyRing.parse(settings.encryption_keys)),
            ConnectionOptions.of(settings),
            SharedPace(lease.heartbeat.connection),
        ) as account,
        ScanPipeline(
            settings.database_url,
            f"scan_{lease.seq}_{lease.epoch}",
            session_name=lease.session_name,
        ) as pipeline,
        ChunkLoader(lease, pipeline, account.abort) as loader,
    ):
        lease.heartbeat.call_when_lost(account.abort)
        chunks.delete_uncounted_rows(lease)
        try:
            return _ScanRun(settings, lease, account, loader, log).carry_out()
        finally:
            figures.deals = loader.committed_deals
            figures.requests, figures.retries = account.counts.requests, account.counts.retries
            figures.throttled_seconds = account.throttled_seconds


@contextmanager
def _recorded_failure(lease: Lease, is_cancelled: Callable[[], bool]) -> Iterator[None]:
    """Write down how the run ended, where the caller of the scan sees it.

    A lease that was lost meanwhile is the reason above all others.
    """
    try:
        yield
    except LeaseLostError:
        raise
    except Exception as error:
        if lease.was_lost():
            raise LeaseLostError(lease.config.scan_id, lease.epoch) from error
        with suppress(psycopg.Error, DatabaseLostError):
            _record(lease, error)
        raise
    except BaseException:  # an interrupt
        if is_cancelled():
            with suppress(psycopg.Error, TransientError):
                outcomes.cancel(lease)
        raise


def _record(lease: Lease, error: Exception) -> None:
    """Decide what an error means for the scan: it waits, goes on elsewhere, or has failed."""
    if isinstance(error, psycopg.OperationalError):
        error = DatabaseLostError(lease.config.scan_id, str(error))
    message = (
        redact(str(error))
        if isinstance(error, HubSpotDealsError)
        else f"Unexpected {type(error).__name__}; Dagster run {lease.run_id} has its details."
    )
    match error:
        case HubSpotBusyError(free_at=datetime() as free_at):
            if outcomes.pause(lease, free_at, message):
                raise ScanPausedError(lease.config.scan_id, free_at) from error
        case LoadFailedError() | DatabaseLostError():
            outcomes.note_interruption(lease, message)
        case IncompleteScanError() | DealsMissingError():
            chunks.start_over(lease)
            outcomes.fail(lease, message)
        case _:
            outcomes.fail(lease, message)


class _ScanRun:
    """The steps of one run, in order."""

    def __init__(
        self,
        settings: PipelineSettings,
        lease: Lease,
        account: HubSpotAccount,
        loader: ChunkLoader,
        log: logging.Logger,
    ) -> None:
        self._settings = settings
        self._lease = lease
        self._filters = lease.config.filters
        self._account = account
        self._loader = loader
        self._waiting: dict[Table, list[pa.Table]] = {}
        self._log = log
        self._logged = time.monotonic()
        self._began = time.monotonic()
        self._report = ScanReport()

    def carry_out(self) -> ScanReport:
        self._account.check_access()
        self._log.info("token accepted by portal %s", self._account.portal_id)
        definitions = self._account.fetch_definitions(required=needs_definitions(self._filters))
        selection = select_properties(self._filters, definitions)
        self._report.unknown_properties = selection.unknown
        self._fetch_surroundings(definitions)
        read = self._load_deals(selection)
        # While the last chunk is being loaded.
        counted = HubSpotCount(*self._account.count_now(self._filters.date_range))
        self._loader.finish()
        self._complete(selection, read, counted)
        return self._report

    def _fetch_surroundings(self, definitions: Sequence[dict[str, Any]]) -> None:
        """Get the small tables that explain the deals, to be loaded with the first of them."""
        if self._is_loaded(PIPELINES):
            return
        pipelines = self._account.fetch_pipelines()
        self._waiting = {
            PIPELINES: [rows_to_arrow(PIPELINES, pipeline_rows(pipelines))],
            PIPELINE_STAGES: [rows_to_arrow(PIPELINE_STAGES, stage_rows(pipelines))],
            DEAL_PROPERTIES: [
                rows_to_arrow(DEAL_PROPERTIES, [definition_row(item) for item in definitions])
            ],
        }

    def _load_deals(self, selection: PropertySelection) -> int:
        """Load what is missing of the deals, chunk by chunk, and their users.

        An account of one chunk is one package: each has its price, however small it is. Returns
        how many deals were read, in earlier runs too.
        """
        _, committed, stored = chunks.last_checkpoint(self._lease, DEALS.name)
        expected = self._expected_deals()
        self._lease.report_progress(deals=committed, expected=expected)
        must_load_users = not self._is_loaded(USERS)
        cutter = ChunkCutter(
            self._settings.chunk_rows, self._settings.chunk_seconds, selection.typed
        )
        with self._account.open_deals(
            build_plan(self._filters),
            selection.fetched,
            start=Checkpoint.from_json(stored),
            earlier=chunks.committed_deals(self._lease),
        ) as stream:
            for number, chunk in enumerate(cutter.cut(stream.pages)):
                if chunk.is_last and number == 0 and must_load_users:
                    self._fetch_users(stream.reader.owner_ids)
                    must_load_users = False
                self._preview(chunk)
                self._waiting[DEALS] = chunk.batches
                self._load(chunk.checkpoint, dict(+cutter.unfit))
                cutter.unfit.clear()
                self._log_progress(committed + self._loader.committed_deals, expected)
        if must_load_users:
            self._fetch_users(stream.reader.owner_ids)
        if self._waiting:
            self._load()
        return len(stream.reader.seen)

    def _log_progress(self, deals: int, expected: int | None) -> None:
        """Each line is an event of Dagster, which takes the worker another connection."""
        now = time.monotonic()
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            self._log.info("%s deals committed (of %s)", f"{deals:,}", expected)

    def _expected_deals(self) -> int | None:
        """HubSpot counts live deals only, so with archived ones the total is not known."""
        if self._filters.include_archived:
            return None
        return self._account.count_deals(self._filters.date_range)

    def _fetch_users(self, owner_ids: set[str]) -> None:
        owners = self._account.fetch_owners()
        self._waiting[USERS] = [rows_to_arrow(USERS, owner_rows(owners, owner_ids))]

    def _complete(self, selection: PropertySelection, read: int, counted: HubSpotCount) -> None:
        """Prove what is stored and serve it, or say what is wrong with it."""
        self._report.counts = audit_tables(self._lease, list(TABLES))
        if faults := faults_of(self._report.counts, read):
            raise IncompleteScanError(faults)
        certificate = certify(self._lease, self._account, self._report.counts, read, counted)
        self._report.certificate, proof = certificate, certificate.to_json()
        self._report.portal_id = self._account.portal_id
        self._sum_up(chunks.chunk_facts(self._lease))
        counts = self._account.counts
        self._report.requests, self._report.retries = counts.requests, counts.retries
        self._report.throttled_seconds = self._account.throttled_seconds
        self._report.seconds = time.monotonic() - self._began
        if certificate.recount.missing:
            raise DealsMissingError(certificate.recount.missing, proof)
        shown = {
            DEALS.name: ("id", *(name for name in selection.shown if name != "id"))
            + (("archived", "archivedAt") if self._filters.include_archived else ())
        }
        outcomes.complete(
            self._lease,
            [
                TableResult(
                    table_name=count.table_name,
                    row_count=count.stored,
                    extracted_count=count.committed,
                    columns=shown.get(count.table_name, tuple(TABLES[count.table_name].columns)),
                )
                for count in self._report.counts
            ],
            self._report.to_json()
            | {"runId": self._lease.run_id, "complete": certificate.is_complete},
            proof,
        )
        keep_view(self._lease.connection, self._lease.config.organization_id)

    def _sum_up(self, facts: Sequence[dict[str, Any]]) -> None:
        """Put together what this run and those before it have noticed."""
        unfit: Counter[str] = Counter()
        notes: dict[str, None] = {}
        for chunk in facts:
            unfit.update(chunk["unfit"])
            notes |= dict.fromkeys(chunk["notes"])
        self._report.unfit_values, self._report.notes = dict(unfit), list(notes)

    def _is_loaded(self, table: Table) -> bool:
        return chunks.last_checkpoint(self._lease, table.name)[0] > 0

    def _load(
        self, checkpoint: Checkpoint | None = None, unfit: dict[str, int] | None = None
    ) -> None:
        """Begin to load what waits, as one package, once the one before is committed."""
        self._loader.begin(
            self._waiting,
            checkpoint=checkpoint.to_json() if checkpoint else None,
            facts={"unfit": unfit or {}, "notes": list(self._account.notes)},
        )
        self._waiting = {}

    def _preview(self, chunk: Chunk) -> None:
        if not self._report.preview and chunk.batches:
            head = chunk.batches[0].select(_PREVIEW_COLUMNS).slice(0, _PREVIEW_ROWS)
            self._report.preview = head.to_pylist()
