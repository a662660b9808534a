"""Creates, describes, changes, steers and removes connections."""

import hashlib
import re
import secrets
from datetime import UTC, datetime
from operator import attrgetter
from typing import Final
from zoneinfo import ZoneInfo

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import SecretStr

from api.connections.fields import fault_of_start
from api.connections.reloader import LocationReloader
from api.connections.schemas import (
    ChangedConnection,
    Connection,
    ConnectionCreate,
    ConnectionPage,
    ConnectionPatch,
    ConnectionSettings,
    CreatedConnection,
    RemovedConnection,
    RequestedSync,
    SyncRun,
    SyncRunPage,
)
from api.cursors import Place
from api.database import ConnectionPool, read
from api.logs import request_id
from api.plans.service import Planner
from api.scans.stopper import RunStopper
from api.schemas import Confirmation
from hubspot_deals.errors import IdempotencyConflictError
from hubspot_deals.sync_contract import ConnectionStatus, SyncSettings
from hubspot_deals.sync_errors import ConnectionExistsError
from hubspot_deals.tracing import trace_parent
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.syncs import acceptance, overview
from hubspot_deals.warehouse.syncs.acceptance import ConnectionChange, NewConnection
from hubspot_deals.warehouse.syncs.connections import bound_to
from hubspot_deals.warehouse.syncs.overview import ConnectionRecord, SyncRunRecord

_LONGEST_SLUG: Final = 50
_UNCHECKED: Final = "HubSpot was not asked about the access token"
_TOKEN: Final = ("body", "auth", "accessToken")
_START: Final = ("body", "settings", "startDate")


class Connections:
    """Connections, with everything that a change of them touches."""

    def __init__(
        self,
        pool: ConnectionPool,
        keys: KeyRing,
        planner: Planner,
        reloader: LocationReloader,
        stopper: RunStopper,
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._planner = planner
        self._reloader = reloader
        self._stopper = stopper

    async def create(
        self, body: ConnectionCreate, idempotency_key: str | None
    ) -> CreatedConnection:
        """Check the token, store the connection, and have Dagster notice it in the background."""
        identity = orjson.dumps(body.identity(), option=orjson.OPT_SORT_KEYS)
        request_hash = hashlib.sha256(identity).hexdigest()
        settings = _initial_settings(body)
        earlier = await self._find_replayed(body.organization_id, idempotency_key, request_hash)
        if earlier is not None:
            return _created(earlier, [])
        portal_id, warnings = None, [_UNCHECKED]
        if body.check:
            # What is known here is said without HubSpot.
            if body.connection_id is not None:
                async with self._pool.connection() as connection:
                    await acceptance.check_is_free(connection, body.connection_id)
            portal_id, warnings = await self._check_token(body.auth.access_token)
        slug = body.connection_id or new_connection_id(body.name or body.organization_id)
        new = NewConnection(
            connection_id=slug,
            organization_id=body.organization_id,
            name=body.name,
            portal_id=portal_id,
            settings=settings,
            is_enabled=body.enabled,
            idempotency_key=idempotency_key,
            request_hash=request_hash,
        )
        token = self._keys.seal(body.auth.access_token, bound_to=bound_to(slug))
        try:
            async with self._pool.connection() as connection:
                await acceptance.create_connection(connection, new, token)
        except (ConnectionExistsError, IdempotencyConflictError):
            # Two of the same may have been on their way.
            earlier = await self._find_replayed(body.organization_id, idempotency_key, request_hash)
            if earlier is None:
                raise
            return _created(earlier, [])
        self._reloader.reload()
        return _created(await self._record(slug), warnings)

    async def get(self, connection_id: str) -> Connection:
        """Describe one connection."""
        return describe(await self._record(connection_id))

    async def change(self, connection_id: str, body: ConnectionPatch) -> Connection:
        """Change what the request names; disabling fences out the run that is under way."""
        record = await self._record(connection_id)
        given = body.settings.given()
        if given:
            _check_start(SyncSettings.from_json({**record.settings.to_json(), **given}))
        token, portal_id = None, None
        if body.auth is not None:
            if body.check:
                portal_id, _ = await self._check_token(body.auth.access_token)
            token = self._keys.seal(body.auth.access_token, bound_to=bound_to(connection_id))
        change = ConnectionChange(
            name=body.name,
            settings=given,
            token=token,
            portal_id=portal_id,
            is_enabled=body.enabled,
        )
        changed = await self._change(connection_id, change)
        if given or body.name is not None:
            self._reloader.reload()
        return describe(changed)

    async def pause(self, connection_id: str) -> Confirmation[ChangedConnection]:
        """Let a connection rest; the run that is under way writes nothing more."""
        record = await self._change(connection_id, ConnectionChange(is_enabled=False))
        return _confirm("Connection paused; nothing is synced until it is resumed", record)

    async def resume(self, connection_id: str) -> Confirmation[ChangedConnection]:
        """Let a connection go on from where it was paused."""
        record = await self._change(connection_id, ConnectionChange(is_enabled=True))
        return _confirm("Connection resumed; its next sync catches up", record)

    async def sync_now(self, connection_id: str) -> Confirmation[RequestedSync]:
        """Have a run launched soon, after the one that is under way if there is one."""
        async with self._pool.connection() as connection:
            await acceptance.want_sync(
                connection,
                connection_id,
                request_id=request_id.get() or None,
                trace_parent=trace_parent(),
            )
            record = await overview.get_connection(connection, connection_id)
        message = "A sync will begin shortly"
        if record.is_syncing:
            message = "A sync is under way; another one follows it"
        return Confirmation(
            message=message,
            data=RequestedSync(
                connection_id=connection_id,
                status=record.status,
                syncing=record.is_syncing,
                sync_wanted_at=record.sync_wanted_at,
            ),
        )

    async def remove(self, connection_id: str) -> Confirmation[RemovedConnection]:
        """Hide a connection at once and delete its token; a sensor deletes what it has kept."""
        async with self._pool.connection() as connection:
            run_ids = await acceptance.remove_connection(connection, connection_id)
        self._stop(connection_id, run_ids)
        self._reloader.reload()
        return Confirmation(
            message="Connection removed; its rows are deleted in the background",
            data=RemovedConnection(connection_id=connection_id),
        )

    async def page(self, organizations: list[str] | None, place: Place) -> ConnectionPage:
        """Return one page of these organizations' connections (None: all), newest first."""
        found, total = await read(
            self._pool,
            lambda connection: overview.page_of_connections(
                # One more tells whether there are more.
                connection,
                organizations,
                limit=place.limit + 1,
                before=place.before,
            ),
        )
        shown, pagination = place.cut(found, total)
        return ConnectionPage(
            connections=[describe(record) for record in shown], pagination=pagination
        )

    async def page_of_runs(self, connection_id: str, place: Place) -> SyncRunPage:
        """Return one page of a connection's runs, newest first."""
        found, total = await read(
            self._pool,
            lambda connection: overview.page_of_runs(
                connection, connection_id, limit=place.limit + 1, before=place.before
            ),
        )
        shown, pagination = place.cut(found, total, attrgetter("run_no"))
        return SyncRunPage(
            connection_id=connection_id,
            runs=[_describe_run(run) for run in shown],
            pagination=pagination,
        )

    async def _find_replayed(
        self, organization_id: str, key: str | None, request_hash: str
    ) -> ConnectionRecord | None:
        if key is None:
            return None
        async with self._pool.connection() as connection:
            earlier = await acceptance.find_replayed(connection, organization_id, key, request_hash)
            return await overview.get_connection(connection, earlier) if earlier else None

    async def _check_token(self, token: SecretStr) -> tuple[int | None, list[str]]:
        """Return whose token it is and what it does not open.

        Raises RequestValidationError unless it may read deals.
        """
        report = await self._planner.check_token(token)
        if not report.can_scan:
            fault = {"type": "form", "loc": _TOKEN, "msg": report.reason or "HubSpot refused it"}
            raise RequestValidationError([fault])
        missing = report.scopes.missing if report.scopes else []
        return report.portal_id, [f"The token lacks the scope {scope}" for scope in missing]

    async def _record(self, connection_id: str) -> ConnectionRecord:
        return await read(
            self._pool, lambda connection: overview.get_connection(connection, connection_id)
        )

    async def _change(self, connection_id: str, change: ConnectionChange) -> ConnectionRecord:
        async with self._pool.connection() as connection:
            run_ids = await acceptance.change_connection(connection, connection_id, change)
            record = await overview.get_connection(connection, connection_id)
        self._stop(connection_id, run_ids)
        return record

    def _stop(self, connection_id: str, run_ids: list[str]) -> None:
        for run_id in run_ids:
            self._stopper.stop(run_id, connection_id=connection_id)


def new_connection_id(name: str) -> str:
    """Return an id that resembles a name, and that nobody else has."""
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:_LONGEST_SLUG]
    if not slug[:1].isalpha():
        slug = f"c_{slug}".rstrip("_")
    return f"{slug}_{secrets.token_hex(3)}"


