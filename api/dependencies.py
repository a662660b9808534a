"""What endpoints ask for, as annotated aliases: `pool: Pool`, `scan_id: ScanId` and so on.

All of them are coroutines, for FastAPI sends any other function to a thread, which costs more than
most answers.
"""

from typing import Annotated, Final

from fastapi import Depends, Path, Request

from api.database import ConnectionPool
from api.errors import shorten
from api.settings import ApiSettings
from hubspot_deals.contract import SCAN_ID
from hubspot_deals.errors import ScanNotFoundError
from hubspot_deals.warehouse.credentials import KeyRing

_LONGEST_ECHO: Final = 255


async def get_settings(request: Request) -> ApiSettings:
    """Return the settings that the application was built with."""
    settings: ApiSettings = request.state.settings
    return settings


async def get_pool(request: Request) -> ConnectionPool:
    """Return the process's database connections."""
    pool: ConnectionPool = request.state.pool
    return pool


async def get_key_ring(request: Request) -> KeyRing:
    """Return the keys that seal access tokens."""
    key_ring: KeyRing = request.state.key_ring
    return key_ring


async def get_scan_id(
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
ScanId = Annotated[str, Depends(get_scan_id)]
