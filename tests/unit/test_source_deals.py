"""Reading deals: every one once, from any checkpoint on, and no loop or gap without an error."""

import asyncio
from datetime import date

import pytest

from hubspot_deals.contract import DateRange
from hubspot_deals.errors import HubSpotProtocolError, HubSpotRequestError
from hubspot_deals.source.deals import DealPage, DealReader
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.plan import Checkpoint, ListRange, SearchRange

ENDPOINTS = Endpoints.of_version("v3")
ANY_DAY = DateRange()
REFUSAL = HubSpotRequestError("POST search", 400, "no")


def deal(number, **properties):
    return {"id": str(number), "properties": {"createdate": "2024-01-31", **properties}}


class Account:
    """HubSpot as the reader sees it, with small pages and opaque cursors; `batches` are counted."""

    def __init__(self, live=(), archived=(), *, page=3, search_page=4):
        self.lists = {"false": list(live), "true": list(archived)}
        self.page, self.search_page = page, search_page
        self.batches = []

    async def get(self, endpoint, params):
        assert endpoint is ENDPOINTS.deals
        deals = self.lists[params["archived"]]
        begin = int(params.get("after", "c0")[1:])
        return self._page(deals, begin, self.page, f"c{begin + self.page}")

    async def post(self, endpoint, body, params=None):
        if endpoint is ENDPOINTS.batch_read:
            self.batches.append(body)
            wanted = {item["id"] for item in body["inputs"]}
            return {
                "results": [
                    item
                    for item in reversed(self.lists[params["archived"]])
                    if item["id"] in wanted
                ]
            }
        # A count also tells the newest deal.
        direction = "DESCENDING" if body["limit"] == 1 else "ASCENDING"
        assert body["sorts"] == [{"propertyName": "hs_object_id", "direction": direction}]
        groups = body["filterGroups"]
        above = int(groups[0]["filters"][0]["value"]) if groups else 0
        found = sorted(
            (item for item in self.lists["false"] if int(item["id"]) > above),
            key=lambda item: int(item["id"]),
        )
        begin = int(body.get("after", 0))
        size = min(self.search_page, body["limit"])
        return self._page(found, begin, size, str(begin + size)) | {"total": len(found)}

    def _page(self, deals, begin, size, cursor):
        page = {"results": deals[begin : begin + size]}
        return page | ({"paging": {"next": {"after": cursor}}} if begin + size < len(deals) else {})


class Script:
    """Answers with these pages, one after the other."""

    def __init__(self, *pages):
        self.pages = iter(pages)

    async def get(self, *_):
        return next(self.pages)

    async def post(self, _, body, **__):
        # A count is no page.
        return {"results": [], "total": 0} if body.get("limit") == 1 else next(self.pages)


def page(*deals, after=None):
    return {"results": list(deals)} | ({"paging": {"next": {"after": after}}} if after else {})


def read(client, *plan, start=None, earlier=(), properties=("dealname",)):
    """The pages of a plan and the reader that read them."""
    reader = DealReader(client, ENDPOINTS, properties)
    for item in earlier:
        reader.remember(int(item["id"]), item["properties"].get("hubspot_owner_id"))

    start, pages = start or Checkpoint(), []

    async def collect():
        for number, deal_range in list(enumerate(plan))[start.range_no :]:
            cursor = start.cursor if number == start.range_no else None
            async for deals, after in reader.walk(deal_range, cursor):
                at = Checkpoint(number + 1) if after is None else Checkpoint(number, after)
                pages.append(DealPage(reader.sift(deals, deal_range), at))

    asyncio.run(collect())
    return pages, reader


def ids(pages):
    return [item["id"] for found in pages for item in found.deals]


LIVE = [deal(number, hubspot_owner_id=str(number % 3)) for number in range(5, 30)]
# As text, like HubSpot's archived list, and with a deal that was archived while it was read.
ARCHIVED = [deal(number) for number in (100, 31, 9, 40, 1)]
PLANS = {
    "live": [ListRange()],
    "live and archived": [ListRange(), ListRange(archived=True)],
    "search": [SearchRange(ANY_DAY)],
    "search and archived": [SearchRange(ANY_DAY), ListRange(archived=True, filter=ANY_DAY)],
}


