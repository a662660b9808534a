"""The floors under a result page: bare ASGI apps without framework, parameters, log and checks.

One has a page in memory. The other one has PostgreSQL write each page, with the API's statement on
the API's pool: no API that reads its pages from there can be faster.
"""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from api.database import build_pool
from api.settings import ApiSettings
from benchmarks.serving_data import BIG_SCAN, COLUMNS
from hubspot_deals.warehouse.results import ResultTable, Snapshot, find_page, find_snapshot

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_DEALS = ResultTable("deals", 0, 0, COLUMNS)


def create_app() -> App:
    """Build the app that answers everything with the page in the file that BENCHMARK_PAGE names."""
    page = Path(os.environ["BENCHMARK_PAGE"]).read_bytes()  # noqa: TID251 - there are no settings

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await _answer(send, page)

    return app


def create_sql_app() -> App:
    """Build the app whose query string is an offset among the million deals."""
    url = SecretStr(os.environ["HUBSPOT_DEALS_DATABASE_URL"])  # noqa: TID251 - likewise
    pool = build_pool(ApiSettings(database_url=url, encryption_keys=SecretStr("-")))
    known: list[Snapshot] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await pool.open()
            async with pool.connection() as connection:
                known.extend(filter(None, [await find_snapshot(connection, BIG_SCAN)]))
            await _live(receive, send)
            await pool.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        offset = int(scope["query_string"] or 0)
        async with pool.connection() as connection:
            page = await find_page(connection, known[0], _DEALS, limit=100, offset=offset)
        assert page is not None
        await _answer(send, page.records)

    return app


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()


async def _answer(send: Send, body: bytes) -> None:
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
