"""Why HubSpot's count differs from what was read, in accounts that are odd on purpose."""

import asyncio
from datetime import date

import pytest
from pyroaring import BitMap64

from hubspot_deals.contract import DateRange
from hubspot_deals.errors import HubSpotRequestError
from hubspot_deals.source.deals import DealReader
from hubspot_deals.source.recount import Agreement, KnownDeals, Why, count_now, explain_count
from tests.unit.odd_account import ENDPOINTS, FIRST_MS, IDS, LONG_AGO, Account, created

SINCE = FIRST_MS * 2
LATELY = SINCE + 5
YEAR = DateRange(date(2024, 1, 1), date(2024, 12, 31))


class Live(Account):
    """Also answers batch reads, from a store that is ahead of its search's index."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.still_indexed = {}
        self.store = None
        self.reads = 0

    async def post(self, endpoint, body, params=None):  # noqa: ARG002 - as the client
        if endpoint is not ENDPOINTS.batch_read:
            return await super().post(endpoint, body)
        self.reads += 1
        assert len(body["inputs"]) <= 100
        store = self.deals if self.store is None else self.store
        wanted = [int(one["id"]) for one in body["inputs"]]
        return {"results": [self.sent(number) for number in wanted if number in store]}

    def sent(self, number):
        store = self.deals if self.store is None else self.store
        moments = {"createdate": str(created(number)), "hs_lastmodifieddate": str(store[number])}
        return {"id": str(number), "properties": moments}

    def _fits(self, number, found):
        if found["operator"] == "LT":
            return self.deals[number] < int(found["value"])
        return super()._fits(number, found)


def explain(account, stored, *, fresh=(), span=None):
    async def carry_out():
        reader = DealReader(account, ENDPOINTS, ())
        counted, refusal = await count_now(reader, span)
        assert refusal is None
        known = KnownDeals(BitMap64(stored), BitMap64(fresh), SINCE)
        return await explain_count(reader, span, counted, known, (0, 0, 0))

    return asyncio.run(carry_out())


def found(recount):
    return {why: (count, ids) for why, (count, ids) in recount.reasons.items()}


@pytest.mark.parametrize("missing", [[IDS[0]], [IDS[-1]], [IDS[1_500]], [IDS[3], IDS[2_000]]])
def test_deals_that_were_there_all_the_time_are_missing_and_named(missing):
    account = Live()
    recount = explain(account, set(IDS) - set(missing))
    assert recount.status is Agreement.MISSING
    assert sorted(recount.missing) == missing
    assert not recount.is_complete
    assert account.searches < 40


def test_a_deal_is_missing_behind_one_that_is_gone_and_one_that_came():
    account = Live()
    del account.deals[IDS[40]], account.deals[IDS[41]], account.deals[IDS[2_700]]
    account.deals[IDS[-1] + 5] = LATELY
    recount = explain(account, set(IDS) - {IDS[1_000]})
    assert recount.missing == [IDS[1_000]]
    assert found(recount)[Why.CHANGED] == (1, [IDS[-1] + 5])


def test_deals_that_came_since_the_scan_began_explain_a_difference():
    account = Live()
    came = [IDS[-1] + 5, IDS[-1] + 9]
    account.deals |= dict.fromkeys(came, LATELY)
    recount = explain(account, IDS)
    assert recount.status is Agreement.EXPLAINED
    assert found(recount) == {Why.CHANGED: (2, came)}
    assert recount.is_complete
    assert account.searches <= 2


def test_deals_that_the_index_does_not_know_yet_explain_a_difference():
    account = Live()
    newest = IDS[-1] + 5
    recount = explain(account, [*IDS, newest], fresh=[newest])
    assert recount.status is Agreement.EXPLAINED
    assert found(recount) == {Why.NOT_INDEXED: (1, [newest])}


def test_deals_that_are_gone_since_they_were_read_explain_a_difference():
    account = Live()
    gone = sorted([IDS[7], IDS[1_333], IDS[2_799]])
    for number in gone:
        del account.deals[number]
    recount = explain(account, IDS)
    assert recount.status is Agreement.EXPLAINED
    assert found(recount)[Why.GONE][0] == 3
    assert sorted(found(recount)[Why.GONE][1]) == gone


def test_deals_that_only_the_index_still_has_explain_a_difference():
    account = Live()
    account.store = dict.fromkeys(IDS[1:], LONG_AGO)
    recount = explain(account, IDS[1:])
    assert recount.status is Agreement.EXPLAINED
    assert found(recount) == {Why.OUTDATED: (1, [IDS[0]])}


def test_deals_that_the_index_never_shows_are_no_fault_of_the_scan():
    account = Live(unindexed=[IDS[99]])
    recount = explain(account, IDS)
    assert recount.status is Agreement.EXPLAINED
    assert found(recount) == {Why.UNFOUND: (1, [IDS[99]])}


def test_more_changes_than_can_be_looked_at_explain_a_difference_all_the_same():
    account = Live()
    account.deals |= dict.fromkeys(range(IDS[-1] + 1, IDS[-1] + 2_501), LATELY)
    recount = explain(account, IDS)
    assert recount.status is Agreement.EXPLAINED
    assert found(recount) == {Why.TOO_MANY: (2_500, [])}


def test_only_deals_of_the_range_are_compared():
    account = Live()
    inside = [number for number in IDS if created(number) >= FIRST_MS]
    recount = explain(account, inside[1:], span=YEAR)
    assert recount.missing == [inside[0]]
    assert explain(account, inside, span=YEAR).status is Agreement.EQUAL


def test_a_search_that_compares_ids_as_texts_cannot_tell_which_deals_are_missing():
    recount = explain(Live(compare_key=str, sort_key=str), IDS[:-5])
    assert recount.status is Agreement.DIFFERS
    assert recount.unexplained == 5
    assert not recount.is_complete


def test_thousands_of_missing_deals_cost_no_more_than_a_minute_of_searches():
    account = Live()
    recount = explain(account, IDS[:400])
    assert recount.status is Agreement.MISSING
    assert set(recount.missing) <= set(IDS[400:])
    assert len(recount.missing) + recount.unexplained == len(IDS) - 400
    assert account.searches <= 62


def test_a_refused_count_says_why():
    refusal = HubSpotRequestError("POST search", 403, "no search for you", "")
    counted, why = asyncio.run(count_now(DealReader(Live(refusal=refusal), ENDPOINTS, ()), None))
    assert counted is None
    assert "no search for you" in why
