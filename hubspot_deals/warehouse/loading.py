"""Loads and commits one chunk after the other, beside the reading of the next one."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from hubspot_deals.tables import DEALS, Table
from hubspot_deals.warehouse import chunks
from hubspot_deals.warehouse.digests import digest
from hubspot_deals.warehouse.leases import Lease
from hubspot_deals.warehouse.pipeline import ScanPipeline


class ChunkLoader:
    """Has a thread of its own, and one chunk at a time.

    While a chunk is loaded nobody else may use the lease's connection: call `finish` before, or
    leave the `with` block, which waits for the chunk that is under way.
    """

    def __init__(
        self, lease: Lease, pipeline: ScanPipeline, call_when_failed: Callable[[Exception], None]
    ) -> None:
        """`call_when_failed` hears of a failure at once, in another thread."""
        self._lease = lease
        self._pipeline = pipeline
        self._call_when_failed = call_when_failed
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._under_way: Future[None] | None = None
        self.committed_deals = 0
        """Of this run."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown()

    def begin(
        self,
        tables: Mapping[Table, list[pa.Table]],
        *,
        checkpoint: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Load the rows of some tables as one package, as soon as the chunk before is committed.

        Raises what that one failed with.
        """
        self.finish()
        self._under_way = self._executor.submit(self._load, tables, checkpoint, facts)
        self._under_way.add_done_callback(self._tell)

    def finish(self) -> None:
        """Wait until all that was begun is committed; raises what it failed with."""
        if self._under_way is not None:
            self._under_way.result()

    def _load(
        self,
        tables: Mapping[Table, list[pa.Table]],
        checkpoint: Mapping[str, Any] | None,
        facts: Mapping[str, Any] | None,
    ) -> None:
        rows = {
            table.name: sum(batch.num_rows for batch in batches)
            for table, batches in tables.items()
        }
        # Before the rows are on their way: loading empties the lists.
        digests = {table.name: digest(table, batches) for table, batches in tables.items()}
        first_rows = {name: chunks.last_checkpoint(self._lease, name)[1] + 1 for name in rows}
        load_id = ""
        if any(rows.values()):
            load_id = self._pipeline.load(
                tables, scan_id=self._lease.config.scan_id, first_rows=first_rows
            )
        chunks.commit_chunk(
            self._lease, rows, load_id, checkpoint=checkpoint, facts=facts, digests=digests
        )
        self.committed_deals += rows.get(DEALS.name, 0)

    def _tell(self, loaded: Future[None]) -> None:
        if isinstance(error := loaded.exception(), Exception):
            self._call_when_failed(error)
