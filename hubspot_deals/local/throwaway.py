"""A PostgreSQL that exists only inside a `with` block, for tests and benchmarks."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hubspot_deals.local.folder import DataFolder
from hubspot_deals.local.postgres import EmbeddedPostgres
from hubspot_deals.local.processes import Child, stop_together, wait_until_ready

_READY_SECONDS: Final = 30.0


@contextmanager
def throwaway_postgres() -> Iterator[EmbeddedPostgres]:
    """Start a new cluster with the product's empty database; remove all of it at the end."""
    with tempfile.TemporaryDirectory(prefix="hubspot-deals-") as parent:
        # PostgreSQL's own user, under root, has to pass: else the cluster would go elsewhere.
        Path(parent).chmod(0o711)
        folder = DataFolder(Path(parent) / "data")
        folder.create()
        with running_postgres(folder) as server:
            yield server


@contextmanager
def running_postgres(folder: DataFolder) -> Iterator[EmbeddedPostgres]:
    """Run a data folder's own cluster, created at its first use."""
    server = EmbeddedPostgres.prepare(folder)
    child = Child(server.command(), folder.logs / "postgres.log")
    try:
        wait_until_ready({child: server.is_ready}, [child], _READY_SECONDS, lambda: None)
        server.ensure_database()
        yield server
    finally:
        stop_together([child])
