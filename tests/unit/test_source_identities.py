"""What vanished or appeared is found by counting: all of it, and with few requests."""

import asyncio
import random
from bisect import bisect_right

import pytest
from pyroaring import BitMap64

from hubspot_deals.errors import HubSpotRequestError
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.identities import find_difference, read_archived
from hubspot_deals.source.search import UnsoundSearchError

REFUSED = HubSpotRequestError("GET deals", 400, "no")
ENDPOINTS = Endpoints.of_version("v3")
IDS = [number * 7 + number % 5 for number in range(1, 20_001)]


class Index:
    """A search that counts `counted` ids and shows those of them that are not `hidden`."""

    def __init__(self, counted, hidden=()):
        self.counted, self.hidden = sorted(counted), set(hidden)
        self.ids = set(counted)
        self.requests = 0

    async def post(self, endpoint, body):
        assert endpoint is ENDPOINTS.search
        self.requests += 1
        low, high = 0, len(self.counted)
        wanted = [one for group in body["filterGroups"] for one in group["filters"]]
        if wanted and wanted[0]["operator"] == "IN":
            assert len(wanted[0]["values"]) <= 100
            return {"results": [], "total": len(self.ids & set(map(int, wanted[0]["values"])))}
        for group in body["filterGroups"]:
            for one in group["filters"]:
                place = bisect_right(self.counted, int(one["value"]))
                low, high = (place, high) if one["operator"] == "GT" else (low, place)
        shown = self.counted[low : min(high, low + body["limit"])]
        page = {
            "total": max(0, high - low),
            "results": [
                {"id": str(number), "properties": {}}
                for number in shown
                if number not in self.hidden
            ],
        }
        more = {"paging": {"next": {"after": str(body["limit"])}}}
        return page | (more if high - low > body["limit"] else {})


def compare(index, known, **options):
    options = {"most_requests": None} | options
    return asyncio.run(find_difference(index, ENDPOINTS, BitMap64(known), **options))


def test_one_request_is_enough_where_nothing_differs():
    index = Index(IDS)
    found = compare(index, IDS, suspects=[(5, 900)])
    assert index.requests == 1
    assert not found.missing
    assert not found.extra
    assert (found.unlocated, found.suspects) == (0, [])


@pytest.mark.parametrize("seed", range(20))
def test_everything_that_vanished_is_found(seed):
    rng = random.Random(seed)
    gone = set(rng.sample(IDS, rng.choice([1, 2, 7, 40, 3_000])))
    index = Index(set(IDS) - gone)
    found = compare(index, IDS)
    assert set(found.missing) == gone
    assert (len(found.extra), found.unlocated) == (0, 0)
    assert index.requests <= 10 * len(gone) + 1


@pytest.mark.parametrize("seed", range(20))
def test_what_appeared_and_what_vanished_in_other_places_is_both_found(seed):
    rng = random.Random(seed)
    gone, new = set(rng.sample(IDS[:9_000], 5)), set(rng.sample(range(100_000, 140_000), 2))
    new -= set(IDS)
    index = Index((set(IDS) - gone) | new)
    found = compare(index, IDS)
    assert (set(found.missing), set(found.extra)) == (gone, new)


def test_an_empty_side_is_no_trouble():
    assert not compare(Index([]), []).missing
    assert list(compare(Index([]), IDS[:900]).missing) == IDS[:900]
    assert list(compare(Index(IDS[:900]), []).extra) == IDS[:900]


@pytest.mark.parametrize("most", [3, 4, 5, 12])
@pytest.mark.parametrize("seed", range(5))
def test_no_run_asks_for_more_than_it_may_and_the_next_ones_find_the_rest(most, seed):
    gone = set(random.Random(seed).sample(IDS, 4))
    known, suspects, runs = set(IDS), [], 0
    while True:
        index = Index(set(IDS) - gone)
        found = compare(index, known, suspects=suspects, most_requests=most)
        assert index.requests <= most
        known -= set(found.missing)
        suspects = found.suspects
        runs += 1
        assert runs < 200
        if not found.unlocated:
            break
        assert found.unlocated == len(known) - len(IDS) + 4
    assert known == set(IDS) - gone
    assert runs == 1 or most < 12 or runs <= 4


