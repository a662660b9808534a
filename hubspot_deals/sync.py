"""One run of a connection: everything that happened to deals since the last one gets into tables.

This is where source and warehouse meet. It knows nothing of Dagster, which calls it from assets.
The steps are in `syncing`.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime

import psycopg
import pyarrow as pa

from hubspot_deals.errors import ConfigurationError, HubSpotDealsError
from hubspot_deals.redaction import redact
from hubspot_deals.settings import PipelineSettings
from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.client import ConnectionOptions
from hubspot_deals.sync_contract import SyncKind, SyncOutcome
from hubspot_deals.sync_errors import SyncInterruptedError, SyncSupersededError
from hubspot_deals.syncing.reports import SyncReport
from hubspot_deals.syncing.steps import SyncSteps
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.paces import SharedPace
from hubspot_deals.warehouse.syncs import runs
from hubspot_deals.warehouse.syncs.connections import get_token
from hubspot_deals.warehouse.syncs.leases import PATIENCE_SECONDS, SyncLease, hold_sync_lease

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SyncOrder:
    """A run of a connection, and the time that its partitions cover: None without any."""

    connection_id: str
    run_id: str
    window_start: datetime | None = None
    window_end: datetime | None = None


def run_sync(
    settings: PipelineSettings,
    order: SyncOrder,
    *,
    log: logging.Logger,
    is_cancelled: Callable[[], bool],
    patience: float = PATIENCE_SECONDS,
) -> SyncReport:
    """Bring the tables of a connection up to date, and record how that ended.

    A window that ends before the connection's cursor is read again, and nothing else. Raises
    HubSpotDealsError: SyncBusyError when another run is at work for longer than `patience` seconds,
    SyncSupersededError when the connection rests, was removed or was taken over. Whatever ends a
    run, the next one goes on from what is committed.
    """
    # Arrow's own allocator keeps what it has freed.
    pa.set_memory_pool(pa.system_memory_pool())
    with hold_sync_lease(settings.database_url, order.connection_id, patience=patience) as lease:
        report = SyncReport(_kind_of(lease, order))
        runs.begin_run(lease, order.run_id, report.kind, (order.window_start, order.window_end))
        with (
            _logged_end(report),
            _recorded_end(lease, report, is_cancelled),
            _opened(settings, lease) as account,
            ThreadPoolExecutor(3, thread_name_prefix="beside") as beside,
        ):
            lease.heartbeat.call_when_lost(account.abort)
            window = (order.window_start, order.window_end)
            return SyncSteps(settings, window, lease, account, report, beside, log).carry_out()


def _opened(settings: PipelineSettings, lease: SyncLease) -> HubSpotAccount:
    options = ConnectionOptions.of(settings)
    return HubSpotAccount(
        get_token(lease.connection, lease.connection_id, KeyRing.parse(settings.encryption_keys)),
        replace(options, share=options.share * lease.settings.quota_share),
        SharedPace(lease.heartbeat.connection),
    )


def _kind_of(lease: SyncLease, order: SyncOrder) -> SyncKind:
    cursor = lease.state.cursor
    if cursor is None:
        return SyncKind.FIRST_LOAD
    if order.window_start and order.window_end and order.window_end <= cursor:
        return SyncKind.BACKFILL
    return SyncKind.CHANGES


@contextmanager
def _logged_end(report: SyncReport) -> Iterator[None]:
    began, outcome = time.monotonic(), "terminated"
    try:
        yield
        outcome = "completed"
    except SyncSupersededError:
        outcome = "superseded"
        raise
    except SyncInterruptedError:
        outcome = "interrupted"
        raise
    except Exception:
        outcome = "failed"
        raise
    finally:
        facts = {"outcome": outcome, "deals": report.deals, "requests": report.requests}
        seconds = round(time.monotonic() - began, 3)
        logger.info("run ended", extra={**facts, "seconds": seconds})


@contextmanager
def _recorded_end(
    lease: SyncLease, report: SyncReport, is_cancelled: Callable[[], bool]
) -> Iterator[None]:
    """Write down how a run ended early. A lease that was lost is the reason above all others."""
    try:
        yield
    except Exception as error:
        if isinstance(error, psycopg.OperationalError):
            reason: HubSpotDealsError = SyncInterruptedError(lease.connection_id, str(error))
        elif isinstance(error, HubSpotDealsError):
            reason = error
        else:
            _end(
                lease,
                report,
                SyncOutcome.FAILED,
                f"Unexpected {type(error).__name__}; its run in Dagster has the details.",
            )
            raise
        if lease.was_lost():
            reason = SyncSupersededError(lease.connection_id, lease.epoch)
        is_superseded = isinstance(reason, SyncSupersededError)
        _end(
            lease,
            report,
            SyncOutcome.CANCELLED if is_superseded else SyncOutcome.FAILED,
            redact(str(reason)),
        )
        raise reason from error
    except BaseException:  # an interrupt
        # Without this the next run takes it for a crash.
        if is_cancelled():
            _end(lease, report, SyncOutcome.CANCELLED, None)
        raise


def _end(lease: SyncLease, report: SyncReport, outcome: SyncOutcome, message: str | None) -> None:
    with suppress(psycopg.Error, ConfigurationError):
        runs.end_run(lease, outcome, message, report.to_json())