@pytest.mark.parametrize("size", [1, 2, 5, 7, 25, 26])
@pytest.mark.parametrize("name", PLANS)
def test_every_deal_is_read_once_whatever_the_size_of_a_page(name, size):
    account = Account(LIVE, ARCHIVED, page=size, search_page=size)
    pages, reader = read(account, *PLANS[name])
    expected = {item["id"] for item in LIVE}
    if "archived" in name:
        expected |= {item["id"] for item in ARCHIVED}
    assert len(ids(pages)) == len(set(ids(pages)))
    assert set(ids(pages)) == expected
    assert reader.owner_ids == {"0", "1", "2"}
    assert pages[-1].checkpoint == Checkpoint(len(PLANS[name]))


@pytest.mark.parametrize("name", PLANS)
def test_resuming_from_any_checkpoint_reads_exactly_the_rest(name):
    account = Account(LIVE, ARCHIVED)
    whole, _ = read(account, *PLANS[name])
    assert len(whole) > 5
    for done in range(len(whole) + 1):
        start = Checkpoint.from_json(whole[done - 1].checkpoint.to_json() if done else None)
        earlier = [item for found in whole[:done] for item in found.deals]
        rest, reader = read(account, *PLANS[name], start=start, earlier=earlier)
        assert ids(rest) == ids(whole[done:]), done
        assert reader.owner_ids == {"0", "1", "2"} or done == 0


def test_no_deals_are_one_empty_page():
    pages, _ = read(Account(), ListRange(), SearchRange(ANY_DAY))
    assert [(found.deals, found.checkpoint.range_no) for found in pages] == [([], 1), ([], 2)]


def test_a_deal_that_moves_to_another_page_is_not_read_twice():
    pages, _ = read(
        Script(page(deal(1), deal(2), after="a"), page(deal(2), deal(3), deal(3))), ListRange()
    )
    assert ids(pages) == ["1", "2", "3"]


def test_short_and_empty_pages_do_not_end_a_list():
    script = Script(page(after="a"), page(deal(1), after="b"), page(after="c"), page(deal(2)))
    assert ids(read(script, ListRange())[0]) == ["1", "2"]


def test_an_empty_page_that_comes_back_to_itself_is_asked_for_once_more():
    script = Script(page(deal(1), after="a"), page(after="a"), page(deal(2), after="b"), page())
    assert ids(read(script, ListRange())[0]) == ["1", "2"]


def test_an_empty_search_page_is_asked_for_again_before_it_is_passed_over():
    script = Script(page(after="4"), page(deal(1), after="4"), page(deal(2)))
    assert ids(read(script, SearchRange(ANY_DAY))[0]) == ["1", "2"]
    script = Script(page(after="4"), page(after="4"), page(deal(3), after="8"), page())
    assert ids(read(script, SearchRange(ANY_DAY))[0]) == ["3"]


