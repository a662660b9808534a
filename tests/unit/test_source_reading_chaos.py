"""Accounts that change while they are read, seen by a search that lags, by scans that are killed.

Time is virtual. Each deal that stays as it is from the first start to the end is read exactly once.
"""

import asyncio
import json
import random
import time
from bisect import bisect_left, bisect_right, insort

import pytest

from hubspot_deals.source.deals import DealReader
from hubspot_deals.source.governor import Budget
from hubspot_deals.source.outlet import PageOutlet
from hubspot_deals.source.plan import Checkpoint, ListRange
from hubspot_deals.source.reading import Sizes, read_plan
from tests.unit.odd_account import ENDPOINTS, LONG_AGO, Slots
from tests.unit.test_source_governor import run_in_virtual_time

LAG, SETTLING = 15.0, 16.0
ROOM = 4_500


class LaggingAccount:
    """An account whose search still counts what is gone, and does not know yet what has come."""

    def __init__(self, rng, *, deals, churn):
        self.rng, self.churn = rng, churn
        self.listed, self.touched, self.archived = [], set(), []
        self.indexed, self.changed, self.pending = [], {}, []
        start = rng.choice((1, 712_004_419, 712_004_419, 2**53 - 1_000))
        while len(self.listed) < deals:
            step = rng.choice((1, 17, 1_000))
            for _ in range(min(deals - len(self.listed), rng.choice((150, 1_500, 5_000)))):
                self.listed.append(start)
                start += rng.randint(1, step)
            start += rng.choice((0, 10**5, 10**5, start))
        self.indexed += self.listed
        self.requests = 0
        self.governor = Slots()

    def archive(self, number, *, is_forgotten=False):
        self.listed.remove(number)
        self.archived.append(number)
        self._change(number, lambda: is_forgotten or self.indexed.remove(number))

    def restore(self, number):
        self.archived.remove(number)
        insort(self.listed, number)
        self._change(number, lambda: self._index(number))

    def _change(self, number, catch_up):
        self.touched.add(number)
        self.pending.append((time.time() + LAG, catch_up))

    def _index(self, number):
        if number not in self.indexed:
            insort(self.indexed, number)
        self.changed[number] = int((time.time() - LAG) * 1000)

    async def _take_time(self, least, most):
        self.requests += 1
        assert self.requests < 3_000, "the same is asked for again and again"
        await asyncio.sleep(self.rng.uniform(least, most))
        if self.rng.random() < self.churn:
            if self.archived and self.rng.random() < 0.5:
                self.restore(self.rng.choice(self.archived))
            else:
                self.archive(self.rng.choice(self.listed))
        self.catch_up()

    def catch_up(self):
        while self.pending and self.pending[0][0] <= time.time():
            self.pending.pop(0)[1]()

    async def get(self, endpoint, params):
        assert endpoint is ENDPOINTS.deals
        await self.governor.admit(Budget.BURST)
        await self._take_time(0.3, 0.8)
        begin = bisect_left(self.listed, int(params.get("after", 0)))
        page = {"results": [as_sent(number) for number in self.listed[begin : begin + 100]]}
        if begin + 100 < len(self.listed):
            page["paging"] = {"next": {"after": str(self.listed[begin + 100])}}
        return page

    async def post(self, endpoint, body):
        assert endpoint is ENDPOINTS.search
        await self.governor.admit(Budget.SEARCH)
        await self._take_time(0.02, 0.06)
        low, high, since = 0, 2**62, 0
        for one in [one for group in body["filterGroups"] for one in group["filters"]]:
            if one["propertyName"] == "hs_lastmodifieddate":
                since = int(one["value"])
            elif one["operator"] == "GT":
                low = int(one["value"])
            else:
                high = int(one["value"])
        between = self.indexed[bisect_right(self.indexed, low) : bisect_right(self.indexed, high)]
        found = [number for number in between if self.changed.get(number, LONG_AGO) >= since]
        if body["sorts"][0]["direction"] == "DESCENDING":
            found.reverse()
        after, end = int(body["after"]), int(body["after"]) + body["limit"]
        gone = set(self.archived)
        shown = [as_sent(number) for number in found[after:end] if number not in gone]
        more = {"paging": {"next": {"after": str(end)}}} if end < len(found) else {}
        return {"total": len(found), "results": shown} | more


def as_sent(number):
    return {"id": str(number), "properties": {}}


async def read(account, sizes, start, earlier, *, most_pages=None):
    """The pages up to the end or to a kill, and whether it was the end."""
    reader = DealReader(account, ENDPOINTS, ())
    for number in earlier:
        reader.remember(number, None)
    outlet = PageOutlet(reader, ROOM)

    async def fill():
        await read_plan(reader, outlet, [ListRange()], start, sizes)
        outlet.end()

    pages = []
    async with asyncio.TaskGroup() as group:
        filling = group.create_task(fill())
        while most_pages is None or len(pages) < most_pages:
            page = await asyncio.wait_for(outlet.get(), 3_600)
            if page is None:
                return pages, True
            pages.append(page)
        filling.cancel()
    return pages, False


async def read_with_kills(account, rng, sizes, kills):
    """All deals that were committed by processes that were killed and by the last one."""
    done, stored = [], None
    for number in range(kills + 1):
        most = None if number == kills else rng.randint(1, 40)
        start = Checkpoint.from_json(stored)
        pages, is_end = await read(account, sizes, start, done, most_pages=most)
        kept = pages if is_end else pages[: rng.randint(0, len(pages))]
        done += [int(deal["id"]) for page in kept for deal in page.deals]
        if is_end:
            break
        if kept:
            stored = json.loads(json.dumps(kept[-1].checkpoint.to_json()))
        await asyncio.sleep(rng.choice((1, 7_200)))
    return done


@pytest.fixture(autouse=True)
def _virtual_clock(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1.7e9 + asyncio.get_running_loop().time())


@pytest.mark.parametrize("kills", [0, 2])
@pytest.mark.parametrize("churn", [0, 0.1])
@pytest.mark.parametrize("kind", ["restored", "still counted"])
@pytest.mark.parametrize("seed", range(6))
def test_deals_that_stay_as_they_are_are_read_once(seed, kind, churn, kills):
    rng = random.Random(f"{seed} {kind} {churn} {kills}")

    async def scenario():
        account = LaggingAccount(rng, deals=rng.choice((2_000, 4_000, 6_000)), churn=churn)
        for number in rng.sample(account.listed, 60 if kind == "restored" else 5):
            account.archive(number, is_forgotten=kind == "still counted")
        if kind == "restored":
            await asyncio.sleep(2 * LAG)
            account.catch_up()
            while account.archived:
                account.restore(account.archived[0])
        await asyncio.sleep(rng.uniform(0, 3))
        before, account.touched = set(account.listed), set()
        done = await read_with_kills(account, rng, Sizes(300, 1_000, settling=SETTLING), kills)
        assert len(done) == len(set(done))
        assert before - account.touched <= set(done)

    run_in_virtual_time(scenario())
