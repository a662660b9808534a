"""The API as a process of its own, on a database with one big scan."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.serving import uvicorn_command
from benchmarks.serving_data import add_deals, create_database
from hubspot_deals.local.ports import LOOPBACK, free_ports
from hubspot_deals.local.processes import Child, stop_together, wait_until_ready
from hubspot_deals.local.readiness import answers
from hubspot_deals.local.throwaway import throwaway_postgres

_START_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class RunningApi:
    """Where the API and its database are; `folder` is gone when they are."""

    url: str
    pid: int
    database: str
    folder: Path


@contextmanager
def serve_deals(deals: int) -> Iterator[RunningApi]:
    """Serve a scan of so many deals."""
    with ExitStack() as stack:
        server = stack.enter_context(throwaway_postgres())
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="hubspot-deals-bench-")))
        database = create_database(server, "one_scan")
        add_deals(database, deals)
        (port,) = free_ports(1)
        url = f"http://{LOOPBACK}:{port}"
        command = uvicorn_command("api", "api.main:create_app", port, database, folder / "none")
        child = Child(command, folder / "api.log")
        stack.callback(stop_together, [child])
        ready = {child: answers(f"{url}/api/v1/health")}
        wait_until_ready(ready, [child], _START_SECONDS, lambda: None)
        yield RunningApi(url, child.process.pid, database, folder)
