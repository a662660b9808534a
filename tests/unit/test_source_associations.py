"""Associations are complete, however many a deal has, and cost few requests."""

import asyncio

import pytest

from hubspot_deals.errors import HubSpotProtocolError
from hubspot_deals.source.associations import read_associations
from hubspot_deals.source.endpoints import ASSOCIATED, Endpoints

ENDPOINTS = Endpoints.of_version("2026-03")


def pair(number, *types):
    kinds = [{"category": "HUBSPOT_DEFINED", "typeId": one, "label": None} for one in types]
    return {"toObjectId": number, "associationTypes": kinds}


class Account:
    """Each deal has as many contacts as its id says, in pages of ten."""

    def __init__(self):
        self.inputs = []

    async def post(self, endpoint, body):
        kind = next(name for name, one in ENDPOINTS.associations.items() if one is endpoint)
        self.inputs.append((kind, len(body["inputs"])))
        results, errors = [], []
        for item in body["inputs"]:
            begin, count = int(item.get("after", 0)), int(item["id"])
            if kind != "contacts" or not count:
                errors.append({"category": "OBJECT_NOT_FOUND", "context": {}})
                continue
            record = {
                "from": {"id": item["id"]},
                "to": [pair(number, 3) for number in range(begin, min(count, begin + 10))],
            }
            if begin + 10 < count:
                record["paging"] = {"next": {"after": str(begin + 10)}}
            results.append(record)
        return {"results": results, "errors": errors}


def read(client, ids, kinds=ASSOCIATED):
    return asyncio.run(read_associations(client, ENDPOINTS, ids, kinds))


def test_all_of_every_deal_are_read_with_one_request_a_page_for_all_deals_together():
    account = Account()
    rows = read(account, ["0", "3", "25", "10", "41"])
    assert len(rows) == 3 + 25 + 10 + 41
    for deal_id in ("3", "25", "10", "41"):
        mine = {row["object_id"] for row in rows if row["deal_id"] == deal_id}
        assert mine == {str(number) for number in range(int(deal_id))}
    assert {row["object_type"] for row in rows} == {"contacts"}
    of_contacts = [size for kind, size in account.inputs if kind == "contacts"]
    assert of_contacts == [5, 2, 2, 1, 1]
    assert len(account.inputs) == len(of_contacts) + 2


def test_a_thousand_deals_are_asked_for_at_once():
    account = Account()
    read(account, [str(number) for number in range(100_000, 102_500)], kinds=("companies",))
    assert sorted(account.inputs) == [
        ("companies", 500),
        ("companies", 1_000),
        ("companies", 1_000),
    ]
    assert read(account, []) == []


class Script:
    def __init__(self, *answers):
        self.answers = iter(answers)

    async def post(self, *_):
        return next(self.answers)


def test_a_pair_that_comes_once_for_each_kind_is_one_row_with_all_of_them():
    record = {"from": {"id": 7}, "to": [pair(5, 3), pair(5, 4, 3)]}
    [row] = read(Script({"results": [record]}), ["7"], kinds=("contacts",))
    assert (row["deal_id"], row["object_id"]) == ("7", "5")
    assert [kind["typeId"] for kind in row["types"]] == [3, 4]


def test_a_cursor_that_comes_back_is_an_error():
    page = {"results": [{"from": {"id": "7"}, "to": [], "paging": {"next": {"after": "x"}}}]}
    with pytest.raises(HubSpotProtocolError, match="twice"):
        read(Script(page, page, page), ["7"], kinds=("contacts",))


@pytest.mark.parametrize(
    "record", [{"from": "7"}, {"from": {}}, {"from": {"id": "7"}, "to": [{"id": 5}]}, {"to": []}]
)
def test_an_answer_of_another_shape_is_a_protocol_error(record):
    with pytest.raises(HubSpotProtocolError, match="HubSpot"):
        read(Script({"results": [record]}), ["7"], kinds=("contacts",))
