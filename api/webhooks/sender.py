"""Sends one event to one URL, signed as Standard Webhooks says, and tells what came back.

The receiver is nobody's friend: it may be slow, endless, or lead elsewhere. One attempt takes 15
seconds at most and keeps 1,000 bytes of the answer; no redirect is followed, no proxy asked.
"""

import asyncio
import email.utils
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import orjson
from pydantic import SecretStr
from standardwebhooks import Webhook as Signer
from yarl import URL

from api.schemas import format_timestamp
from api.webhooks.addresses import AddressGuard, AddressRefusedError, UnreachableHostError
from hubspot_deals import redaction
from hubspot_deals.warehouse.deliveries import DueDelivery

ATTEMPT_SECONDS: Final = 15
_EXCERPT_SECONDS: Final = 2
"""The status says all; what follows it is only kept for whoever looks for a fault."""
_EXCERPT_BYTES: Final = 1_000
_READ_AHEAD_BYTES: Final = 4_096
_AGENT: Final = "hubspot-deals-webhooks/1"
_WAIT_AND_RETRY: Final = (429, 503)
_SCAN_FAMILY: Final = "scan."
_REMOVED: Final = "scan.removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of sending once; `status` is None where no HTTP answer came."""

    at: datetime
    milliseconds: int
    status: int | None = None
    error: str | None = None
    response: str | None = None
    retry_after: float = 0.0
    """Seconds that the receiver asked for."""

    @property
    def succeeded(self) -> bool:
        """Whether the receiver took the event: any 2xx."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004

    def to_json(self) -> dict[str, Any]:
        """Return what the delivery log keeps."""
        return {
            "at": format_timestamp(self.at),
            "httpStatus": self.status,
            "error": self.error,
            "milliseconds": self.milliseconds,
            "response": self.response,
        }


def build_body(event_type: str, occurred_at: datetime, data: dict[str, Any]) -> bytes:
    """Return the body of an event: type, timestamp, data. It is the same for each attempt."""
    links = _links(event_type, data)
    return orjson.dumps(
        {
            "type": event_type,
            "timestamp": format_timestamp(occurred_at),
            "data": data | ({"links": links} if links else {}),
        }
    )


def sign(
    event_id: str, moment: datetime, body: bytes, secrets: Sequence[SecretStr]
) -> dict[str, str]:
    """Return the headers of Standard Webhooks, with one signature for each secret."""
    text = body.decode()
    signatures = (
        Signer(secret.get_secret_value()).sign(event_id, moment, text) for secret in secrets
    )
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


class Sender:
    """Posts events over connections that the guard has checked, each for one request."""

    def __init__(
        self,
        guard: AddressGuard,
        *,
        trust: ssl.SSLContext | bool = True,
        seconds: float = ATTEMPT_SECONDS,
    ) -> None:
        self._guard = guard
        self._seconds = seconds
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=trust,
            resolver=guard,
            use_dns_cache=False,
            socket_factory=guard.make_socket,
            # The next request looks the name up and checks it anew.
            force_close=True,
        )
        self._http = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": _AGENT, "Content-Type": "application/json"},
            auto_decompress=False,
            read_bufsize=_READ_AHEAD_BYTES,
            trust_env=False,
        )

    async def close(self) -> None:
        """End the connections."""
        await self._http.close()
        await self._guard.close()

    async def send(self, due: DueDelivery, secrets: Sequence[SecretStr]) -> Attempt:
        """Send a delivery once; never raises for what the receiver or its address is like."""
        moment, began = datetime.now(UTC), time.perf_counter()
        status: int | None = None
        wait, error, response = 0.0, None, None
        try:
            url = self._guard.policy.parse(due.url)
            body = build_body(due.type, due.occurred_at, due.data)
            for secret in secrets:
                # The receiver knows it, and may say it back.
                redaction.hide_here(secret)
                redaction.hide_here(SecretStr(secret.get_secret_value().removeprefix("whsec_")))
            headers = sign(due.event_id, moment, body, secrets)
            async with self._http.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
                wait = _retry_after(answer)
                response = redaction.redact(await _read_excerpt(answer))
        except (AddressRefusedError, aiohttp.ClientError, OSError, ValueError) as problem:
            error = None if status is not None else self._explain(problem)
        return Attempt(
            at=moment,
            milliseconds=round((time.perf_counter() - began) * 1000),
            status=status,
            error=error,
            response=response,
            retry_after=wait,
        )

    def _explain(self, problem: Exception) -> str:
        """Say what went wrong, and nothing of what lies behind an address that is refused."""
        match problem:
            case TimeoutError():
                return f"No answer within {self._seconds:g} s"
            case aiohttp.ClientConnectorCertificateError():
                return f"The certificate was not accepted: {problem.certificate_error}"
            case aiohttp.ClientConnectorError():
                is_refused = isinstance(problem, aiohttp.ClientConnectorDNSError) or isinstance(
                    problem.os_error, PermissionError
                )
                return str(UnreachableHostError()) if is_refused else f"No connection: {problem}"
            case AddressRefusedError() | PermissionError():
                return str(problem)
            case _:
                return f"No usable answer ({type(problem).__name__})"


def receiver_of(url: URL) -> str:
    """Return what requests at once are bounded by: host and port."""
    return f"{url.raw_host}:{url.port}"


def _links(event_type: str, data: dict[str, Any]) -> dict[str, str]:
    """Paths of the REST API; its host is the receiver's own knowledge."""
    if not event_type.startswith(_SCAN_FAMILY) or event_type == _REMOVED:
        return {}
    scan = data["scanId"]
    return {"status": f"/api/v1/scan/{scan}/status", "results": f"/api/v1/results/{scan}/tables"}


async def _read_excerpt(answer: aiohttp.ClientResponse) -> str:
    received = bytearray()
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(_EXCERPT_SECONDS):
            while missing := _EXCERPT_BYTES - len(received):
                if not (piece := await answer.content.read(missing)):
                    break
                received += piece
    # PostgreSQL keeps no NUL; what a replacement takes more room for is cut.
    text = bytes(received).decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode()[:_EXCERPT_BYTES].decode(errors="ignore")


def _retry_after(answer: aiohttp.ClientResponse) -> float:
    """Return the seconds that a receiver asks for, as a number or as a date; 0 for none."""
    text = answer.headers.get("Retry-After", "").strip()
    if answer.status not in _WAIT_AND_RETRY or not text:
        return 0.0
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (moment.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds())
