"""Runs the REST facade for tests, as a real server on a free port of this process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx
import uvicorn
from fastapi import FastAPI

from api.edge.protocol import BoundedProtocol

_START_SECONDS: Final = 10


@contextmanager
def serve(app: FastAPI) -> Iterator[httpx.Client]:
    """Serve an application, with its lifespan, and yield a client of it."""
    config = uvicorn.Config(
        app, port=0, log_config=None, ws="none", lifespan="on", http=BoundedProtocol
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="api", daemon=True)
    thread.start()
    try:
        port = _wait_for_port(server, thread)
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def _wait_for_port(server: uvicorn.Server, thread: threading.Thread) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            msg = "The API did not start"
            raise RuntimeError(msg)
        time.sleep(0.005)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port
