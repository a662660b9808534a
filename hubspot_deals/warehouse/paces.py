"""One pace for all workers that draw on the same HubSpot budget, on whatever machine they are."""

import time
from dataclasses import dataclass
from typing import Any, Final

import anyio.to_thread
from psycopg import Connection

_FARTHEST: Final = "clock_timestamp() + interval '10 minutes'"
"""No slot is farther away, even if the server's clock was set back."""


@dataclass(frozen=True, slots=True)
class SharedPace:
    """Slots kept in PostgreSQL, by PostgreSQL's clock: a `Pace` for the source's governor.

    The statements are short, so that the connection may be shared with the lease's heartbeat.
    """

    connection: Connection[Any]

    async def reserve(self, key: str, interval: float, slack: float) -> float:
        """Take the next slot; return how many seconds to wait for it.

        Less than none when this process was so busy that it hears of the slot too late.
        """
        wait, heard_at = await anyio.to_thread.run_sync(self._reserve, key, interval, slack)
        return wait - (time.monotonic() - heard_at)

    async def postpone(self, key: str, seconds: float) -> None:
        """Let no slot be earlier than in so many seconds."""
        await anyio.to_thread.run_sync(self._postpone, key, seconds)

    def _reserve(self, key: str, interval: float, slack: float) -> tuple[float, float]:
        row = self.connection.execute(
            "INSERT INTO hubspot_deals.request_paces AS p (key, next_at)"
            " VALUES (%(key)s, clock_timestamp() + make_interval(secs => %(interval)s))"
            " ON CONFLICT (key) DO UPDATE SET next_at = make_interval(secs => %(interval)s)"
            f" + greatest(least(p.next_at, {_FARTHEST}),"
            " clock_timestamp() - make_interval(secs => %(slack)s))"
            " RETURNING extract(epoch FROM next_at - clock_timestamp()) - %(interval)s",
            {"key": key, "interval": interval, "slack": slack},
        ).fetchone()
        return max(float(row[0]), 0.0) if row else 0.0, time.monotonic()

    def _postpone(self, key: str, seconds: float) -> None:
        self.connection.execute(
            "INSERT INTO hubspot_deals.request_paces AS p (key, next_at)"
            " VALUES (%(key)s, clock_timestamp() + make_interval(secs => %(seconds)s))"
            " ON CONFLICT (key) DO UPDATE SET next_at = greatest(p.next_at, EXCLUDED.next_at)",
            {"key": key, "seconds": seconds},
        )
