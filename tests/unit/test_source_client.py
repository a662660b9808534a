"""The client against a server that misbehaves: repeated or raised, in time, without the token."""

import asyncio
import json
import socket
import struct
import time
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr

from hubspot_deals.errors import (
    HubSpotAuthenticationError,
    HubSpotBusyError,
    HubSpotDealsError,
    HubSpotRateLimitError,
    HubSpotRequestError,
    HubSpotScopeError,
    HubSpotUnavailableError,
)
from hubspot_deals.source.client import ConnectionOptions, HubSpotClient
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.governor import BURST_REQUESTS
from hubspot_deals.source.retries import next_reset
from tests.pace import within

TOKEN = "canary-token-0123456789"
ENDPOINTS = Endpoints.of_version("v3")
GOOD = {"results": []}
STALL, RESET, CLOSE = "stall", "reset", "close"


def http(status=200, body=GOOD, *, length=None, **headers):
    """One HTTP answer as bytes; `length` is what the header says instead of the truth."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {length or len(content)}"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*head, "Connection: close", "", ""]).encode() + content


def html(status, title="Error"):
    return http(status, f"<html><head><title>{title}</title></head></html>".encode())


def error(status, message, **fields):
    return http(status, {"status": "error", "message": message, **fields})


class Server:
    """Answers request number n with reply n, and from the last one on with that."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.requests = []
        self._serving = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await asyncio.gather(*self._serving)
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self._serving.add(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head.decode())
        reply = self.replies[min(len(self.requests), len(self.replies)) - 1]
        if reply == STALL:
            await reader.read()
        elif reply == RESET:
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        elif reply != CLOSE:
            writer.write(reply)
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def options(server, **changes):
    given = {"retry_time": 0.01, "request_timeout": 2.0, "searches_per_second": 1_000.0}
    return ConnectionOptions(base_url=server.url, api_version="v3", **{**given, **changes})


def client_of(server, **changes):
    return HubSpotClient(SecretStr(TOKEN), options(server, **changes))


async def ask(server, *, endpoint=ENDPOINTS.deals, **changes):
    """The answer or the error of one request, and the client that sent it."""
    async with client_of(server, **changes) as client:
        try:
            if endpoint is ENDPOINTS.search:
                return await client.post(endpoint, {"limit": 1}), client
            return await client.get(endpoint), client
        except HubSpotDealsError as raised:
            return raised, client


def outcome(*replies, **changes):
    async def scenario():
        async with Server(*replies) as server:
            answer, client = await ask(server, **changes)
            return answer, client, server

    return asyncio.run(scenario())


