"""What endpoints ask for, as annotated aliases: `pool: Pool`, `scan_id: ScanId` and so on."""

import re
from typing import Annotated, Any, Final, TypeAlias

from fastapi import Depends, Path, Request
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from api.dagster.gateway import DagsterGateway
from api.errors import shorten
from api.settings import ApiSettings
from hubspot_deals.errors import ScanNotFoundError
from hubspot_deals.warehouse.credentials import KeyRing

ConnectionPool: TypeAlias = AsyncConnectionPool[AsyncConnection[Any]]

SCAN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)
"""The form of a scan id; always used with `fullmatch`, which takes no line break at the end."""

_LONGEST_ECHO: Final = 255


def get_settings(request: Request) -> ApiSettings:
    """Return the settings that the application was built with."""
    settings: ApiSettings = request.state.settings
    return settings


def get_pool(request: Request) -> ConnectionPool:
    """Return the process's database connections."""
    pool: ConnectionPool = request.state.pool
    return pool


def get_key_ring(request: Request) -> KeyRing:
    """Return the keys that seal access tokens."""
    key_ring: KeyRing = request.state.key_ring
    return key_ring


def get_gateway(request: Request) -> DagsterGateway:
    """Return the way to Dagster."""
    gateway: DagsterGateway = request.state.gateway
    return gateway


def get_scan_id(
    scan_id: Annotated[
        str, Path(description="The scan's id.", examples=["hubspot-deals-scan-2025-001"])
    ],
) -> str:
    """Return the id in the path; one that no scan can have is answered like one that none has."""
    if not SCAN_ID.fullmatch(scan_id):
        raise ScanNotFoundError(shorten(scan_id, _LONGEST_ECHO))
    return scan_id


Settings = Annotated[ApiSettings, Depends(get_settings)]
Pool = Annotated[ConnectionPool, Depends(get_pool)]
Keys = Annotated[KeyRing, Depends(get_key_ring)]
Gateway = Annotated[DagsterGateway, Depends(get_gateway)]
ScanId = Annotated[str, Depends(get_scan_id)]
