"""Owners as users: active and archived ones, and every id that a deal names."""

import asyncio

import pytest

from hubspot_deals.errors import HubSpotProtocolError
from hubspot_deals.source.arrow import rows_to_arrow
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.owners import fetch_owners, owner_rows
from hubspot_deals.tables import USERS

ENDPOINTS = Endpoints.of_version("v3")


class Owners:
    """Pages by `archived` and `after`."""

    def __init__(self, pages):
        self.pages = pages

    async def get(self, _, params):
        ids, after = self.pages[params["archived"], params.get("after")]
        results = [{"id": number, "archived": params["archived"] == "true"} for number in ids]
        return {"results": results} | ({"paging": {"next": {"after": after}}} if after else {})


def test_active_and_archived_owners_are_read_to_the_last_page():
    pages = {
        ("false", None): (["1", "2"], "a"),
        ("false", "a"): ([], "b"),
        ("false", "b"): (["3"], None),
        ("true", None): (["9", "1"], None),
    }
    owners = asyncio.run(fetch_owners(Owners(pages), ENDPOINTS))
    assert sorted(owner["id"] for owner in owners) == ["1", "2", "3", "9"]


def test_a_cursor_that_comes_back_is_an_error():
    pages = {("false", None): (["1"], "a"), ("false", "a"): (["2"], "a")}
    with pytest.raises(HubSpotProtocolError, match="twice"):
        asyncio.run(fetch_owners(Owners(pages), ENDPOINTS))


def test_an_answer_without_owners_is_not_an_account_without_owners():
    class Mute:
        async def get(self, *_):
            return {}

    with pytest.raises(HubSpotProtocolError):
        asyncio.run(fetch_owners(Mute(), ENDPOINTS))


def test_every_owner_id_on_a_deal_has_one_row_in_order_of_ids():
    owners = [
        {"id": "20", "email": "a@example.com", "userId": 7},
        {"id": 3, "userId": None, "userIdIncludingInactive": 8, "archived": True},
    ]
    rows = owner_rows(owners, {"100", "20"})
    assert [row["id"] for row in rows] == ["3", "20", "100"]
    assert [row.get("user_id") for row in rows] == [8, 7, None]
    assert rows_to_arrow(USERS, rows)["user_id"].to_pylist() == ["8", "7", None]
