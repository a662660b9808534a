"""Reading a date range: complete whatever the server's search is like."""

import asyncio
from datetime import UTC, date, datetime

import pytest

from hubspot_deals.contract import DateRange
from hubspot_deals.errors import HubSpotRequestError, HubSpotUnavailableError
from hubspot_deals.source.deals import DealPage, DealReader
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.plan import Checkpoint, SearchRange

YEAR = DateRange(date(2024, 1, 1), date(2024, 12, 31))
FIRST_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
HOUR_MS = 3_600_000
# Ids of nine and of eleven digits: as texts they sort another way than as numbers.
IDS = [*range(712_004_419, 712_004_419 + 300), *range(10_500_000_001, 10_500_000_001 + 300)]


def compare_as_text(number):
    return str(number)


class Server:
    """A search endpoint of its own making, which sorts and compares ids by `id_key`."""

    def __init__(
        self,
        deals,
        *,
        id_key=int,
        compare_key=None,
        knows_order=True,
        refusal=None,
        ms_key=int,
        has_total=True,
    ):
        self.deals = deals
        self.refusal = refusal
        self.ms_key = ms_key
        self.has_total = has_total
        self.id_key = id_key
        self.compare_key = compare_key or id_key
        self.knows_order = knows_order
        self.searches = self.lists = 0

    async def get(self, _, params):
        self.lists += 1
        begin, end = int(params.get("after", 0)), int(params.get("after", 0)) + 100
        page = {"results": [as_sent(deal) for deal in self.deals[begin:end]]}
        return page | ({"paging": {"next": {"after": end}}} if end < len(self.deals) else {})

    async def post(self, _, body):
        self.searches += 1
        if self.refusal is not None:
            raise self.refusal
        assert body.keys() == {"filterGroups", "sorts", "properties", "limit", "after"}
        after, limit = int(body["after"]), body["limit"]
        assert after + limit <= 10_000, "asked beyond the end of a search"
        [group] = body["filterGroups"]
        found = [deal for deal in self.deals if self._matches(deal, group["filters"])]
        if self.knows_order and body["sorts"][0]["propertyName"] == "hs_object_id":
            found.sort(key=lambda deal: self.id_key(deal[0]))
        else:
            found.sort(key=lambda deal: deal[1])
        page = {
            "total": len(found) if self.has_total else None,
            "results": [as_sent(deal) for deal in found[after : after + limit]],
        }
        if after + limit < len(found):
            page["paging"] = {"next": {"after": str(after + limit)}}
        return page

    def _matches(self, deal, filters):
        number, ms = deal
        return all(
            self.compare_key(number) > self.compare_key(int(condition["value"]))
            if condition["operator"] == "GT"
            else int(condition["value"]) <= self.ms_key(ms) <= int(condition["highValue"])
            for condition in filters
        )


def as_sent(deal):
    number, ms = deal
    return {"id": str(number), "properties": {"createdate": str(ms)}}


def every_hour(ids):
    """Deals in an order of creation that has nothing to do with their ids."""
    return [
        (number, FIRST_MS + place * HOUR_MS)
        for place, number in enumerate(sorted(ids, key=hash_of))
    ]


def hash_of(number):
    return number * 2_654_435_761 % 2**32


def read(server, *, start=None, earlier=()):
    """The pages of the one range, as the reader yields them."""
    reader = DealReader(server, Endpoints.of_version("v3"), ("createdate",))
    for number in earlier:
        reader.remember(number, None)

    cursor = start.cursor if start else None

    async def collect():
        return [
            DealPage(
                reader.sift(deals, SearchRange(YEAR)),
                Checkpoint(1) if after is None else Checkpoint(0, after),
            )
            async for deals, after in reader.walk(SearchRange(YEAR), cursor)
        ]

    return asyncio.run(collect())


def ids_of(pages):
    """Ids in the order of reading; one that is read twice shows up twice."""
    return [int(deal["id"]) for page in pages for deal in page.deals]


def test_ids_in_order_are_read_once_each_in_as_few_requests_as_pages():
    server = Server(every_hour(IDS))
    pages = read(server)
    assert ids_of(pages) == sorted(IDS)
    assert (server.searches, server.lists) == (4, 0), "three pages and one count"
    assert pages[-1].checkpoint == Checkpoint(1)


ODD_SERVERS = {
    "sorts and compares ids as texts": {"id_key": compare_as_text},
    "sorts ids as texts and compares them as numbers": {
        "id_key": compare_as_text,
        "compare_key": int,
    },
    "sorts ids as numbers and compares them as texts": {"compare_key": compare_as_text},
    "sorts by creation whatever it is asked": {"knows_order": False},
    "sorts ids descending": {"id_key": lambda number: -number, "compare_key": int},
    "finds nothing by id": {"compare_key": lambda _: 0},
    "refuses searches": {"refusal": HubSpotRequestError("POST search", 400, "limit 200 > 100")},
    "compares dates with other units": {"ms_key": lambda ms: ms // 1000},
    "gives no count": {"compare_key": compare_as_text, "has_total": False},
    "has no search": {"refusal": HubSpotRequestError("POST search", 404, "not found")},
}


@pytest.mark.parametrize("name", ODD_SERVERS)
def test_a_range_is_complete_whatever_its_search_is_like(name):
    server = Server(every_hour(IDS), **ODD_SERVERS[name])
    read_ids = ids_of(read(server))
    assert sorted(read_ids) == sorted(IDS)
    assert server.lists > 0


@pytest.mark.parametrize("name", ODD_SERVERS)
def test_every_checkpoint_leads_to_exactly_the_rest(name):
    server = Server(every_hour(IDS), **ODD_SERVERS[name])
    pages = read(server)
    for done in range(1, len(pages)):
        earlier = ids_of(pages[:done])
        rest = ids_of(read(server, start=pages[done - 1].checkpoint, earlier=earlier))
        assert sorted(earlier + rest) == sorted(IDS), done


def test_deals_outside_the_range_stay_out_when_the_list_takes_over():
    outside = [(number + 10**12, FIRST_MS - HOUR_MS) for number in IDS]
    server = Server(every_hour(IDS) + outside, knows_order=False)
    assert sorted(ids_of(read(server))) == sorted(IDS)


def test_an_empty_range_is_proved_by_a_deal_that_is_found():
    server = Server([(number, FIRST_MS - HOUR_MS) for number in IDS])
    assert ids_of(read(server)) == []
    assert (server.searches, server.lists) == (3, 1), "a count, a page, and one known deal"
    assert ids_of(read(Server([]))) == []


def test_a_search_that_fails_for_another_reason_fails_the_scan():
    server = Server(every_hour(IDS), refusal=HubSpotUnavailableError("POST search", "502", 3))
    with pytest.raises(HubSpotUnavailableError):
        read(server)


def test_a_millisecond_with_many_deals_is_read_by_search_alone():
    deals = [(number, FIRST_MS) for number in range(1, 20_002)]
    server = Server(deals)
    assert ids_of(read(server)) == [number for number, _ in deals]
    assert server.lists == 0


def test_deals_that_leave_the_range_meanwhile_are_not_taken_for_a_gap():
    class Leaving(Server):
        async def post(self, endpoint, body):
            page = await super().post(endpoint, body)
            # After the first page a deal that was not read yet is archived.
            if self.searches == 2:
                self.deals = [deal for deal in self.deals if deal[0] != max(IDS)]
            return page

    server = Leaving(every_hour(IDS))
    assert set(ids_of(read(server))) == set(IDS) - {max(IDS)}
    assert (server.searches, server.lists) == (5, 0), "counted once more, not read again"