LOOPS = {
    "list, same cursor": ([page(deal(1), after="a")] * 2, ListRange()),
    "list, two cursors": (
        [page(deal(1), after="a"), page(deal(2), after="b"), page(deal(3), after="a")],
        ListRange(),
    ),
    "list, empty pages": ([page(after="a")] * 3, ListRange()),
    "list, two cursors, empty pages": (
        [page(after="a"), page(after="b"), page(after="a")],
        ListRange(),
    ),
    "search, empty pages": ([page(after="4")] * 4, SearchRange(ANY_DAY)),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_cursor_that_comes_back_is_an_error(name):
    pages, deal_range = LOOPS[name]
    with pytest.raises(HubSpotProtocolError, match="twice"):
        read(Script(*pages), deal_range)


STRANGE = {
    "no results": {},
    "an error with 200": {"status": "error", "message": "internal"},
    "results null": {"results": None},
    "results text": {"results": "x"},
    "deal text": {"results": ["x"]},
    "deal null": {"results": [None]},
    "no id": {"results": [{"properties": {}}]},
    "id null": {"results": [{"id": None, "properties": {}}]},
    "id text": page({"id": "abc", "properties": {}}),
    "id empty": page({"id": "", "properties": {}}),
    "id negative": page({"id": "-1", "properties": {}}),
    "id underscored": page({"id": "1_0", "properties": {}}),
    "id too long": page({"id": "9" * 30, "properties": {}}),
    "id a list": page({"id": [1], "properties": {}}),
    "no properties": page({"id": "1"}),
    "properties null": page({"id": "1", "properties": None}),
    "paging text": {"results": [], "paging": "x"},
    "next a list": {"results": [], "paging": {"next": ["x"]}},
}


@pytest.mark.parametrize("deal_range", [ListRange(), SearchRange(ANY_DAY)], ids=["list", "search"])
@pytest.mark.parametrize("name", STRANGE)
def test_an_answer_of_another_shape_is_a_protocol_error(name, deal_range):
    with pytest.raises(HubSpotProtocolError, match="HubSpot"):
        read(Script(STRANGE[name]), deal_range)


def test_ids_may_be_numbers_and_cursors_too():
    script = Script(page({"id": 7, "properties": {}}, after=8), page({"id": "8", "properties": {}}))
    assert ids(read(script, ListRange())[0]) == [7, "8"]


@pytest.mark.parametrize("archived", [False, True])
def test_a_deal_outside_the_range_is_left_out_by_its_own_value(archived):
    span = DateRange(date(2024, 1, 31), date(2024, 1, 31))
    before = deal(2, createdate="2024-01-30T23:59:59.999Z")
    deals = [deal(1), before, deal(3, createdate=None)]
    account = Account(deals, deals)
    deal_range = ListRange(archived=True, filter=span) if archived else SearchRange(span)
    assert ids(read(account, deal_range)[0]) == ["1"]


@pytest.mark.parametrize("archived", [False, True])
def test_a_deal_without_a_flag_is_what_was_asked_for_and_a_wrong_one_is_left_out(archived):
    deals = [deal(1), deal(2) | {"archived": not archived}, deal(3) | {"archived": archived}]
    pages, _ = read(Script(page(*deals)), ListRange(archived=archived))
    assert [(item["id"], item["archived"]) for item in pages[0].deals] == [
        ("1", archived),
        ("3", archived),
    ]


@pytest.mark.parametrize("archived", [False, True])
def test_properties_that_no_address_can_hold_are_read_by_post(archived):
    names = [f"custom_property_{number:05}" for number in range(1_000)]
    account = Account(LIVE, ARCHIVED)
    pages, _ = read(account, ListRange(archived=archived), properties=names)
    assert ids(pages) == [item["id"] for item in (ARCHIVED if archived else LIVE)]
    assert all(batch["properties"] == names for batch in account.batches)
    assert len(account.batches) == len(pages)


WIDE = ["x" * 10_001]


def not_found(*numbers, category="OBJECT_NOT_FOUND"):
    return {"errors": [{"category": category, "context": {"ids": list(numbers)}}]}


def test_a_deal_is_left_out_when_hubspot_says_that_it_is_gone():
    script = Script(page(deal(1), deal(2), deal(3)), page(deal(3), deal(1)) | not_found("2"))
    assert ids(read(script, ListRange(), properties=WIDE)[0]) == ["1", "3"]
    assert ids(read(Script(page()), ListRange(), properties=WIDE)[0]) == []


@pytest.mark.parametrize("errors", [{}, not_found("2", category="OTHER"), {"errors": ["x"]}])
def test_a_deal_that_is_missing_without_a_reason_is_asked_for_again(errors):
    listed, short = page(deal(1), deal(2)), page(deal(1)) | errors
    again = Script(listed, short, page(deal(2)))
    assert ids(read(again, ListRange(), properties=WIDE)[0]) == ["1", "2"]
    gone = Script(listed, short, page() | not_found("2"))
    assert ids(read(gone, ListRange(), properties=WIDE)[0]) == ["1"]
    with pytest.raises(HubSpotProtocolError, match="listed the deal 2, but twice"):
        read(Script(listed, short, page() | errors), ListRange(), properties=WIDE)


@pytest.mark.parametrize("first", [page(deal(1)), page(deal(1), deal(9))], ids=["beside", "alone"])
def test_the_survivor_of_a_merge_stands_for_the_deal_that_was_merged_away(first):
    """HubSpot answers a merged-away id with the winner, also where the winner was asked for."""
    winner = first["results"][-1]
    script = Script(
        page(deal(1), deal(2), after="a"), first, page(winner), page(winner), page(winner)
    )
    found = ids(read(script, ListRange(), properties=WIDE)[0])
    assert found == list(dict.fromkeys(["1", winner["id"]]))


def test_the_count_is_hubspots_or_unknown():
    class Refusing:
        async def post(self, *_):
            raise REFUSAL

    class Mute:
        async def post(self, *_):
            return {"results": [], "total": None}

    def count(client):
        return asyncio.run(DealReader(client, ENDPOINTS, ()).count(ANY_DAY))

    assert count(Account(LIVE)) == len(LIVE)
    assert count(Refusing()) is None
    assert count(Mute()) is None
