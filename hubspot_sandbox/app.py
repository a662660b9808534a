"""The application: routing, token, budgets, scopes and faults come before every endpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from hubspot_sandbox.account import build_account
from hubspot_sandbox.associations import Associations
from hubspot_sandbox.budgets import Budgets
from hubspot_sandbox.catalog import Catalog
from hubspot_sandbox.clock import Clock
from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.control import CONTROL_PREFIX, Control
from hubspot_sandbox.directory import Directory
from hubspot_sandbox.endpoint import Answer, Call, World
from hubspot_sandbox.failures import (
    CORRELATION_HEADER,
    ApiError,
    correlation_headers,
    correlation_id,
    line_too_long,
    missing_oauth_permission,
    missing_scopes,
    unknown_route,
    unknown_type,
    wrong_method,
)
from hubspot_sandbox.faults import PAGE_FAULTS, Fault, Faults
from hubspot_sandbox.index import SearchIndex
from hubspot_sandbox.journal import Journal
from hubspot_sandbox.latency import Latency
from hubspot_sandbox.links import Links
from hubspot_sandbox.messages import Query, Reply, Request
from hubspot_sandbox.objects import Objects
from hubspot_sandbox.people import People
from hubspot_sandbox.profiles import Profiles
from hubspot_sandbox.render import Renderer
from hubspot_sandbox.requestlog import Entry, RequestLog
from hubspot_sandbox.routes import resolve
from hubspot_sandbox.search import Searcher
from hubspot_sandbox.search_endpoint import SearchEndpoint
from hubspot_sandbox.store import Store
from hubspot_sandbox.tokens import Tokens

Endpoint = Callable[[Call], Answer]
LONGEST_LINE: Final = 16_384
_DEALS: Final = frozenset({"crm.objects.deals.read"})
_SCHEMAS: Final = frozenset({"crm.schemas.deals.read", "crm.objects.deals.read"})
_NO_TOKEN: Final = frozenset({"token_info", "introspect"})


@dataclass(frozen=True, slots=True)
class _Mounted:
    """An endpoint, what it asks of a token, and whose budget it uses."""

    answer: Endpoint
    scopes: frozenset[str] = frozenset()
    family: str = "ordinary"


def build_world(config: SandboxConfig, clock: Clock | None = None) -> World:
    """Make the account and everything that reads it."""
    clock = clock or Clock()
    people, catalog = People(config.owners), Catalog(config.properties)
    store = Store(build_account(config), catalog, Profiles(config, catalog, people), config)
    index = SearchIndex(store, clock, config.search_lag_seconds)
    return World(
        config=config,
        clock=clock,
        people=people,
        catalog=catalog,
        store=store,
        index=index,
        journal=Journal(store, clock),
        links=Links(config.seed),
        searcher=Searcher(index),
        renderer=Renderer(store, config.portal_id),
        tokens=Tokens(config, clock),
    )


def build_app(config: SandboxConfig, clock: Clock | None = None) -> "Sandbox":
    """The application for a configuration."""
    return Sandbox(build_world(config, clock))


class Sandbox:
    """Callable from one request to one reply."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._budgets = Budgets(world.config, world.clock)
        self._faults = Faults()
        self._log = RequestLog()
        self._latency = Latency(world.config.latency_ms)
        self._control = Control(world, self._budgets, self._faults, self._log)
        self._mounted = self._mount()

    def _mount(self) -> dict[str, _Mounted]:
        world = self._world
        objects, associations = Objects(world), Associations(world)
        directory = Directory(world, self._budgets)
        owners = frozenset({"crm.objects.owners.read", "automation"})
        users = frozenset({"settings.users.read", "crm.objects.users.read"})
        teams = frozenset({"settings.users.teams.read"})
        return {
            "list": _Mounted(objects.page, _DEALS),
            "get": _Mounted(objects.get, _DEALS),
            "batch": _Mounted(objects.batch, _DEALS),
            "search": _Mounted(SearchEndpoint(world).page, _DEALS, "search"),
            "associations": _Mounted(associations.batch, _DEALS, "associations"),
            "association_list": _Mounted(associations.of_one, _DEALS, "associations"),
            "properties": _Mounted(directory.properties, _SCHEMAS),
            "property": _Mounted(directory.one_property, _SCHEMAS),
            "pipelines": _Mounted(directory.pipelines, _SCHEMAS),
            "owners": _Mounted(directory.owners, owners),
            "owner": _Mounted(directory.owner, owners),
            "users": _Mounted(directory.users, users),
            "teams": _Mounted(directory.teams, teams),
            "account": _Mounted(directory.account),
            "usage": _Mounted(directory.usage),
            "token_info": _Mounted(directory.token_info),
            "introspect": _Mounted(directory.introspect),
            "private_app_info": _Mounted(directory.private_app_info),
        }

    def __call__(self, request: Request) -> Reply:
        """Answer one request."""
        if request.target.startswith(CONTROL_PREFIX):
            return self._control.answer(request)
        if request.line_length > LONGEST_LINE:
            return self._logged(line_too_long(), request, "too_long", "ordinary", "")
        path, query = request.split_target()
        route = resolve(path)
        if route is None:
            return self._logged(unknown_route(), request, "unknown", "ordinary", "")
        if request.method != route.method:
            return self._logged(wrong_method(), request, route.kind, "ordinary", "")
        call = Call(request, route, path, Query(query))
        mounted = self._mounted[route.kind]
        reply = self._admit(call, mounted)
        if CORRELATION_HEADER not in reply.headers:
            reply.headers += correlation_headers(correlation_id())
        reply.delay += self._latency.seconds(mounted.family)
        return self._logged(reply, request, route.kind, mounted.family, call.token)

    def _admit(self, call: Call, mounted: _Mounted) -> Reply:
        """Token and budgets, then whatever a fault rule or the endpoint has to say."""
        if call.route.kind not in _NO_TOKEN:
            token = Tokens.of_header(call.request.headers.get(b"authorization"))
            refusal = self._world.tokens.refuse(token)
            if refusal is not None:
                return refusal
            call.token = token or ""
            call.headers, spent = self._budgets.spend(call.token, mounted.family)
            if spent is not None:
                return self._with_headers(spent.reply(), call)
        else:
            form = parse_qs(call.request.body.decode("latin-1"))
            call.notes["form_token"] = (form.get("access_token") or form.get("token") or [""])[0]
        fault = None if self._faults.is_empty else self._faults.take(_facts(call))
        return self._with_headers(self._faulty(call, mounted, fault), call)

    def _faulty(self, call: Call, mounted: _Mounted, fault: Fault | None) -> Reply:
        if fault is None:
            return self._answer(call, mounted)
        if fault.type == "expire_token":
            self._world.tokens.expire(call.token)
            return self._world.tokens.refuse(call.token) or self._answer(call, mounted)
        if fault.type in PAGE_FAULTS:
            call.page_fault = (fault.type, fault.results)
        return fault.early_reply() or fault.spoil(self._answer(call, mounted))

    def _answer(self, call: Call, mounted: _Mounted) -> Reply:
        try:
            self._check_scopes(call, mounted.scopes)
            if not call.route.is_known_type:
                raise unknown_type(call.route.object_type)
            answer = mounted.answer(call)
        except ApiError as error:
            return error.reply()
        return Reply(answer.status, answer.body)

    def _check_scopes(self, call: Call, scopes: frozenset[str]) -> None:
        if not scopes or scopes & self._world.tokens.scopes(call.token):
            return
        if self._world.config.budgets.is_oauth:
            raise missing_oauth_permission(scopes, self._world.config.portal_id)
        raise missing_scopes(scopes)

    @staticmethod
    def _with_headers(reply: Reply, call: Call) -> Reply:
        reply.headers += call.headers
        return reply

    def _logged(self, reply: Reply, request: Request, kind: str, family: str, token: str) -> Reply:
        path, _, query = request.target.partition(b"?")
        entry = Entry(
            at=self._world.clock.seconds(),
            kind=kind,
            method=request.method,
            path=_without_token(path, kind),
            query_length=len(query),
            status=reply.status,
            token_number=self._log.number_of(token) if token else 0,
        )
        size = len(reply.body) if isinstance(reply.body, bytes) else 0
        self._log.note(entry, family, size)
        return reply


def _without_token(path: bytes, kind: str) -> str:
    """The path for the log: one endpoint carries the token in it."""
    text = path.decode("latin-1")
    return text.rpartition("/")[0] + "/{token}" if kind == "token_info" else text


def _facts(call: Call) -> dict[str, str]:
    return {
        "kind": call.route.kind,
        "method": call.request.method,
        "path": call.path,
        "query": call.request.target.partition(b"?")[2].decode("latin-1"),
        "body": call.request.body.decode("utf-8", "replace"),
    }
