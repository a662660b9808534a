"""Big ranges are read at several places at a time: exactly, whatever the server is like."""

import asyncio
import json
import random
from datetime import date

import pytest

from hubspot_deals.contract import DateRange
from hubspot_deals.errors import HubSpotRequestError, HubSpotScopeError, HubSpotUnavailableError
from hubspot_deals.source import searching
from hubspot_deals.source.deals import DealReader
from hubspot_deals.source.outlet import PageOutlet
from hubspot_deals.source.plan import Checkpoint, ListRange, SearchRange
from hubspot_deals.source.reading import Sizes, read_plan
from tests.unit.odd_account import ENDPOINTS, FIRST_MS, IDS, LONG_AGO, Account, created

YEAR = DateRange(date(2024, 1, 1), date(2024, 12, 31))
NO_SEARCH = HubSpotRequestError("POST search", 404, "no")
FORBIDDEN = HubSpotScopeError("POST search", ["crm.objects.deals.read"], "no")
DOWN = HubSpotUnavailableError("POST search", "502", 3)
SIZES = Sizes(few=300, many=1_000, settling=0.0)
ROOM = 4_500


def read(account, *plan, start=None, earlier=(), room=ROOM):
    """The pages that were put before the reading ended, and the error that ended it."""
    reader = DealReader(account, ENDPOINTS, ("createdate",))
    for number in earlier:
        reader.remember(number, None)
    pages = []

    async def collect():
        outlet = PageOutlet(reader, room)

        async def fill():
            try:
                await read_plan(reader, outlet, plan, start or Checkpoint(), SIZES)
            except Exception as error:  # noqa: BLE001
                outlet.end(error)
            else:
                outlet.end()

        filling = asyncio.create_task(fill())
        while hasattr(page := await outlet.get(), "deals"):
            pages.append(page)
        await filling
        return page

    return pages, asyncio.run(asyncio.wait_for(collect(), 30))


def ids_of(pages):
    return [int(deal["id"]) for page in pages for deal in page.deals]


def wanted(account, deal_range):
    is_filtered = isinstance(deal_range, SearchRange)
    return sorted(
        number for number in account.deals if not is_filtered or created(number) >= FIRST_MS
    )


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(searching, "_RECOUNTS", (0.0, 0.01, 0.02))


RANGES = {"full": ListRange(), "filtered": SearchRange(YEAR)}
# What a server may be like; those named first are read at several places at a time.
SERVERS = {
    "HubSpot": {},
    "cursors are excluded": {"is_inclusive": False},
    "no search": {"refusal": NO_SEARCH},
    "search is down": {"refusal": DOWN},
    "search compares as text": {"compare_key": str},
    "search sorts and compares as text": {"sort_key": str, "compare_key": str},
    "search sorts as text": {"sort_key": str},
    "search sorts descending": {"sort_key": lambda number: -number},
    "search finds nothing by id": {"compare_key": lambda _: 0},
    "index without the first deals": {"unindexed": IDS[20:90]},
    "list as text": {"list_key": str},
    "list descending": {"list_key": lambda number: -number},
    "list in no order": {"list_key": lambda number: number * 2_654_435_761 % 2**32},
    "cursors are offsets": {"cursor": "offset"},
    "cursors are opaque": {"cursor": "opaque"},
    "list in no order, no search": {
        "list_key": lambda number: number * 2_654_435_761 % 2**32,
        "refusal": NO_SEARCH,
    },
}
FAILING = {("search is down", "filtered"), ("index without the first deals", "filtered")}
CASES = [(name, kind) for name in SERVERS for kind in RANGES if (name, kind) not in FAILING]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_deal_is_read_once_whatever_the_server_is_like(name, kind):
    account = Account(**SERVERS[name])
    pages, error = read(account, RANGES[kind])
    assert error is None
    assert sorted(ids_of(pages)) == wanted(account, RANGES[kind])
    assert pages[-1].checkpoint == Checkpoint(1)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_readings_that_end_anywhere_and_go_on_elsewhere_add_up(name, kind):
    deal_range, rng = RANGES[kind], random.Random(f"{name} {kind}")
    done, checkpoint, runs = [], None, 0
    while True:
        account = Account(**SERVERS[name], seed=runs)
        account.ends_after = rng.randint(3, 9) + 4 * runs
        start = Checkpoint.from_json(checkpoint)
        pages, error = read(account, deal_range, start=start, earlier=done)
        if error is None:
            break
        assert isinstance(error, ConnectionAbortedError)
        runs += 1
        # A kill: what was read behind the last committed page is lost.
        if kept := pages[: rng.randint(0, len(pages))]:
            done += ids_of(kept)
            checkpoint = json.loads(json.dumps(kept[-1].checkpoint.to_json()))
    done += ids_of(pages)
    assert runs > 0
    assert sorted(done) == wanted(account, deal_range)


@pytest.mark.parametrize("cursor", [str(IDS[1_000]), str(IDS[2_700])])
def test_a_checkpoint_of_an_earlier_version_goes_on_page_by_page(cursor):
    account = Account()
    earlier = [number for number in IDS if number < int(cursor)]
    start = Checkpoint.from_json({"range": 0, "cursor": cursor})
    pages, error = read(account, ListRange(), start=start, earlier=earlier)
    assert error is None
    assert ids_of(pages) == [number for number in IDS if number >= int(cursor)]
    assert account.most_under_way == 1


