"""HTTP to HubSpot: authorization, pacing, retries, and the one place where answers become errors.

When a request is repeated is decided in `retries`. Nothing here knows what a deal is.
"""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from pydantic import SecretStr

from hubspot_deals.errors import (
    HubSpotAuthenticationError,
    HubSpotRateLimitError,
    HubSpotRequestError,
    HubSpotScopeError,
)
from hubspot_deals.settings import HubSpotSettings
from hubspot_deals.source.endpoints import Endpoint
from hubspot_deals.source.governor import SEARCHES_PER_SECOND, Budget, Governor, Pace
from hubspot_deals.source.retries import (
    REFUSED,
    REJECTED,
    REPEATED,
    RepeatableAnswer,
    asked_wait,
    attempts,
    day_is_over,
    final_error,
)

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_ANSWER_CHARACTERS: Final = 300
_LOOKED_AT: Final = 10_000
"""Characters of an unreadable answer that its excerpt is made from."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class RequestCounts:
    """What a reader has asked HubSpot for so far."""

    requests: int = 0
    retries: int = 0
    answers: Counter[Budget] = field(default_factory=Counter)
    seconds: dict[Budget, float] = field(default_factory=lambda: dict.fromkeys(Budget, 0.0))
    """What HubSpot took for all answers of a budget."""

    def mean_seconds(self, budget: Budget) -> float:
        """Return what an answer of a budget took on average; 0 before the first."""
        return self.seconds[budget] / max(1, self.answers[budget])


@dataclass(slots=True)
class _Request:
    """One request, which may be sent several times."""

    method: str
    endpoint: Endpoint
    params: Mapping[str, str] | None
    body: bytes | None = None
    is_doubted: bool = False
    """Whether a rejection of the token was already taken for a mistake."""

    @property
    def name(self) -> str:
        return f"{self.method} {self.endpoint.path}"


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """How to reach HubSpot. Times in seconds."""

    base_url: str = "https://api.hubapi.com"
    api_version: str = "2026-03"
    request_timeout: float = 30.0
    retry_time: float = 300.0
    searches_per_second: float = SEARCHES_PER_SECOND
    share: float = 1.0
    """The part of HubSpot's budgets that is used at most."""

    @classmethod
    def of(cls, settings: HubSpotSettings, *, patience: float = inf) -> "ConnectionOptions":
        """Return what settings say; nothing is waited for longer than `patience` seconds."""
        return cls(
            base_url=str(settings.hubspot_url),
            api_version=settings.hubspot_api_version,
            request_timeout=min(patience, settings.request_timeout_seconds),
            retry_time=min(patience, settings.retry_seconds),
            searches_per_second=settings.searches_per_second,
            share=settings.hubspot_share,
        )


