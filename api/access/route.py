"""The kind of every route that is not open to anybody."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.types import Receive, Scope, Send

from api.access.guard import Guard
from api.access.levels import NEEDS
from api.errors import UnauthenticatedError


class GuardedRoute(APIRoute):
    """A route that only those enter who have what `NEEDS` says."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, unless its caller may not enter."""
        need = NEEDS[self.name]
        if need.level is None or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        guard: Guard | None = scope.get("state", {}).get("guard")
        if guard is None:
            raise UnauthenticatedError.of_missing()
        await guard.serve(self.name, need, super().handle, scope, receive, send)


def check_routes(app: FastAPI) -> None:
    """Raise LookupError for a route that nobody has said who may enter, or that does not ask."""
    for context in iter_route_contexts(app.routes):
        route: Any = context.original_route
        name: str = getattr(route, "name", None) or getattr(route, "path", "?")
        if name not in NEEDS:
            msg = f"Route {name} is not in api/access/levels.py: say who may call it"
            raise LookupError(msg)
        if NEEDS[name].level is not None and not isinstance(route, GuardedRoute):
            msg = f"Route {name} needs route_class=GuardedRoute, or one that derives from it"
            raise LookupError(msg)
