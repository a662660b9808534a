"""Signs of life of parts that the health check cannot ask, kept in PostgreSQL."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import class_row
from pydantic import SecretStr

from hubspot_deals.warehouse.connections import open_connection

SENSORS: Final = "sensors"
RUN_HOST: Final = "run_host"

_SHOW: Final = """
    INSERT INTO hubspot_deals.parts (name, fault) VALUES (%s, %s)
    ON CONFLICT (name) DO UPDATE SET seen_at = now(), fault = EXCLUDED.fault
"""


@dataclass(frozen=True, slots=True)
class Sign:
    """When a part was last seen, and what was wrong with it then."""

    name: str
    seconds_ago: float
    fault: str | None


def show(database_url: SecretStr, faults: Mapping[str, str | None]) -> None:
    """Note that these parts were seen just now, and what is wrong with each; None: nothing."""
    with open_connection(database_url) as connection, connection.cursor() as cursor:
        cursor.executemany(_SHOW, sorted(faults.items()))


async def read_signs(connection: AsyncConnection[Any]) -> dict[str, Sign]:
    """Return the last sign of each part that ever gave one."""
    cursor = connection.cursor(row_factory=class_row(Sign))
    await cursor.execute(
        "SELECT name, extract(epoch FROM now() - seen_at)::float AS seconds_ago, fault"
        " FROM hubspot_deals.parts"
    )
    return {sign.name: sign for sign in await cursor.fetchall()}
