"""What the endpoints work with, for as long as the application lives: `request.state`."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypedDict

import httpx
import limits
from fastapi import FastAPI

from api.access.credentials import Credentials, build_credentials
from api.access.guard import AccessGuard
from api.access.owners import Owners
from api.access.trail import AuditTrail
from api.certificates.service import Auditor
from api.connections.reloader import LocationReloader
from api.connections.service import Connections
from api.dagster.gateway import DagsterGateway, GraphQLGateway
from api.database import ConnectionPool, build_pool, export_connection
from api.diffs.service import DiffReader
from api.downloads.service import Downloads
from api.downloads.spool import Spool
from api.edge.counter import HitCounter
from api.edge.rate_limits import RateLimiter
from api.health.probe import HealthProbe
from api.health.reach import HubSpotReach
from api.logs import configure_logging
from api.metrics.service import Metrics
from api.plans.service import Planner
from api.results.service import ResultReader
from api.scans.background import Background
from api.scans.launcher import ScanLauncher
from api.scans.remover import ScanRemover
from api.scans.run_statuses import RunStatuses
from api.scans.stopper import RunStopper
from api.settings import ApiSettings
from api.webhooks.addresses import AddressGuard, AddressPolicy, parse_networks, parse_ports
from api.webhooks.deliverer import Deliverer
from api.webhooks.sender import Sender
from hubspot_deals import redaction, tracing
from hubspot_deals.contract import SERVICE_NAME
from hubspot_deals.warehouse.credentials import KeyRing

_DAGSTER_SECONDS: Final = 30

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]


class State(TypedDict):
    """What lives as long as the application."""

    settings: ApiSettings
    credentials: Credentials
    access_guard: AccessGuard
    key_ring: KeyRing
    pool: ConnectionPool
    launcher: ScanLauncher
    stopper: RunStopper
    remover: ScanRemover
    probe: HealthProbe
    results: ResultReader
    auditor: Auditor
    run_statuses: RunStatuses
    downloads: Downloads
    planner: Planner
    diffs: DiffReader
    connections: Connections
    rate_limits: RateLimiter | None
    webhook_guard: AddressGuard
    metrics: Metrics


def build_dagster_client(settings: ApiSettings) -> httpx.AsyncClient:
    """Build the client for Dagster's webserver, which is a neighbour: no proxies."""
    return httpx.AsyncClient(
        base_url=str(settings.dagster_url), timeout=_DAGSTER_SECONDS, trust_env=False
    )


def build_downloads(settings: ApiSettings, pool: ConnectionPool) -> Downloads:
    """Build what makes files of results; it works in the background until it is closed."""
    spool = Spool(
        export_connection(settings),
        parent=settings.download_dir,
        most_bytes=settings.download_bytes,
        processes=settings.download_processes,
    )
    return Downloads(pool, spool, keep_seconds=60 * settings.download_minutes)


@asynccontextmanager
async def _limiting(settings: ApiSettings) -> AsyncIterator[RateLimiter | None]:
    if settings.rate_limits == "off":
        yield None
        return
    # Requests that wait for their count may hold all connections of the other pool.
    async with build_pool(settings.model_copy(update={"database_pool_size": 1})) as pool:
        counter = HitCounter(pool)
        yield RateLimiter(
            counter,
            {
                "scans": limits.parse(settings.rate_limit_scans),
                "results": limits.parse(settings.rate_limit_results),
                "maintenance": limits.parse(settings.rate_limit_maintenance),
                "health": limits.parse(settings.rate_limit_health),
            },
        )
        await counter.close()


def build_address_policy(settings: ApiSettings) -> AddressPolicy:
    """Build what says where webhooks may be sent; raises ConfigurationError."""
    return AddressPolicy(
        allowed=parse_networks(settings.webhook_allowed_networks),
        ports=parse_ports(settings.webhook_ports),
        allow_http=settings.webhook_allow_http,
    )


def _build_deliverer(
    settings: ApiSettings, pool: ConnectionPool, key_ring: KeyRing, guard: AddressGuard
) -> Deliverer:
    return Deliverer(
        pool,
        key_ring,
        Sender(guard),
        concurrency=settings.webhook_concurrency,
        log_days=settings.webhook_log_days,
    )


def build_lifespan(
    settings: ApiSettings,
    key_ring: KeyRing,
    policy: AddressPolicy,
    gateway: DagsterGateway | None,
) -> Lifespan:
    """Build what opens everything when the application starts, and closes it when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        redaction.hide_settings(settings.database_url, settings.encryption_keys)
        redaction.hide(settings.jwt_secret)
        configure_logging(settings.log_format)
        tracing.configure(settings.traces_endpoint, f"{SERVICE_NAME}_api")
        async with AsyncExitStack() as stack:
            pool = build_pool(settings)
            await pool.open()
            stack.push_async_callback(pool.close)
            trail = AuditTrail(pool)
            stack.push_async_callback(trail.close)
            client = await stack.enter_async_context(build_dagster_client(settings))
            chosen = gateway or GraphQLGateway(client)
            reach = HubSpotReach(str(settings.hubspot_url))
            probe = HealthProbe(pool, chosen, reach, settings.download_dir)
            stack.push_async_callback(probe.close)
            background = Background()
            stack.push_async_callback(background.close)
            downloads = build_downloads(settings, pool)
            stack.push_async_callback(downloads.close)
            stopper, planner = RunStopper(chosen, background), Planner()
            rate_limits = await stack.enter_async_context(_limiting(settings))
            guard = AddressGuard(policy)
            deliverer = _build_deliverer(settings, pool, key_ring, guard)
            deliverer.start()
            stack.push_async_callback(deliverer.close)
            metrics = Metrics(pool, probe, downloads)
            stack.push_async_callback(metrics.close)
            stack.callback(tracing.close)
            yield {
                "settings": settings,
                "credentials": build_credentials(settings, pool),
                "access_guard": AccessGuard(Owners(pool), trail),
                "key_ring": key_ring,
                "pool": pool,
                "launcher": ScanLauncher(pool, chosen, background),
                "stopper": stopper,
                "remover": ScanRemover(settings.database_url, background),
                "probe": probe,
                "results": ResultReader(pool),
                "auditor": Auditor(pool),
                "run_statuses": RunStatuses(chosen),
                "downloads": downloads,
                "planner": planner,
                "diffs": DiffReader(pool),
                "connections": Connections(
                    pool, key_ring, planner, LocationReloader(chosen, background), stopper
                ),
                "rate_limits": rate_limits,
                "webhook_guard": guard,
                "metrics": metrics,
            }

    return lifespan
