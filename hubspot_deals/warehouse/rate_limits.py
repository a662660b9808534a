"""Counts requests in windows that all API processes share, by PostgreSQL's clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection

_COUNT: Final = """
INSERT INTO hubspot_deals.rate_limits AS r (key, used, resets_at)
SELECT key, hits, now() + make_interval(secs => seconds)
FROM unnest(%(keys)s::text[], %(hits)s::int[], %(seconds)s::int[]) AS h (key, hits, seconds)
ORDER BY key
ON CONFLICT (key) DO UPDATE SET
    used = CASE WHEN r.resets_at > now() THEN r.used ELSE 0 END + EXCLUDED.used,
    resets_at = CASE WHEN r.resets_at > now() THEN least(r.resets_at, EXCLUDED.resets_at)
                ELSE EXCLUDED.resets_at END
RETURNING key, used, extract(epoch FROM resets_at)::float8,
    extract(epoch FROM resets_at - clock_timestamp())::float8
"""
"""Ordered, so that two processes never wait for each other's rows; `least`, so that a window that
was made shorter in the settings, or a clock that was set back, keeps nobody out for longer."""

_FORGET: Final = "DELETE FROM hubspot_deals.rate_limits WHERE resets_at < now()"


@dataclass(frozen=True, slots=True)
class Window:
    """What has been counted for one key: `used` includes the hits just counted."""

    used: int
    resets_at: float
    """Unix time."""
    seconds_left: float


async def count_hits(
    connection: AsyncConnection[Any], hits: Mapping[str, tuple[int, int]]
) -> dict[str, Window]:
    """Add to each key its hits; a key's window of so many seconds begins with its first hit.

    `hits` has the number of hits and the seconds of the window for each key.
    """
    cursor = await connection.execute(
        _COUNT,
        {
            "keys": list(hits),
            "hits": [number for number, _ in hits.values()],
            "seconds": [seconds for _, seconds in hits.values()],
        },
    )
    return {key: Window(*window) for key, *window in await cursor.fetchall()}


async def forget_past_windows(connection: AsyncConnection[Any]) -> None:
    """Delete the windows that are over: the table stays as small as the number of callers."""
    await connection.execute(_FORGET)
