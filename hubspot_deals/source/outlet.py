"""Pages of deals on their way to the consumer: each deal once, and never too many of them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TypeVar

from hubspot_deals.source.deals import DealPage, DealReader
from hubspot_deals.source.plan import Checkpoint, DealRange

_T = TypeVar("_T")
_EMPTY_PAGE: Final = 1
"""What a page without new deals takes of the room, so that those are not endless either."""


class PageOutlet:
    """Hands pages over in the order they were put, which is the order they were sifted in.

    So whatever the consumer has committed, what was left out of it as read before is part of it.
    A request first reserves `room` for all deals that its answer can hold.
    """

    def __init__(self, reader: DealReader, room: int) -> None:
        self._reader = reader
        self._free = room
        self._freed = asyncio.Event()
        self._pages: deque[DealPage | Exception | None] = deque()
        self._filled = asyncio.Event()

    async def reserve(self, deals: int) -> None:
        """Wait until there is room for so many deals."""
        while self._free < deals:
            self._freed.clear()
            await self._freed.wait()
        self._free -= deals

    def give_back(self, deals: int) -> None:
        """Free what was reserved and not needed."""
        self._free += deals
        self._freed.set()

    async def reserving(self, pages: AsyncIterator[_T], deals: int) -> AsyncIterator[_T]:
        """Yield pages, each asked for when there is room for it; `put` takes the room over."""
        while True:
            await self.reserve(deals)
            try:
                page = await anext(pages)
            except StopAsyncIteration:
                self.give_back(deals)
                return
            except BaseException:
                self.give_back(deals)
                raise
            yield page

    def put(
        self,
        deals: Sequence[dict[str, Any]],
        deal_range: DealRange,
        checkpoint: Checkpoint,
        *,
        reserved: int,
    ) -> None:
        """Pass on what is new of a page; its room is kept until the consumer takes it."""
        page = DealPage(self._reader.sift(deals, deal_range), checkpoint)
        self.give_back(reserved - _size(page))
        self._append(page)

    def end(self, error: Exception | None = None) -> None:
        """Let the consumer know that all pages were put, or why there are no more."""
        self._append(error)

    async def get(self) -> DealPage | Exception | None:
        """Return the next page, the error that ended the reading, or None behind the last page."""
        while not self._pages:
            self._filled.clear()
            await self._filled.wait()
        page = self._pages.popleft()
        if isinstance(page, DealPage):
            self.give_back(_size(page))
        return page

    def _append(self, page: DealPage | Exception | None) -> None:
        self._pages.append(page)
        self._filled.set()


def _size(page: DealPage) -> int:
    return max(len(page.deals), _EMPTY_PAGE)