SCOPES = [{"message": "…", "context": {"requiredGranularScopes": ["crm.schemas.deals.read"]}}]
DAILY = {"policyName": "DAILY", "errorType": "RATE_LIMIT"}
# Name: reply, expected class, a part of the message.
ENDINGS = {
    "400": (error(400, "There was a problem"), HubSpotRequestError, "400: There was a problem"),
    "401": (error(401, "expired"), HubSpotAuthenticationError, "401: expired"),
    "403 with scopes": (error(403, "no", errors=SCOPES), HubSpotScopeError, "crm.schemas.deals"),
    "403 bare": (error(403, "no"), HubSpotScopeError, "crm.objects.deals.read"),
    "403 about something else": (
        error(403, "requires one of [leads-read]"),
        HubSpotScopeError,
        "requires one of [leads-read]",
    ),
    "403 HTML": (html(403), HubSpotRequestError, "HTTP 403"),
    "403 odd errors": (error(403, "no", errors=7), HubSpotScopeError, "crm.objects.deals.read"),
    "403 odd context": (
        error(403, "no", errors=["x", {"context": "y"}, {"context": {"requiredScopes": "z"}}]),
        HubSpotScopeError,
        "crm.objects.deals.read",
    ),
    "404 JSON": (error(404, "resource not found"), HubSpotRequestError, "API_VERSION"),
    "404 HTML": (html(404, "Error 404"), HubSpotRequestError, "<title>Error 404</title>"),
    "405": (html(405), HubSpotRequestError, "405"),
    "414": (html(414), HubSpotRequestError, "name fewer"),
    "302": (http(302, b"", Location="http://127.0.0.1:1/"), HubSpotRequestError, "302"),
    "429 daily": (error(429, "your daily limit.", **DAILY), HubSpotRateLimitError, "daily"),
    "429 burst": (error(429, "rolling"), HubSpotRateLimitError, "ten-second"),
    "429 HTML": (html(429), HubSpotRateLimitError, "ten-second"),
    "429 for an hour": (
        http(429, Retry_After="3600"),
        HubSpotRateLimitError,
        "ten-second",
    ),
    "429 for ever": (http(429, Retry_After="9" * 5_000), HubSpotRateLimitError, "ten-second"),
    "423": (error(423, "locked"), HubSpotUnavailableError, "423 (locked)"),
    "477": (http(477, Retry_After="86400"), HubSpotBusyError, "wait 86400 s"),
    "477 bare": (http(477), HubSpotUnavailableError, "477"),
    "500": (error(500, "internal error"), HubSpotUnavailableError, "500 (internal error)"),
    "502": (html(502), HubSpotUnavailableError, "502"),
    "503 until a date": (
        http(503, Retry_After="Wed, 21 Oct 2093 07:28:00 GMT"),
        HubSpotBusyError,
        "wait 86400 s",
    ),
    "503 until a date that is past": (
        http(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
        HubSpotUnavailableError,
        "503",
    ),
    "503 odd wait": (http(503, Retry_After="²"), HubSpotUnavailableError, "503"),
    "504": (html(504), HubSpotUnavailableError, "504"),
    "524": (html(524, "524 Origin Time-out"), HubSpotUnavailableError, "Origin Time-out"),
    "530": (html(530), HubSpotAuthenticationError, "530"),
    "200 HTML": (html(200, "Maintenance"), HubSpotUnavailableError, "<title>Maintenance"),
    "200 empty": (http(200, b""), HubSpotUnavailableError, "empty body"),
    "200 list": (http(200, []), HubSpotUnavailableError, "JSON list"),
    "200 number": (http(200, 7), HubSpotUnavailableError, "JSON int"),
    "200 null": (http(200, None), HubSpotUnavailableError, "JSON NoneType"),
    "200 binary": (http(200, bytes(range(256))), HubSpotUnavailableError, "without valid JSON"),
    "200 deep": (http(200, b"[" * 200_000), HubSpotUnavailableError, "without valid JSON"),
    "200 NaN": (http(200, b'{"results": NaN}'), HubSpotUnavailableError, "without valid JSON"),
    "cut JSON": (http(200, b'{"results": ['), HubSpotUnavailableError, "without valid JSON"),
    "cut body": (http(200, b"{", length=500), HubSpotUnavailableError, "ClientPayloadError"),
    "short length": (http(200, length=3), HubSpotUnavailableError, "Data after"),
    "not gzip": (
        http(200, b"plain", Content_Encoding="gzip"),
        HubSpotUnavailableError,
        "did not answer",
    ),
    "not HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", HubSpotUnavailableError, "did not answer"),
    "reset": (RESET, HubSpotUnavailableError, "Error"),
    "closed": (CLOSE, HubSpotUnavailableError, "Disconnected"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_an_answer_that_stays_bad_is_raised_as_what_it_is(name):
    reply, kind, part = ENDINGS[name]
    began = time.monotonic()
    raised, _, _ = outcome(reply)
    assert type(raised) is kind
    assert part in str(raised)
    assert "/crm/v3/objects/deals" in str(raised)
    assert len(str(raised)) < 800
    assert str(raised).isprintable()
    assert time.monotonic() - began < within(1.5)


def test_a_stalled_socket_is_given_up_after_its_time():
    began = time.monotonic()
    raised, client, _ = outcome(STALL, request_timeout=0.15, retry_time=0.1)
    assert type(raised) is HubSpotUnavailableError
    assert "Timeout" in str(raised)
    assert client.counts.requests == 1
    assert time.monotonic() - began < within(1)


def test_a_server_that_is_not_there_is_unavailable():
    server = Server()
    server.url = "http://127.0.0.1:1"
    raised, _ = asyncio.run(ask(server))
    assert type(raised) is HubSpotUnavailableError


ECHOES = {
    "message 400": error(400, f"Bearer {TOKEN} is odd"),
    "message 401": error(401, f"The token {TOKEN} expired"),
    "message 500": error(500, f"{TOKEN}"),
    "HTML 404": html(404, TOKEN),
    "HTML 200": html(200, TOKEN),
    "HTML 530": html(530, TOKEN),
    "scopes": error(403, "no", errors=[{"context": {"requiredScopes": [TOKEN]}}]),
    "at the cut": error(400, "x" * 290 + TOKEN),
    "at the cut of a page": http(502, b" " * 9_990 + TOKEN.encode()),
    "status line": f"HTTP/1.1 {TOKEN} {TOKEN}\r\n\r\n".encode(),
    "header": f"HTTP/1.1 200 OK\r\n{TOKEN}\r\n\r\n".encode(),
    "location": http(302, TOKEN.encode(), Location=f"http://127.0.0.1:1/{TOKEN}"),
}


@pytest.mark.parametrize("name", ECHOES)
def test_the_token_is_in_no_error_even_when_the_server_echoes_it(name):
    raised, _, _ = outcome(ECHOES[name])
    shown = "".join(traceback.format_exception(raised))
    assert isinstance(raised, HubSpotDealsError)
    assert "canary" not in shown


def test_a_redirect_is_not_followed_so_the_token_stays_here():
    async def scenario():
        async with (
            Server(http()) as elsewhere,
            Server(http(307, b"", Location=elsewhere.url)) as server,
        ):
            raised, _ = await ask(server)
            return raised, server.requests, elsewhere.requests

    raised, asked, followed = asyncio.run(scenario())
    assert type(raised) is HubSpotRequestError
    assert f"Authorization: Bearer {TOKEN}" in asked[0]
    assert (len(asked), followed) == (1, [])


def test_requests_are_repeated_until_the_fault_has_passed():
    """All at once, because refusals and locks ask for a second or two each."""
    passing = {
        "500": [error(500, "internal")] * 2,
        "502": [html(502)],
        "HTML with 200": [html(200)],
        "list": [http(200, [])],
        "cut": [http(200, b"{", length=9)],
        "stall": [STALL],
        "locked": [error(423, "locked")],
        "migrating": [http(477, Retry_After="1")],
        "burst": [error(429, "rolling")],
        "told to wait": [http(429, Retry_After="1")],
    }

    async def scenario(replies):
        async with Server(*replies, http()) as server:
            answer, client = await ask(server, retry_time=10, request_timeout=0.3)
            return answer, client.counts.requests, client.counts.retries

    async def together():
        return await asyncio.gather(*(scenario(replies) for replies in passing.values()))

    for name, result in zip(passing, asyncio.run(together()), strict=True):
        faults = len(passing[name])
        assert result == (GOOD, faults + 1, faults), name


@pytest.mark.parametrize("fault", [RESET, CLOSE])
def test_a_connection_that_breaks_off_is_opened_again(fault):
    # The library below repeats a request once by itself before it tells the client.
    answer, client, server = outcome(fault, fault, http(), retry_time=5)
    assert answer == GOOD
    assert (len(server.requests), client.counts.retries) == (3, 1)


def test_a_refused_search_is_asked_again_after_a_second():
    answer, client, _ = outcome(
        error(429, "secondly"), http(), endpoint=ENDPOINTS.search, retry_time=5
    )
    assert answer == GOOD
    assert client.counts.requests == 2


def test_permanent_faults_and_the_daily_limit_are_not_repeated():
    for name in ("400", "401", "403 bare", "404 HTML", "414", "302", "429 daily", "530"):
        _, client, server = outcome(ENDINGS[name][0], retry_time=30)
        assert (client.counts.requests, len(server.requests)) == (1, 1), name
        assert client.counts.retries == 0


def test_waiting_longer_than_allowed_is_not_begun():
    began = time.monotonic()
    raised, client, _ = outcome(http(503, Retry_After="3600"), retry_time=30)
    assert "wait 3600 s" in str(raised)
    assert 3_590 < (raised.free_at - datetime.now(UTC)).total_seconds() <= 3_600
    assert client.counts.requests == 1
    assert time.monotonic() - began < within(1.5)


@pytest.mark.parametrize("status", [423, 429, 477, 503])
def test_waiting_past_the_time_that_is_left_is_not_begun_either(status):
    began = time.monotonic()
    replies = [http(status, Retry_After="1"), http(status, Retry_After="2")]
    raised, client, _ = outcome(*replies, http(), retry_time=2.5)
    assert isinstance(raised, HubSpotUnavailableError | HubSpotRateLimitError)
    assert getattr(raised, "free_at", None) is None
    assert client.counts.requests == 2
    assert time.monotonic() - began < within(2.5)


def test_a_budget_that_another_request_closed_counts_as_waiting_too():
    async def scenario():
        async with Server(html(502)) as server, client_of(server, retry_time=1) as client:
            client.governor.close(ENDPOINTS.deals.budget, 0.5)
            began = time.monotonic()
            with pytest.raises(HubSpotUnavailableError):
                await client.get(ENDPOINTS.deals)
            return time.monotonic() - began

    assert 0.5 < asyncio.run(scenario()) < 1.5


def test_the_daily_limit_is_free_again_at_the_accounts_midnight_or_when_hubspot_says():
    zone = ZoneInfo("US/Eastern")
    told = http(429, {"message": "your daily limit."}, Retry_After="7200")

    async def ask_twice():
        async with Server(ENDINGS["429 daily"][0], told) as server, client_of(server) as client:
            client.time_zone = zone
            moments = []
            for _ in range(2):
                with pytest.raises(HubSpotRateLimitError, match="its daily limit") as raised:
                    await client.get(ENDPOINTS.deals)
                moments.append(raised.value.free_at)
            return moments

    at_midnight, when_told = asyncio.run(ask_twice())
    assert 0 <= (at_midnight - next_reset(datetime.now(UTC), zone)).total_seconds() <= 60
    assert 7_190 < (when_told - datetime.now(UTC)).total_seconds() <= 7_200


def test_a_token_that_worked_before_is_tried_once_more():
    rejected = error(401, "expired")

    async def scenario(*replies):
        async with (
            Server(http(), *replies) as server,
            client_of(server, retry_time=10) as client,
        ):
            await client.get(ENDPOINTS.deals)
            try:
                return await client.get(ENDPOINTS.deals), client.counts.requests
            except HubSpotDealsError as raised:
                return type(raised), client.counts.requests

    assert asyncio.run(scenario(rejected, http())) == (GOOD, 3)
    assert asyncio.run(scenario(html(502), rejected, html(502), http())) == (GOOD, 5)
    assert asyncio.run(scenario(rejected)) == (HubSpotAuthenticationError, 3)


def test_lone_surrogates_become_replacement_characters_and_pairs_stay():
    body = b'{"results": [{"cut": "a\\ud83d", "whole": "\\ud83d\\ude00", "slash": "\\\\ud83d"}]}'
    answer, _, _ = outcome(http(200, body))
    assert answer == {"results": [{"cut": "a\ufffd", "whole": "😀", "slash": "\\ud83d"}]}


def test_the_burst_limit_is_taken_from_the_headers():
    _, client, _ = outcome(http(200, GOOD, X_HubSpot_RateLimit_Max="250"))
    assert client.governor._gates["ten-second"].limit == 250
    _, client, _ = outcome(http(200, GOOD, X_HubSpot_RateLimit_Max="²"))
    assert client.governor._gates["ten-second"].limit == BURST_REQUESTS
