"""Stands before every route: lets in who may enter, and has written down what came of it."""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import Request, Response
from starlette.types import Message, Receive, Scope, Send

from api.access.actor import ANONYMOUS, Actor, Caller
from api.access.levels import Need
from api.access.owners import Named, Owners, named_in, objects_in, unknown_error
from api.access.refusals import Refusals
from api.access.trail import AuditTrail
from api.errors import ForbiddenError, UnauthenticatedError
from api.logs import request_id
from hubspot_deals.errors import HubSpotDealsError
from hubspot_deals.redaction import redact
from hubspot_deals.warehouse.audit_log import AuditEntry, AuditOutcome
from hubspot_deals.warehouse.owners import OwnedKind

_REFUSED, _FAILED = 400, 500
_LONGEST_OBJECT: Final = 255

Handle = Callable[[Scope, Receive, Send], Awaitable[None]]
ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(slots=True)
class Visit:
    """One request of a known caller."""

    caller: Caller
    need: Need
    trail: AuditTrail
    entry: AuditEntry
    objects: tuple[tuple[OwnedKind | None, str], ...]
    seen: Mapping[Named, int] = field(default_factory=dict)
    """Numbers (`seq`) of the objects in the path that the caller was found to own."""
    is_remembered: bool = False
    """They were found some time ago."""
    number: int | None = None
    """Of the audit log's entry, where that was written before."""
    is_closed: bool = False

    async def begin(self) -> None:
        """Write down that something is about to be changed."""
        if self.need.changes and self.number is None:
            self.number = await self.trail.begin(replace(self.ended(None), outcome="begun"))

    async def close(self, status: int) -> None:
        """Write down how a change ended, before that is answered."""
        if self.number is not None and not self.is_closed:
            self.is_closed = True
            await self.trail.end(self.number, self.ended(status))

    def note(self, entry: AuditEntry) -> None:
        """Write down what was read or refused, soon."""
        if not self.need.is_noted:
            return
        for kind, object_id in self.objects or ((None, entry.object_id),):
            self.trail.note(replace(entry, object_kind=kind, object_id=object_id))

    def ended(self, status: int | None, *, is_whole: bool = True) -> AuditEntry:
        """Return the entry with what came of it."""
        return replace(
            self.entry,
            organization_id=self.caller.organization_id,
            object_id=self.caller.object_id or self.entry.object_id,
            status=status,
            outcome=_outcome(status) if is_whole else "cut off",
        )


visit_of_request: ContextVar[Visit] = ContextVar("visit_of_request")


