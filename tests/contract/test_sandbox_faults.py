"""Faults on demand, over a real socket where the wire matters."""

import time
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.direct import DEALS, DirectSandbox
from hubspot_sandbox.testing import GOOD_TOKEN, SandboxError, SandboxProcess


@pytest.fixture(scope="module")
def running() -> Iterator[SandboxProcess]:
    with SandboxProcess(deals=60) as process:
        yield process


@pytest.fixture
def sandbox() -> DirectSandbox:
    return DirectSandbox(SandboxConfig(deals=300, latency_ms=(0, 0), limits=False))


def _rule(sandbox: DirectSandbox, fault: dict[str, Any], **rule: Any) -> None:
    sandbox.control("POST", "faults", {"fault": fault, **rule})


def _get(process: SandboxProcess, target: str = f"{DEALS}?limit=50") -> tuple[int, bytes]:
    parts = urlsplit(process.url)
    connection = HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    try:
        connection.request("GET", target, headers={"Authorization": f"Bearer {GOOD_TOKEN}"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_a_rule_strikes_from_the_nth_matching_request_for_k_times(sandbox: DirectSandbox) -> None:
    _rule(sandbox, {"type": "status", "status": 502}, match={"kind": "list"}, after=1, times=2)
    sandbox.search()
    assert [sandbox.get(DEALS).status for _ in range(5)] == [200, 502, 502, 200, 200]
    [rule] = sandbox.control("GET", "faults")["rules"]
    assert (rule["seen"], rule["struck"]) == (3, 2)


def test_rules_can_match_path_query_and_body(sandbox: DirectSandbox) -> None:
    fault = {"type": "status", "status": 503}
    _rule(sandbox, fault, match={"path_contains": "/0-3"}, times=None)
    _rule(sandbox, fault, match={"query_contains": "after=777"})
    _rule(sandbox, fault, match={"body_contains": "closedwon"})
    assert sandbox.get("/crm/v3/objects/0-3").status == 503
    assert sandbox.get(f"{DEALS}?after=777").status == 503
    assert sandbox.search(query="closedwon").status == 503
    assert sandbox.get(DEALS).status == 200


def test_statuses_come_as_json_or_as_a_proxy_page_with_headers(sandbox: DirectSandbox) -> None:
    _rule(sandbox, {"type": "status", "status": 477, "headers": {"Retry-After": "3"}})
    _rule(sandbox, {"type": "status", "status": 524, "body": "html"})
    migrating = sandbox.get(DEALS)
    assert (migrating.status, migrating.headers["Retry-After"]) == (477, "3")
    assert migrating.json["status"] == "error"
    assert b"<h1>524 Origin Time-out</h1>" in sandbox.get(DEALS).content


@pytest.mark.parametrize(
    ("fault", "status", "word"),
    [
        ("burst_429", 429, "TEN_SECONDLY_ROLLING"),
        ("search_429", 429, "RATE_LIMITS"),
        ("daily_429", 429, "DAILY"),
        ("missing_scope", 403, "MISSING_SCOPES"),
    ],
)
def test_hubspots_own_refusals_out_of_turn(
    sandbox: DirectSandbox, fault: str, status: int, word: str
) -> None:
    _rule(sandbox, {"type": fault})
    reply = sandbox.get(DEALS)
    assert reply.status == status
    assert word in reply.json.values()


def test_html_with_status_200(sandbox: DirectSandbox) -> None:
    _rule(sandbox, {"type": "html_200"})
    reply = sandbox.get(DEALS)
    assert (reply.status, reply.content[:6]) == (200, b"<html>")


def test_an_expired_token_stays_expired_until_reset(sandbox: DirectSandbox) -> None:
    _rule(sandbox, {"type": "expire_token"}, after=1)
    statuses = [sandbox.get(DEALS).status for _ in range(3)]
    assert statuses == [200, 401, 401]
    assert sandbox.get(DEALS, token="another-good-token").status == 200
    sandbox.control("POST", "reset")
    assert sandbox.get(DEALS).status == 200


def _walk(sandbox: DirectSandbox) -> tuple[list[str], list[int]]:
    found: list[str] = []
    sizes: list[int] = []
    after: str | None = "0"
    while after:
        page = sandbox.get(f"{DEALS}?limit=100&after={after}").json
        found += [deal["id"] for deal in page["results"]]
        sizes.append(len(page["results"]))
        after = page.get("paging", {}).get("next", {}).get("after")
    return found, sizes


def test_short_and_empty_list_pages_lose_nothing(sandbox: DirectSandbox) -> None:
    plain, _ = _walk(sandbox)
    _rule(sandbox, {"type": "short_page", "results": 7}, after=1)
    _rule(sandbox, {"type": "empty_page"}, after=2)
    found, sizes = _walk(sandbox)
    assert sizes == [100, 7, 0, 100, 93]
    assert found == plain


def test_search_pages_can_be_short_empty_or_looping(sandbox: DirectSandbox) -> None:
    for fault in ({"type": "short_page", "results": 3}, {"type": "empty_page"}):
        _rule(sandbox, fault, match={"kind": "search"})
    _rule(sandbox, {"type": "cursor_loop"}, match={"kind": "search"}, after=2)
    pages = [sandbox.search(limit=50, after=0).json for _ in range(3)]
    assert [len(page["results"]) for page in pages] == [3, 0, 50]
    assert [page["paging"]["next"]["after"] for page in pages] == ["3", "50", "0"]


def test_the_list_cursor_can_loop(sandbox: DirectSandbox) -> None:
    _rule(sandbox, {"type": "cursor_loop"}, after=1)
    first = sandbox.get(DEALS).json["paging"]["next"]["after"]
    assert sandbox.get(f"{DEALS}?after={first}").json["paging"]["next"]["after"] == first


def test_a_reset_connection(running: SandboxProcess) -> None:
    running.control.add_fault({"type": "reset"})
    with pytest.raises((RemoteDisconnected, ConnectionResetError)):
        _get(running)
    assert _get(running)[0] == 200


def test_a_cut_body(running: SandboxProcess) -> None:
    running.control.add_fault({"type": "cut_body"})
    with pytest.raises(IncompleteRead):
        _get(running)


def test_cut_json_of_the_right_length(running: SandboxProcess) -> None:
    running.control.add_fault({"type": "cut_json"})
    status, body = _get(running)
    assert (status, body[:12]) == (200, b'{"results":[')
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(body)


@pytest.mark.parametrize(("fault", "found"), [("cursor_loop", 12), ("empty_page", 0)])
def test_pages_of_owners_can_loop_and_be_empty(
    sandbox: DirectSandbox, fault: str, found: int
) -> None:
    whole = sandbox.get("/crm/v3/owners").json
    first = whole["results"][0]["id"]
    _rule(sandbox, {"type": fault}, match={"kind": "owners"})
    page = sandbox.get(f"/crm/v3/owners?after={first}").json
    assert (len(page["results"]), page["paging"]["next"]["after"]) == (found, first)
    assert sandbox.get(f"/crm/v3/owners?after={first}").json == whole


def test_a_wrong_content_length(running: SandboxProcess) -> None:
    running.control.add_fault({"type": "wrong_length"})
    status, body = _get(running)
    assert status == 200
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(body)


def test_a_stall(running: SandboxProcess) -> None:
    running.control.add_fault({"type": "stall", "seconds": 0.3})
    started = time.monotonic()
    assert _get(running)[0] == 200
    assert time.monotonic() - started >= 0.3


def test_what_is_no_rule_is_refused(running: SandboxProcess) -> None:
    with pytest.raises(SandboxError, match="Not a fault rule"):
        running.control.add_fault({"type": "gremlins"})
    with pytest.raises(SandboxError, match="Not a fault"):
        running.control.add_fault({"type": "status", "colour": "red"})
    with pytest.raises(SandboxError, match="No deal 17"):
        running.control.archive(["17"])
