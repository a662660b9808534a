"""HTTP to HubSpot: authorization, pacing, retries, and the one place where answers become errors.

One retry policy for all requests, bounded in total time. Nothing here knows what a deal is.
"""

import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson
from pydantic import SecretStr
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_before_delay

from hubspot_deals.errors import (
    HubSpotAuthenticationError,
    HubSpotDealsError,
    HubSpotRateLimitError,
    HubSpotRequestError,
    HubSpotScopeError,
    HubSpotUnavailableError,
)
from hubspot_deals.source.endpoints import Endpoint
from hubspot_deals.source.governor import SEARCHES_PER_SECOND, Budget, Governor

# 423 locked, 477 portal migration, 520-526 and 530 come from the network edge as HTML.
_RETRIED_STATUSES: Final = frozenset({408, 423, 477, 500, 502, 503, 504, *range(520, 527)})
_EDGE_REJECTED: Final = 530
"""What a malformed token gets from the network edge before HubSpot sees it."""
_SHORT_PAUSE, _LONG_PAUSE = 0.2, 20.0
_SEARCH_PAUSE, _BURST_PAUSE = 1.0, 2.0
_USUAL_PAUSES: Final = {423: 2.0, 477: 2.0}
_ANSWER_CHARACTERS: Final = 300
_LOOKED_AT: Final = 10_000
"""Characters of an unreadable answer that its excerpt is made from."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class RequestCounts:
    """What a reader has asked HubSpot for so far."""

    requests: int = 0
    retries: int = 0


class _RetryableAnswer(Exception):  # noqa: N818 - never leaves this module
    """An answer that may be better next time, the wait it asks for, and the error if it is not."""

    def __init__(self, what: str, *, wait: float | None = None, refused: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.wait = wait
        self.refused = refused


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """How to reach HubSpot. Times in seconds."""

    base_url: str = "https://api.hubapi.com"
    api_version: str = "2026-03"
    request_timeout: float = 30.0
    retry_time: float = 300.0
    searches_per_second: float = SEARCHES_PER_SECOND


class HubSpotClient:
    """Sends requests of one access token; use it as an async context manager."""

    def __init__(self, token: SecretStr, options: ConnectionOptions) -> None:
        self._token = token
        self._options = options
        self._session: aiohttp.ClientSession | None = None
        self.governor = Governor(options.searches_per_second)
        self.counts = RequestCounts()

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(
            total=4 * self._options.request_timeout,
            sock_connect=self._options.request_timeout,
            sock_read=self._options.request_timeout,
        )
        self._session = aiohttp.ClientSession(
            headers={
                "Authorization": f"Bearer {self._token.get_secret_value()}",
                "Accept": "application/json",
            },
            timeout=timeout,
            trust_env=True,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(
        self, endpoint: Endpoint, params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the JSON object at a path."""
        return await self._request("GET", endpoint, params=params)

    async def post(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a JSON object and return the answer's. For reads only: it is repeated on faults."""
        return await self._request("POST", endpoint, params=params, body=orjson.dumps(body))

    async def _request(
        self,
        method: str,
        endpoint: Endpoint,
        *,
        params: Mapping[str, str] | None,
        body: bytes | None = None,
    ) -> dict[str, Any]:
        name = f"{method} {endpoint.path}"
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_RetryableAnswer),
            stop=stop_before_delay(self._options.retry_time),
            wait=_pause,
            reraise=True,
        )
        began = time.monotonic()
        try:
            async for attempt in retrying:
                with attempt:
                    self.counts.retries += attempt.retry_state.attempt_number > 1
                    return await self._send(method, endpoint, name, params=params, body=body)
        except _RetryableAnswer as answer:
            # Not chained: a network error quotes the server, and what it quotes may be the token.
            raise self._gave_up(name, endpoint, answer, time.monotonic() - began) from None
        raise AssertionError(name)

    async def _send(
        self,
        method: str,
        endpoint: Endpoint,
        name: str,
        *,
        params: Mapping[str, str] | None,
        body: bytes | None,
    ) -> dict[str, Any]:
        if self._session is None:
            msg = "HubSpotClient must be entered before it sends requests"
            raise RuntimeError(msg)
        await self.governor.admit(endpoint.budget)
        self.counts.requests += 1
        try:
            async with self._session.request(
                method,
                self._options.base_url.rstrip("/") + endpoint.path,
                params=params,
                data=body,
                headers={"Content-Type": "application/json"} if body is not None else None,
                # A redirect would carry the token to wherever the answer says.
                allow_redirects=False,
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _RetryableAnswer(self._quote(f"{type(error).__name__}: {error}")) from error
        self.governor.observe(response.headers)
        if 200 <= response.status < 300:  # noqa: PLR2004
            return self._parse(content)
        raise self._failed(name, endpoint, response, content)

    def _parse(self, content: bytes) -> dict[str, Any]:
        """HTML or cut JSON with status 200 comes from the network edge; it passes."""
        try:
            answer = _load_json(content)
        except (ValueError, RecursionError) as error:
            what = f"HTTP 200 without valid JSON ({self._quote(content.decode(errors='replace'))})"
            raise _RetryableAnswer(what) from error
        if not isinstance(answer, dict):
            what = f"HTTP 200 with a JSON {type(answer).__name__}"
            raise _RetryableAnswer(what)
        return answer

    def _failed(
        self, name: str, endpoint: Endpoint, response: aiohttp.ClientResponse, content: bytes
    ) -> Exception:
        """Return the exception for an unsuccessful answer."""
        status, fields = response.status, _error_fields(content)
        answer = self._quote(str(fields.get("message") or content.decode(errors="replace")))
        if status == 429:  # noqa: PLR2004
            return self._refused(name, endpoint, response, fields)
        if status in _RETRIED_STATUSES:
            asked = _retry_after(response)
            what = f"HTTP {status} ({answer})" + (f", wait {asked:.0f} s" if asked else "")
            return _RetryableAnswer(what, wait=asked or _USUAL_PAUSES.get(status))
        if status in {401, _EDGE_REJECTED}:
            return HubSpotAuthenticationError(name, status, answer)
        # Without a HubSpot body a 403 comes from something in between, such as a firewall.
        if status == 403 and fields:  # noqa: PLR2004
            scopes = [self._quote(scope) for scope in _missing_scopes(fields)]
            return HubSpotScopeError(name, scopes or [endpoint.scope], answer)
        return HubSpotRequestError(name, status, answer, _ADVICE.get(status, ""))

    def _refused(
        self,
        name: str,
        endpoint: Endpoint,
        response: aiohttp.ClientResponse,
        fields: Mapping[str, Any],
    ) -> Exception:
        """A refusal closes the whole budget, so that no other request runs into it as well."""
        if fields.get("policyName") == "DAILY" or "daily" in str(fields.get("message", "")).lower():
            return HubSpotRateLimitError(name, "daily", "free again at the account's midnight")
        usual = _SEARCH_PAUSE if endpoint.budget is Budget.SEARCH else _BURST_PAUSE
        wait = _retry_after(response) or usual
        if wait > self._options.retry_time:
            return HubSpotRateLimitError(name, endpoint.budget.value, f"free in {wait:.0f} s")
        # The governor does the waiting, so that it is counted as such.
        self.governor.close(endpoint.budget, wait)
        return _RetryableAnswer("HTTP 429", wait=0, refused=True)

    def _gave_up(
        self, name: str, endpoint: Endpoint, answer: _RetryableAnswer, seconds: float
    ) -> HubSpotDealsError:
        if answer.refused:
            return HubSpotRateLimitError(
                name, endpoint.budget.value, f"still not free after {seconds:.0f} s"
            )
        return HubSpotUnavailableError(name, answer.what, seconds)

    def _quote(self, text: str) -> str:
        """Return the start of what a server said, fit for an error that is stored and shown.

        A server may echo the token, so it is taken out, before a cut could leave a part of it.
        PostgreSQL holds no NUL and no lone surrogate; a page of HTML is readable on one line.
        """
        text = text.replace(self._token.get_secret_value(), "[access token]")[:_LOOKED_AT]
        readable = "".join(letter if letter.isprintable() else " " for letter in text)
        return " ".join(readable.split())[:_ANSWER_CHARACTERS] or "empty body"


_ADVICE: Final = {
    404: "Check HUBSPOT_DEALS_HUBSPOT_URL and HUBSPOT_DEALS_HUBSPOT_API_VERSION.",
    414: "Too many properties for one address; name fewer of them.",
}


def _pause(state: RetryCallState) -> float:
    """What the answer asked for, or else an exponential pause with full jitter."""
    answer = state.outcome.exception() if state.outcome else None
    if isinstance(answer, _RetryableAnswer) and answer.wait is not None:
        return answer.wait
    ceiling = min(_LONG_PAUSE, _SHORT_PAUSE * 2.0**state.attempt_number)
    return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - spreads retries, guards nothing


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds. HubSpot sends the header rarely, and then as whole seconds."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdecimal() else None


def _load_json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        # orjson refuses lone surrogates, which a cut emoji leaves in a text; the standard
        # library reads them, and U+FFFD takes their place as in every other encoder.
        text = json.dumps(json.loads(content), ensure_ascii=False)
        return orjson.loads(_SURROGATE.sub("\ufffd", text))


def _error_fields(content: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _missing_scopes(fields: Mapping[str, Any]) -> list[str]:
    """Return the scopes that a 403 names; any one of them would open the endpoint."""
    scopes: list[str] = []
    errors = fields.get("errors")
    for error in errors if isinstance(errors, list) else []:
        context = error.get("context") if isinstance(error, dict) else None
        named = context if isinstance(context, dict) else {}
        required = named.get("requiredGranularScopes") or named.get("requiredScopes")
        scopes += required if isinstance(required, list) else []
    return [str(scope) for scope in scopes]
