"""The kind of every route that is not open to anybody."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.types import Receive, Scope, Send

from api.access.guard import AccessGuard, visit_of_request
from api.access.levels import NEEDS
from api.errors import UnauthenticatedError


class GuardedRoute(APIRoute):
    """A route that only those enter who have what `NEEDS` says."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        need = NEEDS.get(endpoint.__name__)
        if need is not None and need.changes and not need.names_itself:
            endpoint = _written_down(endpoint)
        super().__init__(path, endpoint, **options)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, unless its caller may not enter."""
        need = NEEDS[self.name]
        if need.level is None or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        guard: AccessGuard | None = scope.get("state", {}).get("access_guard")
        if guard is None:
            raise UnauthenticatedError.of_missing()
        await guard.serve(need, super().handle, scope, receive, send)


def _written_down(endpoint: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Have a change noted after the request was found in order and before anything is done."""

    @wraps(endpoint)
    async def written_down(*arguments: Any, **named: Any) -> Any:
        await visit_of_request.get().begin()
        return await endpoint(*arguments, **named)

    return written_down


def check_routes(app: FastAPI) -> None:
    """Raise LookupError for a route that nobody has said who may enter, or that does not ask."""
    for context in iter_route_contexts(app.routes):
        route: Any = context.original_route
        name = str(getattr(route, "name", None) or getattr(route, "path", "?"))
        if name not in NEEDS:
            msg = f"Route {name} is not in api/access/levels.py: say who may call it"
            raise LookupError(msg)
        if NEEDS[name].level is not None and not isinstance(route, GuardedRoute):
            msg = f"Route {name} needs route_class=GuardedRoute, or one that derives from it"
            raise LookupError(msg)
