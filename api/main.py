"""Puts the REST facade together: `uvicorn api.main:create_app --factory`."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypedDict

import httpx
import limits
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from api.access.credentials import Credentials, build_credentials, check_access
from api.access.gate import AccessGate
from api.access.guard import AccessGuard
from api.access.owners import Owners
from api.access.route import check_routes
from api.access.trail import AuditTrail
from api.certificates.endpoints import router as certificates_router
from api.certificates.service import Auditor
from api.connections.endpoints import router as connections_router
from api.connections.reloader import LocationReloader
from api.connections.service import Connections
from api.dagster.gateway import DagsterGateway, GraphQLGateway
from api.database import ConnectionPool, build_pool, export_connection
from api.dialect.endpoints import router as verb_first_router
from api.dialect.endpoints import start_router as verb_first_start_router
from api.dialect.grammar import PREFIX
from api.diffs.endpoints import router as diffs_router
from api.diffs.service import DiffReader
from api.docs_pages import add_docs_pages, build_openapi
from api.downloads.endpoints import router as downloads_router
from api.downloads.service import Downloads
from api.downloads.spool import Spool
from api.edge.counter import HitCounter
from api.edge.rate_limits import RateLimiter, RateLimits
from api.edge.security import allow_origins
from api.errors import add_error_handlers
from api.health.endpoints import router as health_router
from api.health.meter import RequestMeter
from api.health.probe import HealthProbe
from api.health.reach import HubSpotReach
from api.logs import configure_logging
from api.maintenance.endpoints import router as maintenance_router
from api.metrics.endpoints import router as metrics_router
from api.metrics.service import Metrics
from api.middleware import RequestEnvelope
from api.pipeline.endpoints import router as pipeline_router
from api.plans.endpoints import router as plans_router
from api.plans.service import Planner
from api.results.endpoints import page_router
from api.results.endpoints import router as results_router
from api.results.service import ResultReader
from api.scans.background import Background
from api.scans.endpoints import router as scans_router
from api.scans.endpoints import start_router
from api.scans.launcher import ScanLauncher
from api.scans.remover import ScanRemover
from api.scans.run_statuses import RunStatuses
from api.scans.stopper import RunStopper
from api.settings import ApiSettings
from api.webhooks.addresses import AddressPolicy, parse_networks, parse_ports
from api.webhooks.addresses import Guard as AddressGuard
from api.webhooks.deliverer import Deliverer
from api.webhooks.endpoints import router as webhooks_router
from api.webhooks.sender import Sender
from hubspot_deals import redaction, tracing
from hubspot_deals.contract import SERVICE_NAME
from hubspot_deals.settings import load_settings
from hubspot_deals.warehouse.credentials import KeyRing

API_VERSION: Final = "1.0.0"
_DESCRIPTION: Final = """
Extracts the deals of a HubSpot account into PostgreSQL: start a scan, follow it, pause, resume or
cancel it; read its tables by pages or as files, prove that nothing is missing, compare it with
another scan; remove it. Or connect an account, and its deals are kept current. The HubSpot access
token travels in the body of a request, never in an answer.
"""
_TAGS: Final = ("plans", "scans", "results", "connections", "scans, verb first")
"""How the documentation begins; the others follow."""
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


def create_app(
    settings: ApiSettings | None = None, *, gateway: DagsterGateway | None = None
) -> FastAPI:
    """Build the application; raises ConfigurationError that names what is missing.

    It starts without PostgreSQL and Dagster and says so in its health check. `gateway` takes the
    place of the Dagster that the settings name.
    """
    chosen = settings or load_settings(ApiSettings)
    check_access(chosen)
    key_ring, policy = KeyRing.parse(chosen.encryption_keys), build_address_policy(chosen)
    lifespan = _lifespan(chosen, key_ring, policy, gateway)
    return build_app(lifespan, cors_origins=chosen.cors_origins)


def build_app(lifespan: Lifespan | None = None, *, cors_origins: str = "") -> FastAPI:
    """Build the routes; without a lifespan they can be described but not served."""
    app = FastAPI(
        title="HubSpot Deals Extraction API",
        version=API_VERSION,
        description=_DESCRIPTION.strip(),
        lifespan=lifespan,
        openapi_tags=[{"name": name} for name in _TAGS],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    # Each is tried in this order: pages are asked for most. Where a path is of both grammars, the
    # one that the mount is at home in comes first (`dialect/grammar.py`).
    id_first = (
        page_router,
        scans_router,
        results_router,
        certificates_router,
        downloads_router,
        diffs_router,
        plans_router,
    )
    versioned = APIRouter(prefix=PREFIX)
    for router in (
        *id_first,
        start_router,
        connections_router,
        pipeline_router,
        maintenance_router,
        webhooks_router,
        health_router,
        verb_first_router,
    ):
        versioned.include_router(router)
    app.include_router(versioned)
    for router in (verb_first_start_router, verb_first_router, *id_first, health_router):
        app.include_router(router)
    app.include_router(metrics_router)
    add_docs_pages(app)
    add_error_handlers(app)
    check_routes(app)
    app.state.meter = RequestMeter()
    # The last one added is the first that a request meets. All are inside the envelope, so that a
    # refusal has its request id and its log line; limits are a caller's, who is known by then.
    app.add_middleware(RateLimits)
    app.add_middleware(AccessGate)
    if cors_origins:
        allow_origins(app, cors_origins)
    app.add_middleware(RequestEnvelope, meter=app.state.meter)
    document = build_openapi(app)
    app.openapi = lambda: document  # type: ignore[method-assign]
    return app


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


def _lifespan(
    settings: ApiSettings,
    key_ring: KeyRing,
    policy: AddressPolicy,
    gateway: DagsterGateway | None,
) -> Lifespan:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        redaction.hide_settings(settings.database_url, settings.encryption_keys)
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
            deliverer = Deliverer(
                pool,
                key_ring,
                Sender(guard),
                concurrency=settings.webhook_concurrency,
                log_days=settings.webhook_log_days,
            )
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


def _operation_id(route: APIRoute) -> str:
    """Name an operation after its function, and after the root where it is there."""
    return route.name if route.path.startswith(f"{PREFIX}/") else f"{route.name}_at_root"
