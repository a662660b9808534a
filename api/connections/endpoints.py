"""Connect HubSpot accounts, see how current they are kept, and have that done or not."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response, status

from api.access.actor import Calling
from api.connections.schemas import (
    ChangedConnection,
    Connection,
    ConnectionCreate,
    ConnectionPage,
    ConnectionPatch,
    CreatedConnection,
    RemovedConnection,
    RequestedSync,
    SyncRunPage,
)
from api.connections.service import Connections
from api.cursors import headers_of, mark_of, mark_of_list, read_place
from api.errors import shorten
from api.json_body import JsonRoute
from api.scans.endpoints import IdempotencyKey
from api.schemas import (
    MAX_LIMIT,
    Answer,
    Confirmation,
    OrganizationId,
    describe_error,
    error_responses,
)
from hubspot_deals.sync_contract import CONNECTION_ID
from hubspot_deals.sync_errors import ConnectionNotFoundError

router = APIRouter(prefix="/connections", tags=["connections"], route_class=JsonRoute)

_LONGEST_ECHO: Final = 255
_WRONG_CURSOR: Final = "Pass a page's nextCursor back unchanged, to its list"
_Responses = dict[int | str, dict[str, Any]]
_NOT_FOUND: Final[_Responses] = error_responses() | {
    404: describe_error(
        "No such connection.", "CONNECTION_NOT_FOUND", "No connection found with ID: acme"
    )
}
_OF_HUBSPOT: Final[_Responses] = error_responses(400) | {
    502: describe_error(
        "HubSpot refuses something that a sync cannot do without.",
        "HUBSPOT_REFUSED",
        "HubSpot refused GET /crm/objects/2026-03/0-3 (HTTP 404: resource not found).",
    ),
    503: describe_error(
        "HubSpot does not answer or its limits are used up, or too many tokens are being checked.",
        "HUBSPOT_UNAVAILABLE",
        "HubSpot put GET /crm/objects/2026-03/0-3 off: its daily limit is used up.",
    ),
}
_EXISTS: Final[_Responses] = {
    409: describe_error(
        "The id is taken (`CONNECTION_EXISTS`), the organization has connected the account already "
        "(`CONNECTION_EXISTS`), or the idempotency key came with another request "
        "(`IDEMPOTENCY_CONFLICT`).",
        "CONNECTION_EXISTS",
        "This organization has connected HubSpot account 12345678 already",
    )
}
_FIXED: Final[_Responses] = {
    409: describe_error(
        "Partitions that runs have filled would be lost (`CONNECTION_PARTITIONS`), or the token is "
        "of another account (`CONNECTION_ACCOUNT`, `CONNECTION_EXISTS`).",
        "CONNECTION_PARTITIONS",
        "Connection 'acme' has been synced, so its cadence cannot change any more: its partitions "
        "would no longer be those that its runs have filled. Create another connection with the "
        "new settings and remove this one",
    )
}
_PAUSED: Final[_Responses] = {
    409: describe_error(
        "The connection is paused.",
        "CONNECTION_PAUSED",
        "Connection 'acme' is paused; resume it to have it synced",
    )
}


async def get_connection_id(
    connection_id: Annotated[str, Path(description="The connection's id.", examples=["acme"])],
) -> str:
    """Return the id in the path; one that no connection can have is answered like one of none."""
    if not CONNECTION_ID.fullmatch(connection_id):
        raise ConnectionNotFoundError(shorten(connection_id, _LONGEST_ECHO))
    return connection_id


async def get_connections(request: Request) -> Connections:
    """Return what keeps the connections."""
    connections: Connections = request.state.connections
    return connections


ConnectionId = Annotated[str, Depends(get_connection_id)]
Store = Annotated[Connections, Depends(get_connections)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Entries per page.")]
CursorText = Annotated[str | None, Query(description="The last page's `nextCursor`.")]


@router.post("", status_code=status.HTTP_201_CREATED, responses=_OF_HUBSPOT | _EXISTS)
async def create_connection(  # noqa: PLR0913, PLR0917 - one parameter per parameter
    request: Request,
    response: Response,
    body: ConnectionCreate,
    connections: Store,
    caller: Calling,
    idempotency_key: IdempotencyKey = None,
) -> Answer[CreatedConnection]:
    """Connect a HubSpot account, to be kept current from now on.

    HubSpot is asked whose the token is and what it opens: one that it rejects, or that may not
    read deals, is a 400 at `auth.accessToken`. The first run begins within a minute.
    """
    await caller.act_for(body.organization_id, body.connection_id)
    created = await connections.create(body, idempotency_key)
    caller.object_id = created.connection_id
    response.headers["Location"] = f"{request.url.path}/{created.connection_id}"
    return Answer(data=created)


@router.get("", responses=error_responses(400))
async def list_connections(  # noqa: PLR0913, PLR0917 - one parameter per parameter
    request: Request,
    response: Response,
    connections: Store,
    caller: Calling,
    organization_id: Annotated[
        OrganizationId | None,
        Query(alias="organizationId", description="Only this organization's connections."),
    ] = None,
    limit: Limit = 20,
    cursor: CursorText = None,
) -> Answer[ConnectionPage]:
    """List the caller's connections, newest first."""
    organizations = caller.organizations_within(organization_id)
    mark = mark_of_list("connections", organizations)
    page = await connections.page(organizations, read_place(limit, mark, cursor, _WRONG_CURSOR))
    response.headers.update(headers_of(request, page.pagination))
    return Answer(data=page)


