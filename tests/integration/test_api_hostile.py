"""Whatever is sent: the right answer within a second, and no memory that grows."""

# ruff: noqa: F811 - a fixture is imported, then asked for
# ruff: noqa: RUF001 - texts that look like others are what is tested

import contextlib
import http.client
import json
import socket
import threading
import time
from urllib.parse import quote, urlsplit

import httpx
import psutil
import pytest

from tests.integration.test_api_process import KEYS, start_api, wait_until_it_answers  # noqa: F401
from tests.pace import within

START = "/api/v1/scan/start"
JSON = {"Content-Type": "application/json"}
SECOND = 1.0
MEGABYTE = 1 << 20

TEXTS = [
    "'",
    "' OR '1'='1",
    "'; DROP TABLE hubspot_deals.scans; --",
    "$1",
    "%(scan_id)s",
    "{0.__class__}",
    "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "..\\..\\windows",
    "/etc/passwd",
    "file:///etc/passwd",
    "\x00",
    "a\x00b",
    "a\r\nSet-Cookie: x=1",
    "\n",
    "\t",
    " ",
    "",
    ".",
    "..",
    "-",
    "_",
    "%",
    "%25",
    "%2e%2e%2f",
    "\ud7ff",
    "\ufeff",
    "\u202e",
    "\u2028",
    "𝕊𝕔𝕒𝕟",
    "ｓｃａｎ",
    "scan\u0301",
    "😀" * 50,
    "a" * 255,
    "a" * 256,
    "a" * 20_000,
    "null",
    "undefined",
    "true",
    "NaN",
    "-1",
    "0",
    "1e309",
    "9" * 30,
    "0x10",
    "1_000",
    "٣",
    "list",
    "start",
    "status",
    "cancel",
    "result",
    "*",
    "?",
    "#",
    ";",
    "&a=b",
    "a=b",
    "[]",
    "[$ne]",
    "{}",
    '"',
    "\\",
    "`id`",
    "$(id)",
    "|id",
    "(((((a+)+)+)+)+)$",
    "pg_sleep(5)",
    "\u0130",
    "ſcan",
    "\x7f",
    "\x1b[31m",
    "%s%s%s%n",
]
RAW = [b"%ff", b"%c0%ae", b"%ed%a0%80", b"%", b"%zz", b"a%00b", b"%0d%0a", b"%2F", b"%5c"]
"""What is no UTF-8, or badly escaped."""
IDS = [quote(text, safe="").encode() for text in TEXTS] + RAW
PATHS = ["/api/v1/scan/{}/status", "/scan/status/{}", "/api/v1/results/{}/result"]
PARAMETERS = [
    ("/api/v1/scan/list", ("limit", "offset", "organizationId", "cursor")),
    (
        "/api/v1/results/none/result",
        ("tableName", "limit", "snapshot", "cursor", "page", "sort", "filter[amount][gte]"),
    ),
    ("/api/v1/results/none/diff/other", ("limit", "cursor", "format")),
    ("/api/v1/results/none/download/csv", ("columns", "raw", "expand")),
]


@pytest.fixture
def api(start_api, database_url):
    """The API as a process of its own, without rate limits: its address and its process."""
    process, url, log = start_api(
        database_url=database_url,
        encryption_keys=KEYS,
        dagster_url="http://127.0.0.1:1",
        rate_limits="off",
        body_seconds="1",
    )
    wait_until_it_answers(process, url, log)
    yield url, psutil.Process(process.pid)
    assert "Traceback" not in log.read_text()


def exchange(url, request, *, seconds=10.0):
    """Send bytes as they are; return the answer and how long it took."""
    address = urlsplit(url)
    began = time.monotonic()
    with socket.create_connection((address.hostname, address.port), timeout=seconds) as peer:
        with contextlib.suppress(ConnectionError):
            peer.sendall(request)
        return read_answer(peer), time.monotonic() - began


def read_answer(peer):
    answer = http.client.HTTPResponse(peer)
    answer.begin()
    body = answer.read()
    return answer.status, dict(answer.getheaders()), body


def get(url, target):
    return exchange(
        url, b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target
    )


def assert_plain(answer, seconds):
    status, headers, body = answer
    assert seconds < within(SECOND)
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert json.loads(body).get("success", True) is (status < 400)
    assert "Set-Cookie" not in headers
    return status


def test_hostile_ids_are_ids_of_nothing(api):
    url, process = api
    before = process.memory_info().rss
    asked = [path.format(scan_id.decode()).encode() for path in PATHS for scan_id in IDS]
    assert len(asked) >= 150

    statuses = {assert_plain(*get(url, target)) for target in asked}

    # The verb-first status of what is not there is a 200 that says so.
    assert statuses <= {200, 400, 404, 405}
    assert process.memory_info().rss - before < 32 * MEGABYTE