def test_what_was_removed_of_late_may_still_be_counted():
    """A merge shows on the survivor before the index has forgotten the other deal."""
    removed = {IDS[5], IDS[9_000]}
    for counted, requests in ((IDS, 2), (IDS[:5] + IDS[6:], 4), (set(IDS) - removed, 2)):
        index = Index(counted, hidden=removed)
        found = compare(index, set(IDS) - removed, removed=BitMap64(removed))
        assert (index.requests, found.unlocated) == (requests, 0)
        assert not found.missing | found.extra


@pytest.mark.parametrize("seed", range(10))
def test_what_the_index_still_counts_hides_nothing_else(seed):
    rng = random.Random(seed)
    removed = set(rng.sample(IDS, 150))
    counted = set(rng.sample(sorted(removed), rng.choice([0, 3, 150])))
    known = set(IDS) - removed
    gone = set(rng.sample(sorted(known), 3))
    index = Index((known - gone) | counted, hidden=removed)
    found = compare(index, known, removed=BitMap64(removed))
    assert (set(found.missing), len(found.extra), found.unlocated) == (gone, 0, 0)


@pytest.mark.parametrize("hole", [400, 599, 601, 800])
def test_a_deal_that_is_counted_but_no_longer_shown_is_no_extra_one(hole):
    """One archived just now: the index counts it, and leaves a hole in its page."""
    gone = {IDS[600]}
    index = Index(set(IDS) - gone, hidden={IDS[hole]})
    found = compare(index, IDS)
    assert gone <= set(found.missing) <= gone | {IDS[hole]}
    assert (len(found.extra), found.unlocated) == (0, 0)


@pytest.mark.parametrize("answer", [{"results": []}, {"results": [], "total": None}])
def test_a_search_that_does_not_count_is_not_believed(answer):
    class Mute:
        async def post(self, *_):
            return answer

    with pytest.raises(UnsoundSearchError):
        compare(Mute(), IDS)


def test_a_count_that_ends_with_what_a_search_shows_is_not_believed():
    with pytest.raises(UnsoundSearchError):
        compare(Index(IDS[:10_000]), IDS)
    assert len(compare(Index(IDS[:10_000]), IDS[:10_000]).missing) == 0


class Bin:
    """An archived list with pages of two, whose cursors of yesterday are refused."""

    def __init__(self, amount):
        self.ids, self.asked = list(range(1, amount + 1)), []

    async def get(self, endpoint, params):
        assert (endpoint, params["archived"]) == (ENDPOINTS.deals, "true")
        after = params.get("after")
        self.asked.append(after)
        if after == "old":
            raise REFUSED
        begin = int(after or 0)
        page = {"results": [{"id": str(one), "properties": {}} for one in self.ids[begin:][:2]]}
        more = {"paging": {"next": {"after": str(begin + 2)}}}
        return page | (more if begin + 2 < len(self.ids) else {})


def archived(box, **options):
    return asyncio.run(read_archived(box, ENDPOINTS, ("dealname",), **options))


def test_the_archived_list_is_read_in_rounds_of_some_pages_a_run():
    box, after, seen = Bin(9), None, []
    for _ in range(3):
        part = archived(box, after=after, most_pages=2)
        seen += [deal["id"] for deal in part.deals]
        after = part.following
    assert seen == [str(one) for one in box.ids]
    assert after is None
    assert box.asked == [None, "2", "4", "6", "8"]
    assert len(archived(box).deals) == 9


def test_a_cursor_that_is_no_longer_taken_begins_the_round_anew():
    box = Bin(3)
    assert [deal["id"] for deal in archived(box, after="old", most_pages=1).deals] == ["1", "2"]
    box.asked.clear()

    class Refusing(Bin):
        async def get(self, *_):
            raise REFUSED

    with pytest.raises(HubSpotRequestError):
        archived(Refusing(3))
