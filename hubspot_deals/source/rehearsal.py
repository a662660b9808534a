"""Reads an imagined account the way a scan would read the real one, to know what that will take.

The reader itself reads, held back by the same limits, on an event loop that skips every wait. So
its requests are counted instead of guessed, and the count follows every change of the reader.
"""

import asyncio
import random
import selectors
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic import SecretStr

from hubspot_deals.source.client import ConnectionOptions, HubSpotClient
from hubspot_deals.source.deals import LIST_PAGE, DealReader
from hubspot_deals.source.endpoints import Endpoint, Endpoints
from hubspot_deals.source.governor import Budget, now
from hubspot_deals.source.outlet import PageOutlet
from hubspot_deals.source.plan import (
    NUMERIC_ID,
    Checkpoint,
    DealRange,
    SearchRange,
    changed_since,
)
from hubspot_deals.source.reading import Sizes, read_plan

_ROOM: Final = 1_600
_SPREAD: Final = (0.5, 1.5)
"""Between which parts of the average an answer takes."""
_MOST_DEALS: Final = 400_000
"""A larger account takes in proportion: what is not in proportion does not show there."""
_CHANGED: Final = changed_since(0)["propertyName"]


@dataclass(frozen=True, slots=True)
class ImaginedAccount:
    """What is known or taken for granted of an account.

    `ids` are those of the live deals that are asked for, ascending, each of which stands for
    `scale` deals; `archived` counts all archived deals. `has_others` tells that there are live
    deals that are not asked for; `burst` is what HubSpot's headers allow in ten seconds, `latency`
    what an answer takes, in seconds.
    """

    ids: Sequence[int]
    scale: float = 1.0
    archived: int = 0
    has_others: bool = True
    burst: int | None = None
    latency: Mapping[Budget, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Requests by kind, and the seconds from the first to the last answer."""

    lists: int = 0
    searches: int = 0
    others: int = 0
    seconds: float = 0.0

    def scaled(self, factor: float) -> "Rehearsal":
        """Return what so many times as many deals take."""
        return Rehearsal(
            round(self.lists * factor),
            round(self.searches * factor),
            round(self.others * factor),
            self.seconds * factor,
        )


def scale_of(deals: int) -> float:
    """Return how many deals one has to stand for, so that they are not too many to rehearse."""
    return max(1.0, deals / _MOST_DEALS)


def rehearse(
    plan: Sequence[DealRange],
    properties: Sequence[str],
    account: ImaginedAccount,
    options: ConnectionOptions,
) -> Rehearsal:
    """Return what reading a plan takes. For a thread without a running event loop."""
    account = replace(account, archived=round(account.archived / account.scale))
    with asyncio.Runner(loop_factory=_SkippingLoop) as runner:
        return runner.run(_read(plan, properties, account, options)).scaled(account.scale)


async def _read(
    plan: Sequence[DealRange],
    properties: Sequence[str],
    account: ImaginedAccount,
    options: ConnectionOptions,
) -> Rehearsal:
    is_filtered = any(isinstance(deal_range, SearchRange) for deal_range in plan)
    client = _ImaginedClient(options, account, is_filtered=is_filtered)
    reader = DealReader(client, Endpoints.of_version(options.api_version), properties)
    outlet = PageOutlet(reader, _ROOM)
    reading = asyncio.create_task(read_plan(reader, outlet, plan, Checkpoint()))
    reading.add_done_callback(lambda _: outlet.end())
    while await outlet.get() is not None:
        continue
    await reading
    seconds = now()
    if client.swept_at is not None:
        # The reader waits until the index has settled since its start by the world's clock.
        seconds -= min(Sizes().settling, client.swept_at - Sizes().settling)
    return Rehearsal(**client.asked, seconds=seconds)


class _ImaginedClient(HubSpotClient):
    """Answers from an imagined account as HubSpot would, at HubSpot's pace."""

    def __init__(
        self, options: ConnectionOptions, account: ImaginedAccount, *, is_filtered: bool
    ) -> None:
        super().__init__(SecretStr("imagined"), options)
        if account.burst is not None:
            self.governor.observe({"X-HubSpot-RateLimit-Max": str(account.burst)})
        self.asked: Counter[str] = Counter()
        self.swept_at: float | None = None
        self._account = account
        self._is_filtered = is_filtered
        # Equal plans are equal.
        self._random = random.Random(0)  # noqa: S311

    async def get(
        self, endpoint: Endpoint, params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        await self._pass(endpoint, "lists")
        asked = params or {}
        if asked["limit"] == "1":
            return {"results": [_deal(1, asked["properties"])] if self._account.has_others else []}
        if asked["archived"] == "true":
            return self._archived_page(int(asked.get("after", 0)))
        ids = self._account.ids
        begin = bisect_left(ids, int(asked.get("after", 0)))
        found = ids[begin : begin + LIST_PAGE]
        has_more = begin + LIST_PAGE < len(ids)
        return _page(found, following=found[-1] + 1 if has_more else None)

    async def post(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        params: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        if "inputs" in body:
            await self._pass(endpoint, "others")
            return _page([int(asked["id"]) for asked in body["inputs"]])
        await self._pass(endpoint, "searches")
        return self._search(body)

    def _archived_page(self, begin: int) -> dict[str, Any]:
        end = min(begin + LIST_PAGE, self._account.archived)
        following = end if end < self._account.archived else None
        return _page(range(begin + 1, end + 1), following=following)

    def _search(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Find deals by id; all of them are inside the dates that are asked for."""
        ids, low, high = self._account.ids, 0, len(self._account.ids)
        for found in (found for group in body["filterGroups"] for found in group["filters"]):
            if found["propertyName"] == NUMERIC_ID:
                edge = bisect_right(ids, int(found["value"]))
                low, high = (edge, high) if found["operator"] == "GT" else (low, min(edge, high))
            elif found["propertyName"] == _CHANGED and not self._is_filtered:
                # What has changed since the start: nothing.
                self.swept_at, high = self.swept_at or now(), low
        if body["limit"] == 1:
            return _page([ids[high - 1] if high > 0 else 1]) | {"total": max(0, high - low)}
        begin = low + int(body["after"])
        end = min(high, begin + body["limit"])
        following = end - low if end < high else None
        return _page(ids[begin:end], following=following) | {"total": max(0, high - low)}

    async def _pass(self, endpoint: Endpoint, kind: str) -> None:
        await self.governor.admit(endpoint.budget)
        self.asked[kind] += 1
        latency = self._account.latency.get(endpoint.budget, 0.0)
        await asyncio.sleep(latency * self._random.uniform(*_SPREAD))


def _page(ids: Sequence[int], *, following: int | None = None) -> dict[str, Any]:
    page: dict[str, Any] = {"results": [_deal(number) for number in ids]}
    return page if following is None else page | {"paging": {"next": {"after": str(following)}}}


def _deal(number: int, dated: str = NUMERIC_ID) -> dict[str, Any]:
    return {"id": str(number), "properties": {dated: "2024-01-01T00:00:00Z"}}


class _SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to whatever is due next."""

    def __init__(self) -> None:
        self._skipped = 0.0
        super().__init__(_SkippingSelector(self))

    def time(self) -> float:
        return self._skipped

    def skip(self, seconds: float) -> None:
        """Let so much time pass at once."""
        self._skipped += seconds


class _SkippingSelector(selectors.DefaultSelector):
    def __init__(self, loop: _SkippingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            msg = "A rehearsal waits for something that nobody does"
            raise RuntimeError(msg)
        self._loop.skip(max(0.0, timeout))
        return super().select(0)
