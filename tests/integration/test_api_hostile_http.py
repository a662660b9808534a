"""HTTP that two programs in a row might read differently, on the API as a process of its own."""

# ruff: noqa: F811 - fixtures are imported, then asked for

import itertools
import re
import socket
import time
from urllib.parse import urlsplit

from tests.integration.test_api_hostile import (  # noqa: F401 - fixtures
    MEGABYTE,
    SECOND,
    START,
    api,
    exchange,
)
from tests.integration.test_api_process import start_api  # noqa: F401 - a fixture
from tests.pace import within

LIVE = b"GET /api/v1/health/live HTTP/1.1\r\n"
LIST = b"GET /api/v1/scan/list HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
CLOSE = b"Connection: close\r\n\r\n"
POST = b"POST %b HTTP/1.1\r\n%bContent-Type: application/json\r\n" % (START.encode(), HOST)
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n" + CLOSE

FRAMINGS = {
    "no host": LIVE + CLOSE,
    "two hosts": LIVE + HOST + HOST + CLOSE,
    "HTTP/0.9": b"GET /api/v1/health/live\r\n\r\n",
    "HTTP/2.0": b"GET /api/v1/health/live HTTP/2.0\r\n" + HOST + CLOSE,
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "one length twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n" + CLOSE + b"{}",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n" + CLOSE + b"{}",
    "list of lengths": POST + b"Content-Length: 2, 2\r\n" + CLOSE + b"{}",
    "length +2": POST + b"Content-Length: +2\r\n" + CLOSE + b"{}",
    "length 0x2": POST + b"Content-Length: 0x2\r\n" + CLOSE + b"{}",
    "endless length": POST + b"Content-Length: 99999999999999999999\r\n" + CLOSE + b"{}",
    "chunked, then length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    "unknown encoding": POST + b"Transfer-Encoding: xchunked\r\n" + CLOSE + b"0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n" + CLOSE + b"0\r\n\r\n",
    "chunked is not the last": POST
    + b"Transfer-Encoding: chunked, identity\r\n"
    + CLOSE
    + b"0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\n" * 2 + CLOSE + b"2\r\n{}\r\n0\r\n\r\n",
    "space before the colon": POST + b"Transfer-Encoding : chunked\r\n" + CLOSE + b"0\r\n\r\n",
    "vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n" + CLOSE + b"0\r\n\r\n",
    "folded": POST + b"Transfer-Encoding:\r\n chunked\r\n" + CLOSE + b"0\r\n\r\n",
    "bare line feeds": b"GET /api/v1/health/live HTTP/1.1\nHost: a\nConnection: close\n\n",
    "bare carriage return": LIVE + b"Host: a\rX-B: b\r\n" + CLOSE,
    "null in a value": LIVE + HOST + b"X-A: a\0b\r\n" + CLOSE,
    "null in a name": LIVE + HOST + b"X\0A: b\r\n" + CLOSE,
    "null in the path": b"GET /api/v1/scan/a\0b/status HTTP/1.1\r\n" + HOST + CLOSE,
    "null in the query": b"GET /api/v1/scan/list?cursor=\0 HTTP/1.1\r\n" + HOST + CLOSE,
    "space in the path": b"GET /api/v1/scan/a b/status HTTP/1.1\r\n" + HOST + CLOSE,
    "plain bytes in the query": b"GET /api/v1/scan/list?cursor=\xff HTTP/1.1\r\n" + HOST + CLOSE,
    "tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + CLOSE,
    "chunk of size zz": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "chunk of size -2": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "chunk of size 0x2": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "chunk beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "chunk longer than it says": CHUNKED + b"2\r\n{}}}\r\n0\r\n\r\n",
    "chunk with bare line feeds": CHUNKED + b"2\n{}\n0\n\n",
    "length in the trailer": CHUNKED + b"2\r\n{}\r\n0\r\nContent-Length: 3\r\n\r\n",
}
"""Each is a 400, and the connection ends: what follows cannot be taken for a request."""