@router.get("/{connection_id}", responses=_NOT_FOUND)
async def get_connection(connection_id: ConnectionId, connections: Store) -> Answer[Connection]:
    """Tell how a connection is set, and how current it is."""
    return Answer(data=await connections.get(connection_id))


@router.patch("/{connection_id}", responses=_NOT_FOUND | _OF_HUBSPOT | _FIXED)
async def change_connection(
    connection_id: ConnectionId, body: ConnectionPatch, connections: Store
) -> Answer[Connection]:
    """Change a connection's name, settings or token; from its next run on.

    A new token is checked as at the creation, and has to be of the same account.
    """
    return Answer(data=await connections.change(connection_id, body))


@router.delete("/{connection_id}", responses=_NOT_FOUND)
async def remove_connection(
    connection_id: ConnectionId, connections: Store
) -> Confirmation[RemovedConnection]:
    """Remove a connection with its token and everything that it has kept.

    Nobody sees it any more when the answer comes, and a run that is under way writes nothing more.
    Its rows are deleted in the background for some time, and its id stays taken until then.
    """
    return await connections.remove(connection_id)


@router.get("/{connection_id}/runs", responses=_NOT_FOUND | error_responses(400))
async def list_sync_runs(  # noqa: PLR0913, PLR0917 - one parameter per parameter
    request: Request,
    response: Response,
    connection_id: ConnectionId,
    connections: Store,
    limit: Limit = 20,
    cursor: CursorText = None,
) -> Answer[SyncRunPage]:
    """List a connection's runs, newest first."""
    mark = mark_of("sync_runs", connection_id)
    page = await connections.page_of_runs(
        connection_id, read_place(limit, mark, cursor, _WRONG_CURSOR)
    )
    response.headers.update(headers_of(request, page.pagination))
    return Answer(data=page)


@router.post(
    "/{connection_id}/sync", status_code=status.HTTP_202_ACCEPTED, responses=_NOT_FOUND | _PAUSED
)
async def sync_connection(
    connection_id: ConnectionId, connections: Store
) -> Confirmation[RequestedSync]:
    """Have a connection synced now, outside its schedule.

    The run is launched within seconds, or after the one that is under way.
    """
    return await connections.sync_now(connection_id)


@router.post("/{connection_id}/pause", responses=_NOT_FOUND)
async def pause_connection(
    connection_id: ConnectionId, connections: Store
) -> Confirmation[ChangedConnection]:
    """Let a connection rest until it is resumed; a run that is under way writes nothing more."""
    return await connections.pause(connection_id)


@router.post("/{connection_id}/resume", responses=_NOT_FOUND)
async def resume_connection(
    connection_id: ConnectionId, connections: Store
) -> Confirmation[ChangedConnection]:
    """Let a paused connection go on; its next run catches up with what it has missed."""
    return await connections.resume(connection_id)
