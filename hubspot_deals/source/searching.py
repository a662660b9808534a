"""Reads the deals of a date range by several searches at a time.

Every segment is proved by its own count, and all of them by the count of the range by date alone,
which is of one mind with nothing that a search by id could get wrong.
"""

import asyncio
from typing import Final

from hubspot_deals.source.governor import Budget
from hubspot_deals.source.plan import Span
from hubspot_deals.source.search import SEARCH_PAGE, UnsoundSearchError
from hubspot_deals.source.segments import LEAST_PAGES, SEARCH_READERS, Segments, ShardReading
from hubspot_deals.source.shards import work_together

_SEGMENT: Final = 2_000
_RECOUNTS: Final = (0.0, 3.0, 6.0)
"""Seconds before a count is asked for again: the index counts deals that are gone for a while."""


class SearchedRange:
    """One date range while it is searched. Raises UnsoundSearchError where deals may be missing."""

    def __init__(self, reading: ShardReading, span: Span) -> None:
        self._reading = reading
        self._ledger = reading.ledger
        self._governor = reading.reader.client.governor
        self._governor.when_admitted = self._ledger.wake
        self._segments = Segments(reading, span)
        self._span = span

    async def read(self) -> None:
        """Read and prove everything that the ledger holds."""
        await work_together(self._work() for _ in range(SEARCH_READERS))
        await self._prove_range()

    async def _work(self) -> None:
        while self._ledger.shards:
            key = self._ledger.take(lambda _, shard: shard.proof is not None)
            if key is None and self._governor.is_free(Budget.SEARCH):
                key = await self._carve()
            if key is None:
                if self._ledger.shards:
                    await self._ledger.change()
                continue
            await self._segments.walk(key)
            await self._prove(key)

    async def _carve(self) -> int | None:
        pool = self._ledger.take(lambda _, shard: shard.proof is None)
        if pool is None:
            return None
        left = (self._ledger.count or 0) - self._begun()
        # Smaller ones towards the end, so that all searches end together.
        pages = left // (SEARCH_READERS * SEARCH_PAGE)
        size = min(_SEGMENT, max(LEAST_PAGES, pages) * SEARCH_PAGE)
        key = await self._segments.carve(pool, size)
        if key is None:
            self._ledger.close(pool)
        elif pool in self._ledger.shards:
            self._ledger.release(pool)
        return key

    def _begun(self) -> int:
        proofs = [shard.proof for shard in self._ledger.shards.values() if shard.proof]
        return self._ledger.read + sum(proof.count for proof in proofs)

    async def _prove(self, key: int) -> None:
        proof = self._ledger.shards[key].proof
        if proof is None:
            raise UnsoundSearchError
        for pause in _RECOUNTS if proof.read < proof.count else ():
            await asyncio.sleep(pause)
            count = await self._segments.count(proof)
            if count is None:
                raise UnsoundSearchError
            if proof.read >= count:
                break
        else:
            if proof.read < proof.count:
                raise UnsoundSearchError
        self._ledger.read += proof.read
        self._ledger.close(key)

    async def _prove_range(self) -> None:
        """Compare what was read with HubSpot's count by date, of the start or of now."""
        ledger, search = self._ledger, self._reading.reader.search
        if ledger.count is not None and ledger.read >= ledger.count:
            return
        for pause in _RECOUNTS:
            await asyncio.sleep(pause)
            count = await search.count(self._span)
            if count is None:
                break
            if ledger.read >= count:
                return
        raise UnsoundSearchError