def test_hostile_parameters_are_parameters(api):
    url, process = api
    before = process.memory_info().rss
    asked = [
        b"%b?%b=%b" % (path.encode(), quote(name).encode(), text)
        for path, names in PARAMETERS
        for name in names
        for text in IDS
    ]
    assert len(asked) >= 200

    statuses = {assert_plain(*get(url, target)) for target in asked}

    assert statuses <= {200, 400, 404}
    assert process.memory_info().rss - before < 32 * MEGABYTE


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"config": "' + b"x" * 10 * MEGABYTE + b'"}', 413),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
        (b'{"config": 1, "config": 2}', 400),
        (b'{"config": {"scanId": "a", "scanId": "b"}}', 400),
        (b'{"config": NaN}', 400),
        (b'{"config": -Infinity}', 400),
        (b'{"config": "\xff\xfe"}', 400),
        (b'{"config": "\xed\xa0\x80"}', 400),
        (b'{"config": 1e999}', 400),
        (b"[" + b'{"a":1},' * 120_000 + b"1]", 400),
        (b'{"config":{"filters":{"properties":[' + b"1," * 500_000 + b"1]}}}", 400),
        (b'{"config":{"type":[' + b"1," * 500_000 + b"1]}}", 400),
        (b'{"config": {' + b",".join(b'"k%d":1' % n for n in range(80_000)) + b"}}", 400),
    ],
    ids=[
        "10 MB",
        "100,000 lists",
        "100,000 objects",
        "twice",
        "twice inside",
        "NaN",
        "infinity",
        "not UTF-8",
        "surrogate",
        "too large a number",
        "many objects",
        "many properties",
        "many types",
        "many names",
    ],
)
def test_hostile_bodies_are_refused_at_once(api, body, status):
    url, process = api
    before = process.memory_info().rss

    for _ in range(5):
        began = time.monotonic()
        answer = httpx.post(f"{url}{START}", content=body, headers=JSON, trust_env=False)
        assert time.monotonic() - began < within(SECOND)
        assert answer.status_code == status

    assert process.memory_info().rss - before < 64 * MEGABYTE


def test_a_body_without_end_is_refused_while_it_is_sent(api):
    url, process = api
    before = process.memory_info().rss
    head = (
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        % START.encode()
    )
    address = urlsplit(url)
    began = time.monotonic()
    with socket.create_connection((address.hostname, address.port), timeout=10) as peer:
        peer.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        stop = threading.Event()

        def send():
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    peer.sendall(chunk)

        sender = threading.Thread(target=send)
        sender.start()
        status = None
        with contextlib.suppress(ConnectionError):
            status, _, _ = read_answer(peer)
        seconds = time.monotonic() - began
        stop.set()
        peer.close()
        sender.join()

    # A sender that does not listen may lose the answer with the connection.
    assert status in {413, None}
    assert seconds < within(SECOND)
    assert process.memory_info().rss - before < 32 * MEGABYTE


def test_a_body_that_nobody_reads_does_not_go_on_for_ever(api):
    url, _ = api
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as peer:
        peer.sendall(
            b"GET /api/v1/scan/list HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        assert read_answer(peer)[0] == 200
        for _ in range(200):
            time.sleep(0.1)
            try:
                peer.sendall(b"1\r\nx\r\n")
            except ConnectionError:
                return
    pytest.fail("twenty seconds of a body that nobody reads")


def test_a_slow_body_is_a_408_and_keeps_nobody_waiting(api):
    url, _ = api
    address = urlsplit(url)
    head = (
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        % START.encode()
    )
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(
                socket.create_connection((address.hostname, address.port), timeout=10)
            )
            for _ in range(50)
        ]
        began = time.monotonic()
        for peer in slow:
            peer.sendall(head + b"Content-Length: 1000\r\n\r\n{")

        other, seconds = get(url, b"/api/v1/scan/list")
        assert other[0] == 200
        assert seconds < within(SECOND)

        answers = [read_answer(peer) for peer in slow]
        assert time.monotonic() - began < within(1 + SECOND)
    assert {status for status, _, _ in answers} == {408}
    assert json.loads(answers[0][2])["error_code"] == "BODY_TOO_SLOW"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n"
        + b"".join(b"X-%d: 1\r\n" % n for n in range(101))
        + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Endless: " + b"a" * 1_000_000,
    ],
    ids=["address", "header", "headers", "endless"],
)
def test_a_head_that_is_too_large_is_a_431(api, head):
    url, process = api
    before = process.memory_info().rss

    (status, headers, body), seconds = exchange(url, head)

    assert (status, headers["connection"]) == (431, "close")
    assert json.loads(body)["error_code"] == "HEADERS_TOO_LARGE"
    assert json.loads(body)["request_id"] == headers["x-request-id"]
    assert seconds < within(SECOND)
    assert process.memory_info().rss - before < 16 * MEGABYTE


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"HELLO\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_400_that_says_so(api, request_):
    (status, headers, body), seconds = exchange(api[0], request_)

    assert (status, headers["connection"]) == (400, "close")
    assert json.loads(body)["error_code"] == "BAD_REQUEST"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert seconds < within(SECOND)


def test_memory_is_flat_over_a_thousand_hostile_requests(api):
    url, process = api
    bodies = [b"[" * 50_000, b'{"config": "' + b"x" * MEGABYTE, b'{"a":1,"a":1}', b"\xff" * 10_000]
    with httpx.Client(base_url=url, trust_env=False) as client:

        def attack():
            for turn in range(250):
                body = bodies[turn % len(bodies)]
                assert client.post(START, content=body, headers=JSON).status_code in {400, 413}

        attack()
        before = process.memory_info().rss
        for _ in range(3):
            attack()
        assert process.memory_info().rss - before < 16 * MEGABYTE
