"""Shapes and habits of list, get, batch, archived deals, merges, history and associations."""

import base64
from typing import Any
from urllib.parse import unquote

import pytest

from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.direct import DEALS, DirectSandbox

CONTACTS = "/crm/v4/associations/deals/contacts/batch/read"


def _build(**options: Any) -> DirectSandbox:
    return DirectSandbox(SandboxConfig(latency_ms=(0, 0), limits=False, **options))


@pytest.fixture(scope="module")
def sandbox() -> DirectSandbox:
    return _build(deals=1_200, seed=21, portal_id=4711)


@pytest.fixture(scope="module")
def truth(sandbox: DirectSandbox) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sandbox.control("GET", "deals")
    return found


def _chain(sandbox: DirectSandbox, target: str) -> list[dict[str, Any]]:
    """Follow `paging.next.link`, as JSON-link paginators do."""
    found: list[dict[str, Any]] = []
    while target:
        page = sandbox.get(target).json
        found += page["results"]
        link = page.get("paging", {}).get("next", {}).get("link", "")
        assert not link or link.startswith("http://127.0.0.1:8090/")
        target = link.removeprefix("http://127.0.0.1:8090")
    return found


def test_a_deal_has_exactly_these_keys(sandbox: DirectSandbox) -> None:
    [deal] = sandbox.get(f"{DEALS}?limit=1").json["results"]
    assert list(deal) == ["id", "properties", "createdAt", "updatedAt", "archived", "url"]
    values = deal["properties"]
    assert list(values) == [
        "amount",
        "closedate",
        "createdate",
        "dealname",
        "dealstage",
        "hs_lastmodifieddate",
        "hs_object_id",
        "pipeline",
    ]
    assert deal["id"] == values["hs_object_id"]
    assert deal["createdAt"] == values["createdate"]
    assert deal["updatedAt"] == values["hs_lastmodifieddate"]
    assert deal["archived"] is False
    assert deal["url"] == f"https://app.hubspot.com/contacts/4711/record/0-3/{deal['id']}"


def test_values_are_text_or_null(truth: list[dict[str, Any]]) -> None:
    values = [value for deal in truth for value in deal["properties"].values()]
    assert {type(value) for value in values} == {str, type(None)}


def test_unknown_properties_are_silently_absent(sandbox: DirectSandbox) -> None:
    [deal] = sandbox.get(f"{DEALS}?limit=1&properties=dealname,no_such_thing").json["results"]
    assert list(deal["properties"]) == [
        "createdate",
        "dealname",
        "hs_lastmodifieddate",
        "hs_object_id",
    ]


@pytest.mark.parametrize(
    "path",
    [
        DEALS,
        "/crm/v3/objects/0-3",
        "/crm/v3/objects/DEAL/",
        "/crm/objects/2026-03/0-3",
        "/crm/objects/2026-09/deal",
    ],
)
def test_the_chain_of_links_gives_every_live_deal_by_ascending_id(
    sandbox: DirectSandbox, truth: list[dict[str, Any]], path: str
) -> None:
    found = _chain(sandbox, f"{path}?limit=100&properties=dealname%2Camount")
    live = [deal for deal in truth if not deal["archived"]]
    assert [deal["id"] for deal in found] == [deal["id"] for deal in live]
    for deal, wanted in zip(found, live, strict=True):
        assert deal["properties"].items() <= wanted["properties"].items()


def test_the_cursor_is_an_inclusive_lower_bound_on_the_id(
    sandbox: DirectSandbox, truth: list[dict[str, Any]]
) -> None:
    live = [deal["id"] for deal in truth if not deal["archived"]]
    exact = sandbox.get(f"{DEALS}?limit=2&after={live[600]}").json
    between = sandbox.get(f"{DEALS}?limit=2&after={int(live[599]) + 1}").json
    assert [deal["id"] for deal in exact["results"]] == live[600:602]
    assert between["results"] == exact["results"]
    assert exact["paging"]["next"]["after"] == str(int(live[601]) + 1)
    assert sandbox.get(f"{DEALS}?after={int(live[-1]) + 1}").json == {"results": []}


def test_the_last_page_has_no_paging(sandbox: DirectSandbox, truth: list[dict[str, Any]]) -> None:
    live = [deal["id"] for deal in truth if not deal["archived"]]
    assert "paging" not in sandbox.get(f"{DEALS}?limit=2&after={live[-2]}").json
    assert "paging" in sandbox.get(f"{DEALS}?limit=1&after={live[-2]}").json


def test_opaque_cursors_are_no_ids_and_still_lead_through() -> None:
    sandbox = _build(deals=250, opaque_cursors=True)
    after = sandbox.get(f"{DEALS}?limit=100").json["paging"]["next"]["after"]
    assert not after.isdecimal()
    assert len(_chain(sandbox, f"{DEALS}?limit=100")) == 250
    assert sandbox.get(f"{DEALS}?after=700000000").status == 400


