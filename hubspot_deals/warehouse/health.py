"""Whether the database can serve scans."""

from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from hubspot_deals.warehouse.signs import Sign, read_signs


async def is_migrated(connection: AsyncConnection[Any]) -> bool:
    """Tell whether the product's tables exist; fails when the database does not answer."""
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT to_regclass('hubspot_deals.scans') IS NOT NULL")
    return bool(await cursor.fetchone())


async def find_signs(connection: AsyncConnection[Any]) -> dict[str, Sign]:
    """Return the last signs of life of parts; none before the migration that keeps them."""
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT to_regclass('hubspot_deals.parts') IS NOT NULL")
    return await read_signs(connection) if await cursor.fetchone() else {}