def _initial_settings(body: ConnectionCreate) -> SyncSettings:
    settings = SyncSettings.initial(body.settings.given(), datetime.now(UTC).date())
    _check_start(settings)
    return settings


def _check_start(settings: SyncSettings) -> None:
    today = datetime.now(ZoneInfo(settings.time_zone)).date()
    if (text := fault_of_start(settings, today)) is not None:
        raise RequestValidationError([{"type": "form", "loc": _START, "msg": text}])


def describe(record: ConnectionRecord) -> Connection:
    """Project the recorded facts onto the body."""
    return Connection(
        connection_id=record.connection_id,
        organization_id=record.organization_id,
        name=record.name,
        portal_id=record.portal_id,
        status=record.status,
        error_message=record.last_error if record.status is ConnectionStatus.FAILING else None,
        enabled=record.is_enabled,
        fresh_as_of=record.fresh_as_of,
        seconds_old=record.seconds_old,
        syncing=record.is_syncing,
        run_id=record.run_id if record.is_syncing else None,
        sync_wanted_at=record.sync_wanted_at,
        settings=ConnectionSettings.model_validate(record.settings.to_json()),
        created_at=record.created_at,
        updated_at=record.updated_at,
    )


def _created(record: ConnectionRecord, warnings: list[str]) -> CreatedConnection:
    return CreatedConnection(**describe(record).model_dump(), warnings=warnings)


def _describe_run(run: SyncRunRecord) -> SyncRun:
    duration = None if run.ended_at is None else (run.ended_at - run.started_at).total_seconds()
    facts = {name: getattr(run, name) for name in SyncRunRecord.__dataclass_fields__}
    return SyncRun(**facts, duration=duration)


def _confirm(message: str, record: ConnectionRecord) -> Confirmation[ChangedConnection]:
    data = ChangedConnection(connection_id=record.connection_id, status=record.status)
    return Confirmation(message=message, data=data)
