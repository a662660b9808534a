"""The OpenAPI document and its browsable pages, which work without the internet."""

from functools import cache
from importlib.resources import files
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from api.access.documents import describe_access
from api.edge.description import describe_edge
from api.edge.security import page_policy

_ASSETS: Final = "/docs-assets"
_UNUSED: Final = ("HTTPValidationError", "ValidationError")


def build_openapi(app: FastAPI) -> dict[str, Any]:
    """Describe the routes, without the 422 answers that FastAPI assumes and we do not give."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    describe_edge(document)
    for name in _UNUSED:
        document["components"]["schemas"].pop(name, None)
    describe_access(document)
    return document


def add_docs_pages(app: FastAPI) -> None:
    """Serve Swagger UI at /docs and /api/v1/docs, ReDoc at /redoc, and their assets."""
    # Only the files of that package are used: FastAPI's own pages load them from a CDN.
    app.mount(_ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")))
    swagger = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=app.title,
        swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{_ASSETS}/favicon.png",
    )
    redoc = get_redoc_html(
        openapi_url="/openapi.json",
        title=app.title,
        redoc_js_url=f"{_ASSETS}/redoc.standalone.js",
        redoc_favicon_url=f"{_ASSETS}/favicon.png",
        with_google_fonts=False,
    )

    for page in (swagger, redoc):
        page.headers["Content-Security-Policy"] = page_policy(bytes(page.body).decode())

    async def show_swagger() -> HTMLResponse:
        return swagger

    async def show_redoc() -> HTMLResponse:
        return redoc

    @cache
    def written() -> JSONResponse:
        # Anybody may ask for it without limit: it is written once.
        return JSONResponse(app.openapi())

    async def show_openapi() -> JSONResponse:
        return written()

    for path in ("/docs", "/api/v1/docs"):
        app.get(path, include_in_schema=False)(show_swagger)
    app.get("/redoc", include_in_schema=False)(show_redoc)
    for path in ("/openapi.json", "/api/v1/openapi.json"):
        app.get(path, include_in_schema=False)(show_openapi)
