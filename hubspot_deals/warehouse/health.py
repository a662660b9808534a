"""Whether the database can serve scans."""

from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import scalar_row


async def is_migrated(connection: AsyncConnection[Any]) -> bool:
    """Tell whether the product's tables exist; fails when the database does not answer."""
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT to_regclass('hubspot_deals.scans') IS NOT NULL")
    return bool(await cursor.fetchone())