READ = {
    "HTTP/1.0": (b"GET /api/v1/health/live HTTP/1.0\r\n\r\n", 200),
    "absolute form": (
        b"GET http://evil.example/api/v1/health/live HTTP/1.1\r\n" + HOST + CLOSE,
        200,
    ),
    "of the server": (b"OPTIONS * HTTP/1.1\r\n" + HOST + CLOSE, 404),
    "another method": (b"PROPFIND /api/v1/health/live HTTP/1.1\r\n" + HOST + CLOSE, 405),
    "other slashes": (b"GET //api/v1/health/live HTTP/1.1\r\n" + HOST + CLOSE, 404),
    "dots": (b"GET /api/v1/scan/../health/live HTTP/1.1\r\n" + HOST + CLOSE, 404),
    "body of a GET": (LIST + HOST + b"Content-Length: 5\r\n" + CLOSE + b"hello", 200),
    "no UTF-8 in a request id": (LIVE + HOST + b"X-Request-ID: \xff\xfe\r\n" + CLOSE, 200),
    "no UTF-8 in a key": (LIST + HOST + b"X-API-Key: \xff\xfe\r\n" + CLOSE, 200),
    "no UTF-8 in what is accepted": (LIST + HOST + b"Accept: \xff;q=x\r\n" + CLOSE, 200),
    "no UTF-8 in a trace": (LIVE + HOST + b"traceparent: \xff00-zz\r\n" + CLOSE, 200),
    "two idempotency keys": (
        POST + b"Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 2\r\n" + CLOSE + b"{}",
        400,
    ),
    "chunk with an extension": (CHUNKED + b"2;a=b\r\n{}\r\n0\r\n\r\n", 400),
    "five megabytes of extension": (
        CHUNKED + b"2;" + b"a" * 5 * MEGABYTE + b"\r\n{}\r\n0\r\n\r\n",
        431,
    ),
    "five megabytes of trailer": (
        CHUNKED + b"2\r\n{}\r\n0\r\nX-A: " + b"a" * 5 * MEGABYTE + b"\r\n\r\n",
        431,
    ),
    "an expectation nobody has": (
        POST + b"Expect: tea\r\nContent-Length: 2\r\n" + CLOSE + b"{}",
        400,
    ),
    "a hundred megabytes announced": (POST + b"Content-Length: 100000000\r\n" + CLOSE, 413),
    "too much announced, and asked": (
        POST + b"Expect: 100-continue\r\nContent-Length: 2000000\r\n" + CLOSE,
        413,
    ),
    "WebSocket": (
        LIVE + HOST + b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade, close\r\n\r\n",
        200,
    ),
    "HTTP/2 in clear": (
        LIVE + HOST + b"Upgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
        b"Connection: Upgrade, HTTP2-Settings, close\r\n\r\n",
        200,
    ),
}
"""What can be read in one way only is read in it, and answered with this status."""


def test_what_two_programs_may_read_differently_is_a_400(api):
    url, process = api
    before = process.memory_info().rss

    for name, request in FRAMINGS.items():
        (status, headers, body), seconds = exchange(url, request)
        assert (name, status, headers["connection"]) == (name, 400, "close")
        assert b'"error_code":"BAD_REQUEST"' in body, name
        assert seconds < within(SECOND), name

    assert process.memory_info().rss - before < 16 * MEGABYTE


def test_what_can_be_read_in_one_way_only_is_answered(api):
    url, process = api
    before = process.memory_info().rss

    for name, (request, expected) in READ.items():
        (status, headers, _), seconds = exchange(url, request)
        assert (name, status) == (name, expected)
        assert headers["x-content-type-options"] == "nosniff", name
        assert seconds < within(SECOND), name

    assert process.memory_info().rss - before < 16 * MEGABYTE


def statuses_of(url, *pieces, pause=0.0):
    """Send these one after the other and return the statuses that come until the end."""
    address = urlsplit(url)
    received = b""
    with socket.create_connection((address.hostname, address.port), timeout=10) as peer:
        for piece in pieces:
            peer.sendall(piece)
            time.sleep(pause)
        while data := peer.recv(65_536):
            received += data
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", received)]


def test_what_comes_in_a_row_is_answered_in_its_order(api):
    url, _ = api
    paths = [b"/api/v1/health/live", b"/nowhere", b"/api/v1/scan/list?limit=0"]
    asked = [b"GET %b HTTP/1.1\r\n%b" % (path, HOST) for path in paths]
    requests = [request + b"\r\n" for request in itertools.islice(itertools.cycle(asked), 299)]
    assert statuses_of(url, b"".join(requests) + asked[-1] + CLOSE) == [200, 404, 400] * 100

    # A request inside a body that nobody reads is no request.
    hidden = b"DELETE /api/v1/scan/a/remove HTTP/1.1\r\n%b\r\n" % HOST
    post = b"POST /nowhere HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (HOST, len(hidden))
    assert statuses_of(url, post + hidden + LIVE + HOST + CLOSE) == [404, 200]

    # Who asks before sending is told to go on.
    head = POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n" + CLOSE
    assert statuses_of(url, head, b"{}", pause=0.2) == [100, 400]

    # An upgrade that was ignored does not end the connection: clients in Java ask for one.
    upgrade = b"Upgrade: h2c\r\nHTTP2-Settings: AAMA\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n"
    assert statuses_of(url, LIVE + HOST + upgrade, LIVE + HOST + CLOSE, pause=0.3) == [200, 200]
