"""What the search endpoint refuses, and the shape of what it does not."""

from typing import Any

import pytest

from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.direct import DEALS, DirectSandbox

GENERIC = "There was a problem with the request."
NAMED = {"propertyName": "dealname", "operator": "EQ", "value": "x"}


@pytest.fixture(scope="module")
def sandbox() -> DirectSandbox:
    return DirectSandbox(SandboxConfig(deals=400, latency_ms=(0, 0), limits=False))


def test_a_page_has_total_results_and_an_offset_but_no_link(sandbox: DirectSandbox) -> None:
    page = sandbox.search(limit=10).json
    assert list(page) == ["total", "results", "paging"]
    assert page["paging"] == {"next": {"after": "10"}}
    assert list(page["results"][0]) == ["id", "properties", "createdAt", "updatedAt", "archived"]
    nothing = sandbox.search(filters=[NAMED]).json
    assert nothing == {"total": 0, "results": []}


@pytest.mark.parametrize("after", [0, "0", None, ""])
def test_the_offset_may_be_a_number_or_text(sandbox: DirectSandbox, after: object) -> None:
    assert len(sandbox.search(after=after).json["results"]) == 10


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"limit": 201}, "Limit cannot be greater than 200, was 201"),
        ({"after": 10_000, "limit": 1}, GENERIC),
        ({"after": 9_801, "limit": 200}, GENERIC),
        ({"after": "next"}, "Invalid paging offset: next"),
        ({"filters": [{**NAMED, "propertyName": "none"}]}, GENERIC),
        ({"sorts": ["none"]}, GENERIC),
        ({"sorts": ["dealname", "amount"]}, "Only one sort is allowed"),
        ({"query": "x" * 3_001}, "Query is too long: 3001 characters, 3000 allowed"),
        (
            {"filterGroups": [{"filters": [NAMED]}] * 6},
            "Too many filterGroups: 6 given, 5 allowed",
        ),
        (
            {"filterGroups": [{"filters": [NAMED] * 7}]},
            "Too many filters in one filterGroup: 6 allowed",
        ),
        (
            {"filterGroups": [{"filters": [NAMED] * 5}] * 4},
            "Too many filters in the request: 18 allowed",
        ),
        (
            {"filters": [{"propertyName": "createdate", "operator": "GT", "value": "soon"}]},
            GENERIC,
        ),
        (
            {"filters": [{"propertyName": "hs_object_id", "operator": "GT", "value": "x"}]},
            GENERIC,
        ),
    ],
)
def test_refusals(sandbox: DirectSandbox, body: dict[str, Any], message: str) -> None:
    reply = sandbox.search(**body)
    assert reply.status == 400
    assert reply.json["status"] == "error"
    assert reply.json["message"] == message


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        (
            {"propertyName": "createdate", "operator": "BETWEEN", "value": "1"},
            "operator BETWEEN requires a highValue",
        ),
        (
            {"propertyName": "dealname", "operator": "EQ", "value": " "},
            "value must be non-empty and non-blank, if specified {propertyName: 'dealname'}",
        ),
        (
            {"propertyName": "dealname", "operator": "IN", "value": "x"},
            "operator IN requires values",
        ),
        ({"propertyName": "dealname", "operator": "LIKE", "value": "x"}, "LIKE"),
    ],
)
def test_unreadable_filters_are_refused_by_the_json_binder(
    sandbox: DirectSandbox, condition: dict[str, Any], problem: str
) -> None:
    reply = sandbox.search(filters=[condition])
    assert reply.status == 400
    assert reply.json["message"].startswith("Invalid input JSON on line 1, column ")
    assert problem in reply.json["message"]


def test_a_body_that_is_no_json_is_refused(sandbox: DirectSandbox) -> None:
    assert sandbox.ask("POST", f"{DEALS}/search", b"{not json").status == 400


def test_the_epoch_itself_is_a_server_error(sandbox: DirectSandbox) -> None:
    condition = {"propertyName": "createdate", "operator": "GTE", "value": "0"}
    assert sandbox.search(filters=[condition]).status == 500


def test_the_last_readable_page_ends_at_ten_thousand(sandbox: DirectSandbox) -> None:
    assert sandbox.search(after=9_800, limit=200).json == {"total": 400, "results": []}


def test_all_properties_of_a_big_account_fit_a_search_but_not_a_url() -> None:
    big = DirectSandbox(SandboxConfig(deals=30, properties=900, latency_ms=(0, 0), limits=False))
    names = [body["name"] for body in big.get("/crm/v3/properties/deals").json["results"]]
    listed = big.get(f"{DEALS}?properties={','.join(names)}")
    assert listed.status == 414
    assert b"<center><h1>414 Request-URI Too Large</h1></center>" in listed.content
    [deal, *_] = big.search(properties=names).json["results"]
    assert list(deal["properties"]) == sorted(names)
