"""The HTTP server inside the test's own loop: framing, delays, broken applications, streams."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

import pytest

from hubspot_sandbox.messages import Mangle, Reply, Request
from hubspot_sandbox.server import serve

Exchange = Callable[[bytes], Awaitable[bytes]]


def _talk(application: Callable[[Request], Reply], *requests: bytes) -> list[bytes]:
    """Serve, send each text on a connection of its own, and return all that came back."""

    async def run() -> list[bytes]:
        stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
        server = asyncio.create_task(
            serve(application, host="127.0.0.1", port=0, stop=stop, on_ready=port.set_result)
        )
        answers = [await _exchange(await port, text) for text in requests]
        stop.set()
        await server
        return answers

    return asyncio.run(run())


async def _exchange(port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b"reset"
    finally:
        writer.close()


def _request(path: str = "/", *, close: bool = True) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{'Connection: close' * close}\r\n\r\n".encode()


def test_a_reply_has_length_and_status() -> None:
    [answer] = _talk(lambda _: Reply(207, b"{}"), _request())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 207 Multi-Status\r\n")
    assert b"Content-Length: 2" in head
    assert b"Content-Type: application/json;charset=utf-8" in head
    assert body == b"{}"


def test_a_request_is_understood_whole() -> None:
    seen: list[Request] = []

    def application(request: Request) -> Reply:
        seen.append(request)
        return Reply(200)

    text = (
        b"POST /a?b=c HTTP/1.1\r\nX-Thing: 1\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
    )
    _talk(application, text)
    [request] = seen
    assert (request.method, request.target, request.body) == ("POST", b"/a?b=c", b"body")
    assert request.headers[b"x-thing"] == b"1"


def test_later_requests_wait_for_the_delay_of_earlier_ones() -> None:
    def application(request: Request) -> Reply:
        return Reply(200, request.target, delay=0.05 if request.target == b"/slow" else 0)

    [answer] = _talk(application, _request("/slow", close=False) + _request("/quick"))
    assert answer.index(b"/slow") < answer.index(b"/quick")


def test_a_stream_is_chunked() -> None:
    def lines() -> Iterator[bytes]:
        for number in range(3):
            yield b"line %d\n" % number

    [answer] = _talk(lambda _: Reply(200, lines()), _request())
    assert b"Transfer-Encoding: chunked" in answer
    assert answer.endswith(b"7\r\nline 2\n\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("mangle", "ending"),
    [
        (Mangle.RESET, b""),
        (Mangle.CUT_BODY, b"\r\n\r\n01234"),
        (Mangle.WRONG_LENGTH, b"Content-Length: 3"),
    ],
)
def test_replies_can_be_spoiled(mangle: Mangle, ending: bytes) -> None:
    [answer] = _talk(lambda _: Reply(200, b"0123456789", mangle=mangle), _request())
    assert ending in answer
    if mangle is Mangle.RESET:
        assert answer in {b"", b"reset"}


def test_a_bug_is_a_loud_500(caplog: pytest.LogCaptureFixture) -> None:
    def application(_: Request) -> Reply:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        [answer] = _talk(application, _request())
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert "ZeroDivisionError" in caplog.text


def test_other_protocols_are_cut_off() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    garbage, _ = _talk(lambda _: Reply(200, close=True), b"hello\r\n\r\n", upgrade)
    assert garbage.startswith(b"HTTP/1.1 400 ")