class HubSpotClient:
    """Sends requests of one access token; use it as an async context manager."""

    def __init__(
        self, token: SecretStr, options: ConnectionOptions, pace: Pace | None = None
    ) -> None:
        """`pace` is shared with every other worker that may use this token or account."""
        self.token = token
        self._options = options
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None
        digest = hashlib.sha256(token.get_secret_value().encode()).hexdigest()
        self.governor = Governor(
            options.searches_per_second,
            pace=pace,
            app=f"app {digest[:16]}",
            share=options.share,
        )
        self.counts = RequestCounts()
        self.time_zone: ZoneInfo | None = None
        """The account's own, at whose midnight the daily limit ends; None until it is known."""
        self._token_has_worked = False
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Return the time by HubSpot's clock, at most some seconds early.

        Times of change are HubSpot's, so what is compared with them must not be of another clock.
        Before the first answer it is this machine's.
        """
        return datetime.now(UTC) + self._ahead

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(
            total=4 * self._options.request_timeout,
            sock_connect=self._options.request_timeout,
            sock_read=self._options.request_timeout,
        )
        self._session = aiohttp.ClientSession(
            headers={
                "Authorization": f"Bearer {self.token.get_secret_value()}",
                "Accept": "application/json",
            },
            timeout=timeout,
        )
        self._proxy = _proxy_of(self._options.base_url)
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
        return await self._carry_out(_Request("GET", endpoint, params))

    async def post(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a JSON object and return the answer's. For reads only: it is repeated on faults."""
        return await self._carry_out(_Request("POST", endpoint, params, orjson.dumps(body)))

    async def _carry_out(self, request: _Request) -> dict[str, Any]:
        """Send a request until an answer is good, as long as the retry policy allows."""
        retry_time, budget = self._options.retry_time, request.endpoint.budget
        began = time.monotonic()
        try:
            async for attempt in attempts(retry_time, lambda: self.governor.closed_for(budget)):
                with attempt:
                    self.counts.retries += attempt.retry_state.attempt_number > 1
                    return await self._send(request)
        except RepeatableAnswer as answer:
            seconds = time.monotonic() - began
            # Not chained: a network error quotes the server, and what it quotes may be the token.
            raise final_error(
                request.name, budget, answer, seconds=seconds, retry_time=retry_time
            ) from None
        raise AssertionError(request.name)

    async def _send(self, request: _Request) -> dict[str, Any]:
        if self._session is None:
            msg = "HubSpotClient must be entered before it sends requests"
            raise RuntimeError(msg)
        await self.governor.admit(request.endpoint.budget)
        self.counts.requests += 1
        began = time.monotonic()
        has_body = request.body is not None
        try:
            async with self._session.request(
                request.method,
                self._options.base_url.rstrip("/") + request.endpoint.path,
                params=request.params,
                data=request.body,
                headers={"Content-Type": "application/json"} if has_body else None,
                # A redirect would carry the token to wherever the answer says.
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RepeatableAnswer(self._quote(f"{type(error).__name__}: {error}")) from error
        self.counts.answers[request.endpoint.budget] += 1
        self.counts.seconds[request.endpoint.budget] += time.monotonic() - began
        self.governor.observe(response.headers)
        self._observe_time(response.headers.get("Date", ""))
        if 200 <= response.status < 300:  # noqa: PLR2004
            self._token_has_worked = True
            return self._parse(content)
        raise self._failed(request, response, content)

    def _observe_time(self, date: str) -> None:
        try:
            moment = parsedate_to_datetime(date)
        except ValueError:
            return
        self._ahead = moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)

    def _parse(self, content: bytes) -> dict[str, Any]:
        """HTML or cut JSON with status 200 comes from the network edge; it passes."""
        try:
            answer = _load_json(content)
        except (ValueError, RecursionError) as error:
            what = f"HTTP 200 without valid JSON ({self._quote(content.decode(errors='replace'))})"
            raise RepeatableAnswer(what) from error
        if not isinstance(answer, dict):
            what = f"HTTP 200 with a JSON {type(answer).__name__}"
            raise RepeatableAnswer(what)
        return answer

    def _failed(
        self, request: _Request, response: aiohttp.ClientResponse, content: bytes
    ) -> Exception:
        """Return the exception for an unsuccessful answer."""
        status, fields = response.status, _error_fields(content)
        answer = self._quote(str(fields.get("message") or content.decode(errors="replace")))
        if status == 429:  # noqa: PLR2004
            return self._refused(request, response, fields)
        if status in REPEATED:
            asked = asked_wait(response.headers)
            what = f"HTTP {status} ({answer})" + (f", wait {asked:.0f} s" if asked else "")
            return RepeatableAnswer(what, wait=asked or REPEATED[status], asked=asked)
        if status in REJECTED:
            return self._rejected(request, status, answer)
        # Without a HubSpot body a 403 comes from something in between, such as a firewall.
        if status == 403 and fields:  # noqa: PLR2004
            scopes = [self._quote(scope) for scope in _missing_scopes(fields)]
            return HubSpotScopeError(request.name, scopes or [request.endpoint.scope], answer)
        return HubSpotRequestError(request.name, status, answer, _ADVICE.get(status, ""))

    def _rejected(self, request: _Request, status: int, answer: str) -> Exception:
        error = HubSpotAuthenticationError(request.name, status, answer)
        if request.is_doubted or not self._token_has_worked:
            return error
        request.is_doubted = True
        return RepeatableAnswer(answer, error=error)

    def _refused(
        self, request: _Request, response: aiohttp.ClientResponse, fields: Mapping[str, Any]
    ) -> Exception:
        """A refusal closes the whole budget, so that no other request runs into it as well."""
        if fields.get("policyName") == "DAILY" or "daily" in str(fields.get("message", "")).lower():
            free_at = day_is_over(response.headers, self.time_zone)
            return HubSpotRateLimitError(request.name, "daily", free_at)
        budget = request.endpoint.budget
        asked = asked_wait(response.headers)
        wait = asked or REFUSED[budget]
        if wait > self._options.retry_time:
            return RepeatableAnswer("HTTP 429", wait=wait, asked=asked, refused=True)
        # The governor does the waiting, so that it is counted as such.
        self.governor.close(budget, wait)
        return RepeatableAnswer("HTTP 429", wait=0, asked=asked, refused=True)

    def _quote(self, text: str) -> str:
        """Return the start of what a server said, fit for an error that is stored and shown.

        A server may echo the token, so it is taken out, before a cut could leave a part of it.
        PostgreSQL holds no NUL and no lone surrogate; a page of HTML is readable on one line.
        """
        text = text.replace(self.token.get_secret_value(), "[access token]")[:_LOOKED_AT]
        readable = "".join(letter if letter.isprintable() else " " for letter in text)
        return " ".join(readable.split())[:_ANSWER_CHARACTERS] or "empty body"


_ADVICE: Final = {
    404: "Check HUBSPOT_DEALS_HUBSPOT_URL and HUBSPOT_DEALS_HUBSPOT_API_VERSION.",
    414: "Too many properties for one address; name fewer of them.",
}


def _proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for an address.

    Once, because aiohttp's `trust_env` reads the whole environment and ~/.netrc for each request.
    """
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)


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