class AccessGuard:
    """Admits callers to routes and keeps the audit log of it."""

    def __init__(self, owners: Owners, trail: AuditTrail) -> None:
        self._owners = owners
        self._trail = trail
        self._refusals = Refusals(trail)

    async def serve(
        self, need: Need, handle: Handle, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve a request on a route.

        Raises UnauthenticatedError, ForbiddenError or ScanNotFoundError for who may not have it.
        """
        visit = await self._admit(need, scope)
        answer = _Answer(self._owners, visit, scope, send)
        if await _serve(visit, handle, scope, receive, answer):
            return
        # What was remembered is out of date; nothing has been sent yet.
        visit = await self._admit(need, scope, afresh=True)
        await _serve(visit, handle, scope, receive, _Answer(self._owners, visit, scope, send))

    async def _admit(self, need: Need, scope: Scope, *, afresh: bool = False) -> Visit:
        state, params = scope["state"], scope["path_params"]
        actor: Actor = state.get("actor", ANONYMOUS)
        objects = tuple((kind, _writable(text)) for kind, text in objects_in(params))
        kind, object_id = objects[0] if objects else (None, None)
        entry = AuditEntry(
            at=datetime.now(UTC),
            actor=actor.name,
            action=scope["route"].name,
            object_id=object_id,
            object_kind=kind,
            request_id=request_id.get(),
        )
        if (refusal := _refusal_of(actor, state)) is not None:
            if need.is_noted:
                self._refusals.note(entry, refusal, scope)
            raise refusal
        caller = Caller(actor)
        visit = Visit(caller, need, self._trail, entry, objects)
        caller.begin = visit.begin
        state["caller"] = caller
        try:
            asked = _asked(actor, need, params)
            remembered = None if afresh or need.changes else self._owners.remember(actor, asked)
            visit.is_remembered = remembered is not None
            visit.seen = await self._look(actor, asked) if remembered is None else remembered
        except HubSpotDealsError as error:
            is_forbidden = isinstance(error, ForbiddenError)
            visit.note(visit.ended(403 if is_forbidden else 404))
            raise
        return visit

    async def _look(self, actor: Actor, asked: list[Named]) -> Mapping[Named, int]:
        seen = await self._owners.look(actor, asked)
        for named in asked:
            if named not in seen:
                raise unknown_error(named)
        return seen


def _refusal_of(actor: Actor, state: Mapping[str, Any]) -> Exception | None:
    """Return why nobody knows who calls; None if somebody does."""
    refusal: Exception | None = state.get("refusal")
    if refusal is None and actor.level is None:
        return UnauthenticatedError.of_missing()
    return refusal


def _asked(actor: Actor, need: Need, params: Mapping[str, str]) -> list[Named]:
    """Return what has to be the caller's; raises ForbiddenError."""
    assert actor.level is not None  # noqa: S101
    assert need.level is not None  # noqa: S101
    if not actor.level.includes(need.level):
        raise ForbiddenError.of_level(need.level)
    if actor.organizations is None:
        return []
    if need.everywhere:
        raise ForbiddenError.of_everything()
    return [] if need.tells_itself else named_in(params)


async def _serve(
    visit: Visit, handle: Handle, scope: Scope, receive: Receive, answer: "_Answer"
) -> bool:
    """Serve an admitted request; False if it has to be admitted anew, and nothing was sent."""
    token = visit_of_request.set(visit)
    try:
        await handle(scope, receive, answer)
    finally:
        visit_of_request.reset(token)
        if visit.number is not None:
            await visit.close(answer.status or _FAILED)
        elif not answer.is_stale:
            visit.note(visit.ended(answer.status, is_whole=answer.is_whole))
    return not answer.is_stale


class _Answer:
    """The sending side of one request that was let in."""

    def __init__(self, owners: Owners, visit: Visit, scope: Scope, send: Send) -> None:
        self._owners = owners
        self._visit = visit
        self._scope = scope
        self._send = send
        self._is_replaced = False
        self.is_stale = False
        self.status: int | None = None
        self.is_whole = False

    async def __call__(self, message: Message) -> None:
        if self._is_replaced or self.is_stale:
            return
        if message["type"] == "http.response.start":
            if (gone := await self._find_replaced()) is not None:
                self.is_stale = self._visit.is_remembered
                if not self.is_stale:
                    await self._say_unknown(gone)
                return
            self.status = message["status"]
            await self._visit.close(message["status"])
        elif message["type"] == "http.response.body":
            self.is_whole = not message.get("more_body", False)
        await self._send(message)

    async def _find_replaced(self) -> Named | None:
        """Return an object that is not the one any more which the caller was found to own.

        Between the check and the answer it can have been removed and its id taken by somebody
        else. The same number before and after says that what was read in between was that object,
        and so does the number in the statement that read it.
        """
        caller = self._visit.caller
        certain = {(OwnedKind.SCAN, *scan) for scan in caller.scans_read.items()}
        seen = {
            named: seq for named, seq in self._visit.seen.items() if (*named, seq) not in certain
        }
        if not seen or self._visit.need.changes:
            return None
        now = await self._owners.look(caller.actor, seen)
        return next((named for named, seq in seen.items() if now.get(named) != seq), None)

    async def _say_unknown(self, named: Named) -> None:
        tell: ErrorHandler = self._scope["app"].exception_handlers[HubSpotDealsError]
        response = await tell(Request(self._scope), unknown_error(named))
        self._is_replaced, self.status, self.is_whole = True, response.status_code, True
        await response(self._scope, _receive_nothing, self._send)


async def _receive_nothing() -> Message:
    return {"type": "http.disconnect"}


def _writable(text: str) -> str:
    """Bound what a path named, and leave out what PostgreSQL has no place for, and secrets."""
    return redact(text[: 4 * _LONGEST_OBJECT])[:_LONGEST_OBJECT].replace("\0", "")


def _outcome(status: int | None) -> AuditOutcome:
    if status is None or status >= _FAILED:
        return "failed"
    return "refused" if status >= _REFUSED else "done"