def test_a_full_scan_reads_by_list_and_by_search_at_once():
    account = Account()
    pages, _ = read(account, ListRange())
    assert account.most_under_way > 4
    assert account.searches > 5
    assert account.lists + account.searches < 2.6 * len(IDS) / 100
    assert len(pages) > 30


def test_few_deals_are_read_page_by_page():
    account = Account(IDS[:300])
    read(account, ListRange())
    assert (account.lists, account.searches, account.most_under_way) == (3, 1, 2)


def test_requests_wait_for_room():
    account = Account()
    pages, error = read(account, ListRange(), room=400)
    assert error is None
    assert sorted(ids_of(pages)) == IDS
    # The searches that only count hold no deals.
    assert account.most_under_way <= 4 + 3


@pytest.mark.parametrize("is_swept", [True, False], ids=["in time", "never"])
def test_what_the_index_learns_of_late_is_read_all_the_same(is_swept):
    """Deals restored just before the scan are listed at once, and found some seconds later."""
    late = IDS[900:1_000] + IDS[1_200:1_300]

    class Late(Account):
        async def post(self, endpoint, body):
            if "hs_lastmodifieddate" in json.dumps(body["filterGroups"]):
                if not is_swept:
                    raise DOWN
                self.unindexed = set()
            return await super().post(endpoint, body)

    for seed in range(5):
        account = Late(unindexed=late, seed=seed)
        account.deals |= dict.fromkeys(late, 10**15)
        pages, error = read(account, ListRange())
        assert error is None
        assert sorted(ids_of(pages)) == IDS


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", RANGES)
def test_deals_that_come_and_go_meanwhile_hide_no_others(kind, seed):
    class Changing(Account):
        gone, moved = set(), 0

        async def _take_time(self, longer=1):
            await super()._take_time(longer)
            number = self.random.choice(IDS)
            if self.random.random() < 0.3:
                self.deals.pop(number, None)
                self.gone.add(number)
            elif self.random.random() < 0.1:
                self.deals.setdefault(number + 1, LONG_AGO)

    account = Changing(seed=seed)
    account.gone = set()
    pages, error = read(account, RANGES[kind])
    read_ids = ids_of(pages)
    assert error is None
    assert len(read_ids) == len(set(read_ids))
    still = set(wanted(Account(), RANGES[kind])) - account.gone
    assert still <= set(read_ids)


@pytest.mark.parametrize("refusal", [NO_SEARCH, FORBIDDEN, DOWN], ids=["404", "403", "502"])
@pytest.mark.parametrize("searches", [2, 3, 4])
def test_a_search_that_ends_meanwhile_leaves_the_rest_to_the_list(refusal, searches):
    class Refusing(Account):
        async def post(self, endpoint, body):
            if self.searches == searches:
                self.refusal = refusal
            return await super().post(endpoint, body)

    refused = 0
    for seed in range(4):
        account = Refusing(seed=seed)
        pages, error = read(account, ListRange())
        refused += account.refusal is refusal
        assert error is None
        assert sorted(ids_of(pages)) == IDS
        # What was read is not read once more from the start.
        assert account.lists < 2.5 * len(IDS) / 100
    assert refused > 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", RANGES)
def test_a_search_that_shows_fewer_deals_than_it_counts_is_not_believed(kind, seed):
    """Some deals are counted and never shown, whatever is asked."""
    hidden = set(random.Random(seed).sample(IDS, 30))

    class Hiding(Account):
        async def post(self, endpoint, body):
            page = await super().post(endpoint, body)
            page["results"] = [deal for deal in page["results"] if int(deal["id"]) not in hidden]
            return page

    account = Hiding(seed=seed)
    pages, error = read(account, RANGES[kind])
    assert error is None
    assert sorted(ids_of(pages)) == wanted(account, RANGES[kind])


@pytest.mark.parametrize("turn", [300, 1_100, 1_500, 2_500])
@pytest.mark.parametrize("kind", RANGES)
def test_a_list_that_is_out_of_order_farther_on_is_read_as_one_chain(kind, turn):
    def key(number):
        return number if number < IDS[turn] else 10**12 - number

    account = Account(list_key=key, refusal=NO_SEARCH)
    pages, error = read(account, RANGES[kind])
    assert error is None
    assert sorted(ids_of(pages)) == wanted(account, RANGES[kind])


@pytest.mark.parametrize("seed", range(5))
def test_the_survivor_of_a_merge_is_read_wherever_its_loser_was(seed):
    """A merge takes two deals away and may bring one with a new id, the account's highest."""

    class Merging(Account):
        async def _take_time(self, longer=1):
            await super()._take_time(longer)
            pair = self.random.sample(sorted(self.deals), 2)
            if self.random.random() < 0.3:
                merged.append(max(self.deals) + 50)
                for number in pair:
                    del self.deals[number]
                self.deals[merged[-1]] = LONG_AGO

    merged = []
    account = Merging(seed=seed)
    pages, _ = read(account, ListRange())
    assert merged
    read_ids = ids_of(pages)
    assert len(read_ids) == len(set(read_ids))
    assert set(account.deals) - set(merged[-8:]) <= set(read_ids)
