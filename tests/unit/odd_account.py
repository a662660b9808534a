"""A HubSpot account for tests of reading in parts: in memory, and odd in chosen ways."""

import asyncio
import random
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime

from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.governor import Budget, Governor

ENDPOINTS = Endpoints.of_version("v3")
FIRST_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
LONG_AGO = 1_000
# Clusters of nine, ten and eleven digits, with gaps inside and between them.
IDS = sorted(
    start + number * step + number * number % step
    for start, step, amount in ((712_004_419, 7, 1_100), (1_906_553_519, 90, 900))
    for number in range(amount)
) + [13_501_632_122 + number * 1_000 for number in range(800)]


class Slots(Governor):
    """Admits one request after the other, each some turns of the loop after the last."""

    def __init__(self):
        super().__init__()
        self.locks = {budget: asyncio.Lock() for budget in Budget}

    async def _wait_for_slot(self, budget, _):
        async with self.locks[budget]:
            for _ in range(3 if budget is Budget.BURST else 6):
                await asyncio.sleep(0)
        return 0.0


class Account:
    """HubSpot as the reader sees it; each argument makes it odd in one way."""

    def __init__(
        self,
        ids=IDS,
        *,
        list_key=int,
        is_inclusive=True,
        cursor="id",
        sort_key=int,
        compare_key=int,
        unlisted=(),
        unindexed=(),
        refusal=None,
        seed=1,
    ):
        self.deals = dict.fromkeys(ids, LONG_AGO)
        self.list_key, self.is_inclusive, self.cursor = list_key, is_inclusive, cursor
        self.sort_key, self.compare_key = sort_key, compare_key
        self.unlisted, self.unindexed = set(unlisted), set(unindexed)
        self.refusal = refusal
        self.random = random.Random(seed)
        self.governor = Slots()
        self.lists = self.searches = self.under_way = self.most_under_way = 0
        self.ends_after = None
        self.orders = {}

    async def get(self, endpoint, params):
        assert endpoint is ENDPOINTS.deals
        await self.governor.admit(Budget.BURST)
        self.lists += 1
        await self._take_time(6)
        ordered = self._sorted(self.list_key)
        begin = self._begin(ordered, params.get("after"))
        found = ordered[begin : begin + 100]
        page = {"results": [as_sent(number) for number in found if number not in self.unlisted]}
        if begin + 100 < len(ordered):
            page["paging"] = {"next": {"after": self._cursor(ordered, begin + 100)}}
        return page

    def _begin(self, ordered, after):
        if after is None:
            return 0
        if self.cursor != "id":
            return int(after.removeprefix("c")) if self.cursor == "offset" or "c" in after else 0
        find = bisect_left if self.is_inclusive else bisect_right
        return find(ordered, self.list_key(int(after)), key=self.list_key)

    def _sorted(self, key):
        """All ids in an order, kept until there are others."""
        known, ordered = self.orders.get(key, (None, []))
        if known != self.deals.keys():
            ordered = sorted(self.deals, key=key)
            self.orders[key] = set(self.deals), ordered
        return ordered

    def _cursor(self, ordered, begin):
        if self.cursor == "id":
            return str(ordered[begin] if self.is_inclusive else ordered[begin - 1])
        return f"c{begin}" if self.cursor == "opaque" else str(begin)

    async def post(self, endpoint, body):
        assert endpoint is ENDPOINTS.search
        await self.governor.admit(Budget.SEARCH)
        self.searches += 1
        await self._take_time(6)
        if self.refusal is not None:
            raise self.refusal
        after, limit = int(body["after"]), body["limit"]
        assert after + limit <= 10_000
        filters = [found for group in body["filterGroups"] for found in group["filters"]]
        found = [
            number
            for number in self._sorted(self.sort_key)
            if number not in self.unindexed and all(self._fits(number, one) for one in filters)
        ]
        if body["sorts"][0]["direction"] == "DESCENDING":
            found.reverse()
        page = {
            "total": len(found),
            "results": [as_sent(number) for number in found[after : after + limit]],
        }
        more = {"paging": {"next": {"after": str(after + limit)}}}
        return page | (more if after + limit < len(found) else {})

    def _fits(self, number, found):
        if found["propertyName"] == "createdate":
            return int(found["value"]) <= created(number) <= int(found["highValue"])
        if found["propertyName"] == "hs_lastmodifieddate":
            return self.deals[number] >= int(found["value"])
        key, edge = self.compare_key(number), self.compare_key(int(found["value"]))
        return key > edge if found["operator"] == "GT" else key <= edge

    async def _take_time(self, longer=1):
        if self.ends_after is not None and self.lists + self.searches > self.ends_after:
            raise ConnectionAbortedError
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        for _ in range(longer * self.random.randint(1, 9)):
            await asyncio.sleep(0)
        self.under_way -= 1


def created(number):
    """Two of three deals are inside the year."""
    return FIRST_MS - 1 if number % 3 == 0 else FIRST_MS + number % 1_000


def as_sent(number):
    return {"id": str(number), "properties": {"createdate": str(created(number))}}