def test_archived_deals_come_in_an_order_of_their_own(
    sandbox: DirectSandbox, truth: list[dict[str, Any]]
) -> None:
    found = _chain(sandbox, f"{DEALS}?limit=50&archived=TRUE&associations=contacts")
    ids = [int(deal["id"]) for deal in found]
    assert len(ids) == 120
    assert sorted(ids) == [int(deal["id"]) for deal in truth if deal["archived"]]
    assert ids != sorted(ids)
    assert all(deal["archived"] is True and "archivedAt" in deal for deal in found)
    assert not any("associations" in deal for deal in found)


def test_one_deal(sandbox: DirectSandbox, truth: list[dict[str, Any]]) -> None:
    live, archived = truth[0], truth[-1]
    reply = sandbox.get(f"{DEALS}/{live['id']}?properties=dealname")
    assert reply.json["properties"]["dealname"] == live["properties"]["dealname"]
    assert sandbox.get(f"{DEALS}/{archived['id']}").status == 404
    assert sandbox.get(f"{DEALS}/{archived['id']}?archived=true").status == 200
    missing = sandbox.get(f"{DEALS}/123")
    assert missing.status == 404
    assert missing.json["message"] == "resource not found"
    assert "usually positive" in sandbox.get(f"{DEALS}/0").json["message"]


class TestBatchRead:
    """Batches: another order, misses, merges, archived ones."""

    def _read(
        self, sandbox: DirectSandbox, *ids: str, suffix: str = "", path: str = DEALS, **body: Any
    ) -> Any:
        inputs = [{"id": identity} for identity in ids]
        return sandbox.post(
            f"{path}/batch/read{suffix}", {"inputs": inputs, "properties": ["dealname"], **body}
        )

    def test_the_order_is_not_that_of_the_inputs(
        self, sandbox: DirectSandbox, truth: list[dict[str, Any]]
    ) -> None:
        ids = [deal["id"] for deal in truth[:5]]
        reply = self._read(sandbox, *ids)
        assert reply.status == 200
        assert list(reply.json) == ["status", "results", "startedAt", "completedAt"]
        assert reply.json["status"] == "COMPLETE"
        found = [deal["id"] for deal in reply.json["results"]]
        assert sorted(found) == sorted(ids)
        assert found != ids

    def test_misses_make_it_207_with_one_error_for_all(
        self, sandbox: DirectSandbox, truth: list[dict[str, Any]]
    ) -> None:
        archived = truth[-1]["id"]
        reply = self._read(sandbox, truth[0]["id"], "17", archived)
        assert reply.status == 207
        assert reply.json["numErrors"] == 1
        assert reply.json["errors"] == [
            {
                "status": "error",
                "category": "OBJECT_NOT_FOUND",
                "message": "Could not get some DEAL objects, they may be deleted or not exist. "
                "Check that ids are valid.",
                "context": {"ids": ["17", archived]},
            }
        ]
        assert self._read(sandbox, archived, suffix="?archived=true").status == 200

    def test_from_2026_09_on_misses_are_told_with_200(self, sandbox: DirectSandbox) -> None:
        reply = self._read(sandbox, "17", path="/crm/objects/2026-09/deals")
        assert (reply.status, reply.json["numErrors"]) == (200, 1)

    def test_a_merged_deal_answers_as_its_winner(self, sandbox: DirectSandbox) -> None:
        loser, winner = next(iter(sandbox.control("GET", "merges").items()))
        reply = self._read(sandbox, loser, properties=["hs_merged_object_ids"])
        [deal] = reply.json["results"]
        assert deal["id"] == winner
        assert loser in deal["properties"]["hs_merged_object_ids"].split(";")
        listed = sandbox.get(f"{DEALS}?limit=1&after={loser}").json["results"]
        assert listed[0]["id"] != loser
        condition = {"propertyName": "hs_object_id", "operator": "EQ", "value": loser}
        assert sandbox.search(filters=[condition]).json["total"] == 0

    def test_history_comes_newest_first(
        self, sandbox: DirectSandbox, truth: list[dict[str, Any]]
    ) -> None:
        ids = [deal["id"] for deal in truth[:50]]
        reply = self._read(sandbox, *ids, propertiesWithHistory=["dealstage", "amount"])
        depths = set()
        for deal in reply.json["results"]:
            versions = deal["propertiesWithHistory"]["dealstage"]
            times = [version["timestamp"] for version in versions]
            assert times == sorted(times, reverse=True)
            assert {"value", "timestamp", "sourceType"} <= set(versions[0])
            depths.add(len(versions))
        assert len(depths) > 2

    def test_a_batch_without_inputs_is_refused(self, sandbox: DirectSandbox) -> None:
        reply = sandbox.post(f"{DEALS}/batch/read", {"properties": []})
        assert reply.status == 400
        assert "[inputs]" in reply.json["message"]


