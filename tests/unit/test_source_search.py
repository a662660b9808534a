"""Searching: complete whatever order the server sorts in, or an error, never a quiet gap."""

import asyncio
from datetime import UTC, date, datetime

import pytest

from hubspot_deals.contract import DateRange
from hubspot_deals.errors import HubSpotProtocolError
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.search import DealSearch

YEAR = DateRange(date(2024, 1, 1), date(2024, 12, 31))
FIRST_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
HOUR_MS = 3_600_000
# Ids of nine and of eleven digits: as texts they sort another way than as numbers.
IDS = [*range(712_004_419, 712_004_419 + 300), *range(10_500_000_001, 10_500_000_001 + 300)]


def compare_as_text(number):
    return str(number)


class Server:
    """A search endpoint of its own making, which sorts and compares ids by `id_key`."""

    def __init__(self, deals, *, id_key=int, compare_key=None, knows_order=True, most=10_000):
        self.deals = deals
        self.id_key = id_key
        self.compare_key = compare_key or id_key
        self.knows_order = knows_order
        self.most = most
        self.requests = 0

    async def post(self, _, body):
        self.requests += 1
        assert body.keys() == {"filterGroups", "sorts", "properties", "limit", "after"}
        after, limit = int(body["after"]), body["limit"]
        assert after + limit <= self.most, "asked beyond the end of a search"
        [group] = body["filterGroups"]
        found = [deal for deal in self.deals if self._matches(deal, group["filters"])]
        if self.knows_order and body["sorts"][0]["propertyName"] == "hs_object_id":
            found.sort(key=lambda deal: self.id_key(deal[0]))
        else:
            found.sort(key=lambda deal: deal[1])
        page = {
            "total": len(found),
            "results": [
                {"id": str(number), "properties": {"createdate": str(ms)}}
                for number, ms in found[after : after + limit]
            ],
        }
        if after + limit < len(found):
            page["paging"] = {"next": {"after": str(after + limit)}}
        return page

    def _matches(self, deal, filters):
        number, ms = deal
        return all(
            self.compare_key(number) > self.compare_key(int(condition["value"]))
            if condition["operator"] == "GT"
            else int(condition["value"]) <= ms <= int(condition["highValue"])
            for condition in filters
        )


def every_hour(ids):
    """Deals in an order of creation that has nothing to do with their ids."""
    return [
        (number, FIRST_MS + place * HOUR_MS)
        for place, number in enumerate(sorted(ids, key=hash_of))
    ]


def hash_of(number):
    return number * 2_654_435_761 % 2**32


def walk(server, span=YEAR, cursor=None):
    search = DealSearch(server, Endpoints.of_version("v3"), ("createdate",))

    async def collect():
        return [page async for page in search.walk(span, cursor)]

    return asyncio.run(collect())


def ids_of(pages):
    return {int(deal["id"]) for deals, _ in pages for deal in deals}


def test_ids_in_order_are_read_once_each_in_as_few_requests_as_pages():
    server = Server(every_hour(IDS))
    pages = walk(server)
    assert [int(deal["id"]) for deals, _ in pages for deal in deals] == sorted(IDS)
    assert server.requests == 3
    assert pages[-1][1] is None


ODD_SERVERS = {
    "sorts and compares ids as texts": {"id_key": compare_as_text},
    "sorts ids as texts and compares them as numbers": {
        "id_key": compare_as_text,
        "compare_key": int,
    },
    "sorts ids as numbers and compares them as texts": {"compare_key": compare_as_text},
    "sorts by creation whatever it is asked": {"knows_order": False},
    "sorts ids descending": {"id_key": lambda number: -number, "compare_key": int},
}


@pytest.mark.parametrize("name", ODD_SERVERS)
def test_a_server_with_another_order_of_ids_is_read_completely_all_the_same(name):
    server = Server(every_hour(IDS), **ODD_SERVERS[name])
    assert ids_of(walk(server)) == set(IDS)


@pytest.mark.parametrize("name", ODD_SERVERS)
def test_every_cursor_leads_to_the_rest(name):
    server = Server(every_hour(IDS), **ODD_SERVERS[name])
    pages = walk(server)
    for done in range(1, len(pages)):
        before = ids_of(pages[:done])
        after = ids_of(walk(server, cursor=pages[done - 1][1])) if pages[done - 1][1] else set()
        assert before | after == set(IDS), done


def test_windows_are_cut_until_offsets_reach_all_of_them():
    ids = range(1_000_000, 1_000_000 + 8_000)
    deals = every_hour(ids) + [(number + 50_000, ms) for number, ms in every_hour(ids)]
    server = Server(deals, knows_order=False)
    assert ids_of(walk(server)) == {number for number, _ in deals}


def test_a_millisecond_with_too_many_deals_in_no_order_is_an_error():
    deals = [(number, FIRST_MS) for number in reversed(range(1, 10_002))]
    with pytest.raises(HubSpotProtocolError, match="could miss deals"):
        walk(Server(deals, knows_order=False))


def test_a_millisecond_with_many_deals_is_fine_when_ids_are_in_order():
    deals = [(number, FIRST_MS) for number in range(1, 20_002)]
    assert ids_of(walk(Server(deals))) == {number for number, _ in deals}


def test_deals_that_leave_the_range_meanwhile_are_not_taken_for_a_gap():
    deals = every_hour(IDS)

    class Leaving(Server):
        async def post(self, _, body):
            page = await super().post(_, body)
            # After the first page a deal that was not read yet is archived.
            if self.requests == 1:
                self.deals = [deal for deal in self.deals if deal[0] != max(IDS)]
            return page

    server = Leaving(deals)
    assert ids_of(walk(server)) == set(IDS) - {max(IDS)}
    assert server.requests == 4, "one count, no second reading"


def test_an_open_range_is_cut_into_windows_too():
    server = Server(every_hour(IDS), knows_order=False)
    assert ids_of(walk(server, DateRange())) == set(IDS)
