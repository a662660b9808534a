"""Puts the REST facade together: `uvicorn api.main:create_app --factory`."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypedDict

import httpx
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from api.dagster.gateway import DagsterGateway, GraphQLGateway
from api.dependencies import ConnectionPool
from api.docs_pages import add_docs_pages, build_openapi
from api.errors import add_error_handlers
from api.health.endpoints import router as health_router
from api.health.probe import HealthProbe
from api.logs import configure_logging
from api.maintenance.endpoints import router as maintenance_router
from api.middleware import RequestEnvelope
from api.pipeline.endpoints import router as pipeline_router
from api.results.endpoints import router as results_router
from api.scans.background import Background
from api.scans.endpoints import router as scans_router
from api.scans.launcher import ScanLauncher
from api.scans.remover import ScanRemover
from api.scans.stopper import RunStopper
from api.settings import ApiSettings
from hubspot_deals.settings import load_settings
from hubspot_deals.warehouse.credentials import KeyRing

API_VERSION: Final = "1.0.0"
_PREFIX: Final = "/api/v1"
_DESCRIPTION: Final = """
Extracts the deals of a HubSpot account into PostgreSQL: start a scan, follow it, pause, resume or
cancel it, page through its tables, remove it. The HubSpot access token travels in the body of the
start request.
"""
_CONNECT_SECONDS: Final = 5
_POOL_SECONDS: Final = 5
_RECONNECT_SECONDS: Final = 5
_STATEMENT_MILLISECONDS: Final = 30_000
_DAGSTER_SECONDS: Final = 30

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]


class State(TypedDict):
    """What lives as long as the application."""

    settings: ApiSettings
    key_ring: KeyRing
    pool: ConnectionPool
    gateway: DagsterGateway
    launcher: ScanLauncher
    stopper: RunStopper
    remover: ScanRemover
    probe: HealthProbe


def create_app(
    settings: ApiSettings | None = None, *, gateway: DagsterGateway | None = None
) -> FastAPI:
    """Build the application; raises ConfigurationError that names what is missing.

    It starts without PostgreSQL and Dagster and says so in its health check. `gateway` takes the
    place of the Dagster that the settings name.
    """
    chosen = settings or load_settings(ApiSettings)
    return build_app(_lifespan(chosen, KeyRing.parse(chosen.encryption_keys), gateway))


def build_app(lifespan: Lifespan | None = None) -> FastAPI:
    """Build the routes; without a lifespan they can be described but not served."""
    app = FastAPI(
        title="HubSpot Deals Extraction API",
        version=API_VERSION,
        description=_DESCRIPTION.strip(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    versioned = APIRouter(prefix=_PREFIX)
    for router in (
        scans_router,
        results_router,
        pipeline_router,
        maintenance_router,
        health_router,
    ):
        versioned.include_router(router)
    app.include_router(versioned)
    add_docs_pages(app)
    add_error_handlers(app)
    app.add_middleware(RequestEnvelope)
    document = build_openapi(app)
    app.openapi = lambda: document  # type: ignore[method-assign]
    return app


def build_pool(settings: ApiSettings) -> ConnectionPool:
    """Build the closed pool; a connection that died while idle is replaced before it is lent."""
    return AsyncConnectionPool[AsyncConnection[Any]](
        settings.database_url.get_secret_value(),
        min_size=1,
        max_size=settings.database_pool_size,
        timeout=_POOL_SECONDS,
        # The pool's pauses between attempts double; starting over keeps them short after an outage.
        reconnect_timeout=_RECONNECT_SECONDS,
        check=AsyncConnectionPool.check_connection,
        open=False,
        name="api",
        kwargs={
            "autocommit": True,
            "connect_timeout": _CONNECT_SECONDS,
            "options": f"-c statement_timeout={_STATEMENT_MILLISECONDS}",
            "application_name": "hubspot_deals_api",
        },
    )


def build_dagster_client(settings: ApiSettings) -> httpx.AsyncClient:
    """Build the client for Dagster's webserver, which is a neighbour: no proxies."""
    return httpx.AsyncClient(
        base_url=str(settings.dagster_url), timeout=_DAGSTER_SECONDS, trust_env=False
    )


def _lifespan(settings: ApiSettings, key_ring: KeyRing, gateway: DagsterGateway | None) -> Lifespan:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        configure_logging(settings.log_format)
        async with AsyncExitStack() as stack:
            pool = build_pool(settings)
            await pool.open()
            stack.push_async_callback(pool.close)
            client = await stack.enter_async_context(build_dagster_client(settings))
            chosen = gateway or GraphQLGateway(client)
            probe = HealthProbe(pool, chosen)
            stack.push_async_callback(probe.close)
            background = Background()
            stack.push_async_callback(background.close)
            yield {
                "settings": settings,
                "key_ring": key_ring,
                "pool": pool,
                "gateway": chosen,
                "launcher": ScanLauncher(pool, chosen, background),
                "stopper": RunStopper(chosen, background),
                "remover": ScanRemover(settings.database_url, background),
                "probe": probe,
            }

    return lifespan


def _operation_id(route: APIRoute) -> str:
    return route.name
