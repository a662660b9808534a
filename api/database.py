"""The process's connections to PostgreSQL, and how little may be spent on lending one."""

import select
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from api.settings import ApiSettings
from hubspot_deals.warehouse.connections import KEEPALIVES, NO_TIMEOUTS, server_options

ConnectionPool: TypeAlias = AsyncConnectionPool[AsyncConnection[Any]]
_Result = TypeVar("_Result")

_CONNECT_SECONDS: Final = 5
_POOL_SECONDS: Final = 5
_RECONNECT_SECONDS: Final = 5
_PLANS: Final = (
    # Every statement finds its rows by a key: planning it anew for each value costs more than the
    # statement (a page: 0.3 of 1.2 ms).
    "-c plan_cache_mode=force_generic_plan"
    # Such a plan is kept until the table is analyzed. One that was made while the table was small
    # would read all of it when it no longer is. Before PostgreSQL 18 such a ban, where it cannot be
    # kept, counts as an enormous cost, for which a statement is worth compiling.
    " -c enable_seqscan=off -c jit=off"
)
_SESSION: Final = (
    f"-c statement_timeout=30000 -c idle_in_transaction_session_timeout=30000 {_PLANS}"
)
_MOST_PREPARED: Final = 32
"""Statements that a connection keeps: PostgreSQL holds the plan of each, up to a megabyte."""


def build_pool(settings: ApiSettings) -> ConnectionPool:
    """Build the closed pool; a connection that died while idle is replaced before it is lent.

    Raises ConfigurationError when the URL is none.
    """
    return AsyncConnectionPool[AsyncConnection[Any]](
        settings.database_url.get_secret_value(),
        min_size=1,
        max_size=settings.database_pool_size,
        timeout=_POOL_SECONDS,
        # The pool's pauses between attempts double; starting over keeps them short after an outage.
        reconnect_timeout=_RECONNECT_SECONDS,
        configure=_configure,
        check=check_connection,
        open=False,
        name="api",
        kwargs={
            "autocommit": True,
            "connect_timeout": _CONNECT_SECONDS,
            "options": server_options(settings.database_url, _SESSION),
            "client_encoding": "UTF8",
            "application_name": "hubspot_deals_api",
            **KEEPALIVES,
        },
    )


def export_connection(settings: ApiSettings) -> dict[str, Any]:
    """Return psycopg's arguments for a process that reads whole tables."""
    return {
        "conninfo": settings.database_url.get_secret_value(),
        "options": server_options(settings.database_url, f"{NO_TIMEOUTS} {_PLANS}"),
        "connect_timeout": _CONNECT_SECONDS,
        "client_encoding": "UTF8",
        "application_name": "hubspot_deals_export",
        **KEEPALIVES,
    }


async def _configure(connection: AsyncConnection[Any]) -> None:
    connection.prepared_max = _MOST_PREPARED


async def check_connection(connection: AsyncConnection[Any]) -> None:
    """Close an idle connection that the server has ended, and raise OperationalError.

    An idle connection has nothing to say: one that can be read from brings its own end. Asking
    the server instead, as the pool's own check does, costs as much as a small statement.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    if poll.poll(0):
        # The pool throws away what is closed, and would lend anything else again.
        await connection.close()
        msg = "the server has closed the connection"
        raise psycopg.OperationalError(msg)


async def read(
    pool: ConnectionPool, reader: Callable[[AsyncConnection[Any]], Awaitable[_Result]]
) -> _Result:
    """Read on a connection, and once more on another one if the server ended the first."""
    async with pool.connection() as connection:
        try:
            return await reader(connection)
        except psycopg.OperationalError:
            if not connection.broken:
                raise
    async with pool.connection() as connection:
        return await reader(connection)
