"""What became of deals, also while they come and go between the requests."""

import asyncio
from datetime import UTC, datetime

import pytest

from hubspot_deals.errors import HubSpotProtocolError
from hubspot_deals.source.batches import in_batches, merged_ids, read_batches
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.fates import End, find_fates

ENDPOINTS = Endpoints.of_version("v3")
AT = "2024-05-01T12:00:00.000Z"


class Account:
    """Batch reads of deals: `state` of an id is live, archived, or the id it was merged into."""

    def __init__(self, states, *, tells_merges=True):
        self.states, self.tells_merges = dict(states), tells_merges
        self.requests = []
        self.events = {}

    async def post(self, endpoint, body, params):
        assert endpoint is ENDPOINTS.batch_read
        assert len(body["inputs"]) <= 100
        archived = params["archived"] == "true"
        self.states.update(self.events.pop(len(self.requests), {}))
        asked = [item["id"] for item in body["inputs"]]
        self.requests.append((archived, len(asked)))
        found, missing = {}, []
        for one in asked:
            answering = self.follow(one)
            if self.states.get(answering) == ("archived" if archived else "live"):
                found[answering] = self.as_sent(answering)
            else:
                missing.append(one)
        error = {"category": "OBJECT_NOT_FOUND", "context": {"ids": missing}}
        return {"results": list(reversed(found.values())), "errors": [error] if missing else []}

    def follow(self, one):
        while self.states.get(one) not in {"live", "archived", None}:
            one = self.states[one]
        return one

    def as_sent(self, one):
        losers = [loser for loser, state in self.states.items() if state == one]
        merged = {"hs_merged_object_ids": ";".join(losers) if self.tells_merges else None}
        deal = {"id": one, "properties": merged}
        return deal | (
            {"archived": True, "archivedAt": AT} if self.states[one] == "archived" else {}
        )


def fates(account, *ids):
    found = asyncio.run(find_fates(account, ENDPOINTS, ids, ("dealname",)))
    assert [fate.deal_id for fate in found] == list(ids)
    return {fate.deal_id: (fate.end, fate.survivor) for fate in found}


STATES = {"1": "live", "2": "archived", "3": "1", "4": "3", "5": "2", "6": "1"}


@pytest.mark.parametrize("tells_merges", [True, False])
def test_every_end_is_told_with_its_survivor(tells_merges):
    account = Account(STATES, tells_merges=tells_merges)
    assert fates(account, "1", "2", "3", "4", "5", "6", "9") == {
        "1": (End.LIVE, None),
        "2": (End.ARCHIVED, None),
        "3": (End.MERGED, "1"),
        "4": (End.MERGED, "1"),
        "5": (End.MERGED, "2"),
        "6": (End.MERGED, "1"),
        "9": (End.DELETED, None),
    }
    # Of the merges that the survivor tells itself none is asked for again, but for the second hand.
    assert len(account.requests) == (4 if tells_merges else 7)


def test_deals_come_with_their_values_and_times():
    account = Account(STATES)
    live, archived = asyncio.run(find_fates(account, ENDPOINTS, ["1", "2"], ()))
    assert live.deal["id"] == "1"
    assert archived.deal["archived"]
    assert archived.archived_at == datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_a_deal_that_is_restored_between_the_requests_is_not_taken_for_deleted():
    account = Account({"1": "archived"})
    account.events = {1: {"1": "live"}}
    assert fates(account, "1") == {"1": (End.LIVE, None)}
    account = Account({"1": "live"})
    account.events = {0: {"1": "archived"}}
    assert fates(account, "1") == {"1": (End.ARCHIVED, None)}


def test_hundreds_are_asked_for_in_hundreds():
    ids = [str(number) for number in range(1, 251)]
    account = Account(dict.fromkeys(ids, "live"))
    assert {end for end, _ in fates(account, *ids).values()} == {End.LIVE}
    assert sorted(account.requests) == [(False, 50), (False, 100), (False, 100)]
    assert fates(Account({})) == {}


def test_present_values_are_read_by_id():
    account = Account({"1": "live", "2": "archived", "3": "1"})
    read = asyncio.run(read_batches(account, ENDPOINTS, ["1", "2", "3", "1"], ("amount",)))
    assert [deal["id"] for deal in read.own()] == ["1"]
    assert set(read.found) == {"1", "3"}
    assert read.gone == {"2"}


def test_merged_ids_are_read_from_whatever_is_there():
    assert merged_ids({"properties": {}}) == []
    assert merged_ids({"properties": {"hs_merged_object_ids": ""}}) == []
    assert merged_ids({"properties": {"hs_merged_object_ids": "5;6;"}}) == ["5", "6"]


def test_an_id_without_an_answer_is_an_error_and_not_a_deletion():
    class Silent:
        async def post(self, *_, **__):
            return {"results": []}

    with pytest.raises(HubSpotProtocolError, match="the deal 7, but twice"):
        fates(Silent(), "7")


def test_batches_keep_their_order_and_a_failure_ends_them():
    async def read(batch):
        await asyncio.sleep(0.01 if "0" in batch else 0)
        return batch

    items = [str(number) for number in range(10)]
    found = asyncio.run(in_batches(items, 3, read))
    assert [one for batch in found for one in batch] == items

    async def fail(batch):
        raise HubSpotProtocolError(batch[0])

    with pytest.raises(HubSpotProtocolError):
        asyncio.run(in_batches(items, 3, fail))
