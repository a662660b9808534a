"""The sandbox as a program: start, stop, long lines, latency, the control client."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import orjson
import pytest
from click.testing import CliRunner

from hubspot_sandbox.__main__ import main, read_tokens
from hubspot_sandbox.config import ALL_SCOPES
from hubspot_sandbox.direct import DEALS
from hubspot_sandbox.testing import GOOD_TOKEN, SandboxError, SandboxProcess
from tests.pace import within


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(deals=300, search_lag_seconds=3) as running:
        yield running


def _ask(url: str, body: object = None) -> tuple[int, bytes]:
    payload = None if body is None else orjson.dumps(body)
    request = Request(url, payload, {"Authorization": f"Bearer {GOOD_TOKEN}"})
    try:
        with urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def test_it_stops_at_once_and_cleanly_even_with_a_request_under_way() -> None:
    process = SandboxProcess(deals=10, latency_ms=60_000)
    process.start()
    parts = urlsplit(process.url)
    with socket.create_connection((parts.hostname, parts.port)) as waiting:
        waiting.sendall(
            f"GET {DEALS} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {GOOD_TOKEN}\r\n\r\n".encode()
        )
        started = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - started < within(3)
    assert process.complaints == ""


def test_a_million_deals_start_in_seconds() -> None:
    started = time.monotonic()
    with SandboxProcess(deals=1_000_000) as big:
        assert time.monotonic() - started < within(10)
        assert big.control.state()["live"] == 1_000_000


def test_wrong_options_are_told() -> None:
    with pytest.raises(SandboxError, match=r"(?i)no such option"):
        SandboxProcess(colour="red").start()
    backwards = CliRunner().invoke(main, ["--start-date=2025-01-01", "--end-date=2024-01-01"])
    assert backwards.exit_code == 2
    assert CliRunner().invoke(main, ["--latency-ms=400-150"]).exit_code == 2


def test_tokens_are_read_with_or_without_scopes() -> None:
    tokens = read_tokens(["first-token", "second-token=a.read,b.read", "third-token="])
    assert tokens == {
        "first-token": ALL_SCOPES,
        "second-token": {"a.read", "b.read"},
        "third-token": frozenset(),
    }


def test_request_lines_of_sixteen_kilobytes_pass_and_longer_ones_do_not(
    sandbox: SandboxProcess,
) -> None:
    target = f"{DEALS}?limit=1&properties="
    room = 16_384 - len(f"GET {target} HTTP/1.1")
    assert _ask(f"{sandbox.url}{target}{'a' * room}")[0] == 200
    status, page = _ask(f"{sandbox.url}{target}{'a' * (room + 1)}")
    assert status == 414
    assert page.startswith(b"<html>")


def test_pipelined_requests_are_answered_in_order(sandbox: SandboxProcess) -> None:
    parts = urlsplit(sandbox.url)
    requests = "".join(
        f"GET {DEALS}?limit={limit} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {GOOD_TOKEN}\r\n"
        f"Connection: {'close' if limit == 3 else 'keep-alive'}\r\n\r\n"
        for limit in (1, 2, 3)
    )
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(requests.encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    bodies = [
        orjson.loads(part.split(b"\r\n\r\n", 1)[1]) for part in answer.split(b"HTTP/1.1 ")[1:]
    ]
    assert [len(body["results"]) for body in bodies] == [1, 2, 3]


def test_what_is_not_http_is_refused(sandbox: SandboxProcess) -> None:
    parts = urlsplit(sandbox.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(b"hello there\r\n\r\n")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 400 ")


def test_latency_is_waited_out_side_by_side() -> None:
    with SandboxProcess(deals=10, latency_ms="200-200") as slow, ThreadPoolExecutor(8) as pool:
        started = time.monotonic()
        statuses = list(pool.map(lambda _: _ask(f"{slow.url}{DEALS}")[0], range(8)))
        seconds = time.monotonic() - started
    assert statuses == [200] * 8
    assert 0.2 <= seconds < within(1.2)


def test_the_control_client_changes_deals_and_tells_the_truth(sandbox: SandboxProcess) -> None:
    control = sandbox.control
    [first, second, third, fourth, *_] = control.deals(archived=False, properties=["dealname"])
    created = control.create({"dealname": "Made here", "dealstage": "closedwon"}, count=2)
    assert len(set(created)) == 2
    control.update([first["id"]], {"dealname": None, "amount": ""})
    control.archive([second["id"]])
    control.delete([third["id"]])
    control.merge(first["id"], [fourth["id"]])
    truth = {deal["id"]: deal for deal in control.deals()}
    assert truth[created[0]]["properties"]["hs_is_closed_won"] == "true"
    assert truth[first["id"]]["properties"]["dealname"] is None
    assert truth[first["id"]]["properties"]["amount"] == ""
    assert truth[second["id"]]["archived"] is True
    assert truth[second["id"]]["updatedAt"] == second["updatedAt"]
    assert third["id"] not in truth
    assert control.merges()[fourth["id"]] == first["id"]
    control.restore([second["id"]])
    state = control.state()
    assert state["live"] == 300 + 2 - 2
    assert state["index_pending"] > 0
    control.advance(4)
    assert control.state()["index_pending"] == 0
    status, listed = _ask(f"{sandbox.url}{DEALS}/{created[1]}?properties=dealname")
    assert (status, orjson.loads(listed)["properties"]["dealname"]) == (200, "Made here")


def test_the_request_log_counts_but_keeps_no_token(sandbox: SandboxProcess) -> None:
    sandbox.control.reset()
    for _ in range(3):
        _ask(f"{sandbox.url}{DEALS}?limit=1")
    _ask(f"{sandbox.url}{DEALS}/search", {"limit": 1})
    log = sandbox.control.requests(last=2)
    assert log["by_kind"] == {"list": {"200": 3}, "search": {"200": 1}}
    assert log["rates"]["ordinary"]["max_in_10s"] == 3
    assert [entry["kind"] for entry in log["last"]] == ["list", "search"]
    assert log["tokens"] == 1
    assert GOOD_TOKEN not in str(log)
