"""The server's patience, shortened, over real connections."""

import asyncio
import contextlib
import http.client
import json
import socket
import time

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response

from api import testing
from api.edge.protocol import BoundedProtocol
from tests.pace import within

PATIENCE = 0.4


class Impatient(BoundedProtocol):
    head_seconds = PATIENCE
    stall_seconds = PATIENCE


@pytest.fixture
def address(monkeypatch):
    """Serves a few answers with little patience."""
    app = FastAPI()
    app.get("/small")(lambda: "small")
    app.state.ended = []

    @app.get("/large")
    async def large() -> Response:
        return Response(b"x" * 64_000_000)

    @app.get("/late")
    async def late() -> Response:
        await asyncio.sleep(3 * PATIENCE)
        return Response(b"late")

    @app.post("/take")
    async def take(request: Request) -> dict[str, object]:
        body = await request.body()
        return {"size": len(body), "headers": list(request.headers)}

    monkeypatch.setattr(testing, "BoundedProtocol", Impatient)
    with testing.serve(app) as client:
        yield client.base_url.host, client.base_url.port


def connect(address):
    return socket.create_connection(address, timeout=10)


def ask(peer, path="/small"):
    peer.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
    answer = http.client.HTTPResponse(peer)
    answer.begin()
    return answer.status, answer.read()


def seconds_until_closed(peer):
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while peer.recv(65_536):
            pass
    return time.monotonic() - began


def test_who_connects_and_says_nothing_is_hung_up_on(address):
    with connect(address) as peer:
        assert PATIENCE / 2 < seconds_until_closed(peer) < PATIENCE + 2


def test_a_head_that_comes_in_drops_is_a_408(address):
    with connect(address) as peer:
        began = time.monotonic()
        for byte in b"GET /small HTTP/1.1\r\nHost: a\r\nX-Slow: 1":
            try:
                peer.sendall(bytes([byte]))
            except ConnectionError:
                break
            time.sleep(PATIENCE / 20)
        answer = http.client.HTTPResponse(peer)
        answer.begin()
        assert time.monotonic() - began < within(PATIENCE * 4 + 2)
        body = json.loads(answer.read())
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert body["error_code"] == "REQUEST_TIMEOUT"


@pytest.mark.parametrize("drops", [b"\r\n", b"GET /s"])
def test_a_second_head_has_no_more_time_than_the_first(address, drops):
    with connect(address) as peer:
        assert ask(peer)[0] == 200
        peer.sendall(drops)
        assert seconds_until_closed(peer) < PATIENCE + 2


def test_an_answer_may_take_longer_than_a_head(address):
    with connect(address) as peer:
        assert ask(peer, "/late") == (200, b"late")
        assert ask(peer) == (200, b'"small"')


def test_many_requests_on_one_connection_are_served(address):
    with connect(address) as peer:
        for _ in range(5):
            assert ask(peer)[0] == 200
            time.sleep(PATIENCE / 2)


def test_who_does_not_take_the_answer_is_hung_up_on(address):
    with connect(address) as peer:
        peer.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(PATIENCE * 4)
        received = 0
        with contextlib.suppress(ConnectionError):
            while piece := peer.recv(65_536):
                received += len(piece)
        assert received < 64_000_000


def test_who_takes_the_answer_slowly_but_steadily_gets_it(address):
    with connect(address) as peer:
        peer.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        received, began = 0, time.monotonic()
        while received < 64_000_000:
            piece = peer.recv(2_000_000)
            assert piece
            received += len(piece)
            time.sleep(PATIENCE / 20)
        assert time.monotonic() - began > PATIENCE


@pytest.mark.parametrize("path", ["/small", "/late", "/take"])
@pytest.mark.parametrize("piece", [b"X-More: %b\r\n" % (b"x" * 900), b"x" * 1_000])
def test_what_follows_a_body_for_ever_is_cut_off(address, path, piece):
    """Each line would become a header of the request, in memory, until the client ends."""
    with connect(address) as peer:
        peer.sendall(
            b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nab\r\n0\r\nX-First: 1" % path.encode()
        )
        peer.sendall(b"\r\n" if piece.startswith(b"X-") else b"")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 40_000_000:
                peer.sendall(piece)
                sent += len(piece)
        assert sent < 40_000_000


def test_what_follows_a_body_is_no_header(address):
    with connect(address) as peer:
        peer.sendall(
            b"POST /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nab\r\n0\r\nX-API-Key: secret\r\n\r\n"
        )
        answer = http.client.HTTPResponse(peer)
        answer.begin()
        assert json.loads(answer.read()) == {"size": 2, "headers": ["host", "transfer-encoding"]}
        assert ask(peer)[0] == 200


def test_a_body_of_many_small_chunks_is_taken(address):
    with connect(address) as peer:
        peer.sendall(b"POST /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.sendall(b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n")
        answer = http.client.HTTPResponse(peer)
        answer.begin()
        assert json.loads(answer.read())["size"] == 100_000


def test_who_hangs_up_with_requests_in_the_queue_ends_them_quietly(address, caplog):
    """Whatever is being served then would be written to a socket that is closed."""
    with connect(address) as peer:
        peer.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        time.sleep(PATIENCE / 2)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    time.sleep(PATIENCE)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_nobody_gets_a_websocket(address, caplog):
    """It would be bounded by nothing here, and be in no log of requests."""
    with connect(address) as peer:
        peer.sendall(
            b"GET /small HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        answer = http.client.HTTPResponse(peer)
        answer.begin()
        assert (answer.status, answer.read()) == (200, b'"small"')
    assert not [record for record in caplog.records if record.levelname != "INFO"]


def test_uvicorn_finds_the_protocol_by_its_name():
    config = uvicorn.Config("api.main:create_app", http="api.edge.protocol:BoundedProtocol")
    config.load_app = lambda: None
    config.load()
    assert config.http_protocol_class is BoundedProtocol