class TestAssociations:
    """Inline and v4."""

    def test_inline_pairs_repeat_by_type_and_stop_at_a_hundred(
        self, sandbox: DirectSandbox
    ) -> None:
        found = _chain(sandbox, f"{DEALS}?limit=100&associations=contacts,companies,line_items")
        contacts = [
            deal["associations"]["contacts"]
            for deal in found
            if "contacts" in deal.get("associations", {})
        ]
        crowded = next(body for body in contacts if "paging" in body)
        assert len({one["id"] for one in crowded["results"]}) == 100
        assert len(crowded["results"]) == 200
        assert {one["type"] for one in crowded["results"]} == {
            "deal_to_contact",
            "deal_to_contact_unlabeled",
        }
        after = crowded["paging"]["next"]["after"]
        assert base64.b64decode(unquote(after)).decode().startswith("0-1-")
        link = crowded["paging"]["next"]["link"].removeprefix("http://127.0.0.1:8090")
        rest = sandbox.get(link).json
        assert rest["results"]
        assert not {one["id"] for one in rest["results"]} & {
            one["id"] for one in crowded["results"]
        }

    def test_batches_page_per_record_and_agree_with_the_list(
        self, sandbox: DirectSandbox, truth: list[dict[str, Any]]
    ) -> None:
        live = [deal["id"] for deal in truth if not deal["archived"]][:1_000]
        pending = [{"id": identity} for identity in live]
        contacts: dict[str, list[int]] = {}
        while pending:
            body = sandbox.post(CONTACTS, {"inputs": pending}).json
            pending = []
            for record in body["results"]:
                mine = contacts.setdefault(record["from"]["id"], [])
                mine += [to["toObjectId"] for to in record["to"]]
                if "paging" in record:
                    after = record["paging"]["next"]["after"]
                    pending.append({"id": record["from"]["id"], "after": after})
        identity, most = max(contacts.items(), key=lambda item: len(item[1]))
        assert len(most) > 100
        assert len(set(most)) == len(most)
        direct = sandbox.get(f"/crm/v4/objects/deals/{identity}/associations/contacts").json
        assert [to["toObjectId"] for to in direct["results"]] == most
        assert isinstance(direct["results"][0]["toObjectId"], int)
        assert [kind["typeId"] for kind in direct["results"][0]["associationTypes"]] == [3, 4]

    def test_a_deal_without_any_is_an_error_entry(self, sandbox: DirectSandbox) -> None:
        reply = sandbox.post(CONTACTS, {"inputs": [{"id": "5"}]})
        assert reply.status == 207
        assert reply.json["errors"][0]["subCategory"] == "crm.associations.NO_ASSOCIATIONS_FOUND"


class TestDescriptions:
    """Properties, pipelines, owners, users, account."""

    def test_property_definitions(self, sandbox: DirectSandbox) -> None:
        found = sandbox.get("/crm/v3/properties/deals").json
        assert list(found) == ["results"]
        bodies = {body["name"]: body for body in found["results"]}
        assert bodies["hs_object_id"]["type"] == "number"
        assert (bodies["closedate"]["type"], bodies["closedate"]["fieldType"]) == (
            "datetime",
            "date",
        )
        owner = bodies["hubspot_owner_id"]
        assert owner["referencedObjectType"] == "OWNER"
        assert (owner["externalOptions"], owner["options"]) == (True, [])
        assert "archived" not in owner
        assert "calculationFormula" in bodies["days_to_close"]
        assert sandbox.get("/crm/v3/properties/deals/amount").json == bodies["amount"]
        assert sandbox.get("/crm/v3/properties/deals/none").status == 404

    def test_every_stage_of_a_deal_is_in_its_pipeline(
        self, sandbox: DirectSandbox, truth: list[dict[str, Any]]
    ) -> None:
        pipelines = sandbox.get("/crm/v3/pipelines/deals").json["results"]
        stages = {
            (pipeline["id"], stage["id"]) for pipeline in pipelines for stage in pipeline["stages"]
        }
        used = {(deal["properties"]["pipeline"], deal["properties"]["dealstage"]) for deal in truth}
        assert used == stages

    def test_former_owners_are_only_in_the_archived_list_but_still_own_deals(
        self, sandbox: DirectSandbox, truth: list[dict[str, Any]]
    ) -> None:
        active = _chain(sandbox, "/crm/v3/owners/?limit=5")
        former = _chain(sandbox, "/crm/v3/owners?archived=true&limit=2")
        assert (len(active), len(former)) == (12, 3)
        assert all(owner["userId"] is None for owner in former)
        owning = {deal["properties"]["hubspot_owner_id"] for deal in truth} - {None}
        assert owning == {owner["id"] for owner in (*active, *former)}
        assert any("teams" not in owner for owner in active)
        one = sandbox.get(f"/crm/v3/owners/{former[0]['id']}?archived=true").json
        assert one == former[0]

    def test_account_users_and_teams(self, sandbox: DirectSandbox) -> None:
        details = sandbox.get("/account-info/2026-03/details").json
        assert (details["portalId"], details["companyCurrency"]) == (4711, "USD")
        users = sandbox.get("/settings/v3/users").json["results"]
        assert len(users) == 12
        assert sandbox.get("/settings/v3/users/teams").json["results"][0]["name"] == "Sales Team"
