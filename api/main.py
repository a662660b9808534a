"""Puts the REST facade together: `uvicorn api.main:create_app --factory`."""

from functools import cache, partial
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from api.access.credentials import check_access
from api.access.gate import AccessGate
from api.access.route import check_routes
from api.certificates.endpoints import router as certificates_router
from api.connections.endpoints import router as connections_router
from api.dagster.gateway import DagsterGateway
from api.dialect.endpoints import router as verb_first_router
from api.dialect.endpoints import start_router as verb_first_start_router
from api.dialect.grammar import PREFIX
from api.diffs.endpoints import router as diffs_router
from api.docs_pages import add_docs_pages, build_openapi
from api.downloads.endpoints import router as downloads_router
from api.edge.rate_limits import RateLimits
from api.edge.security import allow_origins
from api.errors import add_error_handlers
from api.health.endpoints import router as health_router
from api.health.meter import RequestMeter
from api.maintenance.endpoints import router as maintenance_router
from api.metrics.endpoints import router as metrics_router
from api.middleware import RequestEnvelope
from api.pipeline.endpoints import router as pipeline_router
from api.plans.endpoints import router as plans_router
from api.results.endpoints import page_router
from api.results.endpoints import router as results_router
from api.scans.endpoints import router as scans_router
from api.scans.endpoints import start_router
from api.services import Lifespan, build_address_policy, build_lifespan
from api.settings import ApiSettings
from api.webhooks.endpoints import router as webhooks_router
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
    lifespan = build_lifespan(chosen, key_ring, policy, gateway)
    return build_app(lifespan, cors_origins=chosen.cors_origins)


def build_app(lifespan: Lifespan | None = None, *, cors_origins: str = "") -> FastAPI:
    """Build the routes; without a lifespan they can be described but not served."""
    app = FastAPI(
        title="HubSpot Deals Extraction API",
        version=API_VERSION,
        description=_DESCRIPTION.strip(),
        lifespan=lifespan,
        openapi_tags=[{"name": name} for name in _TAGS],
        openapi_url=None,
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
    # When it is first asked for: it takes as long as all the rest.
    app.openapi = cache(partial(build_openapi, app))  # type: ignore[method-assign]
    return app


def _operation_id(route: APIRoute) -> str:
    """Name an operation after its function, and after the root where it is there."""
    return route.name if route.path.startswith(f"{PREFIX}/") else f"{route.name}_at_root"
