"""The public keys of whoever issues tokens (JWKS, RFC 7517), from an address or a file."""

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
import orjson

from api.access.open_mode import is_loopback
from api.errors import KeySetUnavailableError
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.settings import PREFIX

logger = logging.getLogger(__name__)

_ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"}
)
"""What a key may be for. None of them works with a secret."""

_LEAST_RSA_BITS: Final = 2_048
_MOST_KEYS: Final = 100
_MOST_BYTES: Final = 262_144
_FETCH_SECONDS: Final = 5.0
_FRESH_SECONDS: Final = 600.0
_LAST_SECONDS: Final = 3_600.0
"""How long keys are used while new ones cannot be had."""
_PAUSE_SECONDS: Final = 30.0
"""Between two attempts, however many tokens name unknown keys."""


class KeySet:
    """The keys as they were fetched last, fetched anew in time and when a new one is named."""

    def __init__(self, source: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Take an https address (http on this machine) or a path; raises ConfigurationError."""
        self._url = source if "://" in source else None
        self._path = Path(source)
        self._transport = transport
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = -_LAST_SECONDS
        self._turn = asyncio.Lock()
        if self._url is not None:
            _check_url(self._url)

    async def find(self, kid: str | None) -> jwt.PyJWK | None:
        """Return the key of this name; without one the only key there is.

        Raises KeySetUnavailableError while there are no keys that may be used.
        """
        if self._is_due(kid):
            async with self._turn:
                if self._is_due(kid):
                    await self._renew()
        if time.monotonic() - self._fetched_at > _LAST_SECONDS:
            raise KeySetUnavailableError
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    def _is_due(self, kid: str | None) -> bool:
        now = time.monotonic()
        is_wanted = now - self._fetched_at > _FRESH_SECONDS or (
            kid is not None and kid not in self._keys
        )
        return is_wanted and now - self._tried_at > _PAUSE_SECONDS

    async def _renew(self) -> None:
        self._tried_at = time.monotonic()
        try:
            text = await (self._fetch() if self._url else asyncio.to_thread(self._read))
            self._keys = dict(_usable(orjson.loads(text)))
            self._fetched_at = time.monotonic()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, TimeoutError) as error:
            logger.warning(
                "The keys of %sJWT_KEY_SET cannot be read: %s", PREFIX, type(error).__name__
            )

    async def _fetch(self) -> bytes:
        # No redirects: where the keys come from is what everything else rests on.
        received = bytearray()
        async with (
            asyncio.timeout(_FETCH_SECONDS),
            httpx.AsyncClient(transport=self._transport, timeout=_FETCH_SECONDS) as client,
            client.stream("GET", self._url or "") as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                msg = f"HTTP {answer.status_code}"
                raise ValueError(msg)
            async for piece in answer.aiter_bytes():
                received += piece
                if len(received) > _MOST_BYTES:
                    msg = "too large"
                    raise ValueError(msg)
        return bytes(received)

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            return file.read(_MOST_BYTES)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
    if not is_safe or not parts.hostname or parts.username is not None:
        msg = f"{PREFIX}JWT_KEY_SET must be an https address without credentials, or a path."
        raise ConfigurationError(msg)


def _usable(document: Any) -> Iterator[tuple[str | None, jwt.PyJWK]]:
    """Yield the keys that tokens may be signed with; raises ValueError for what is no key set."""
    known = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(known, list):
        msg = "no key set"
        raise ValueError(msg)  # noqa: TRY004 - of what was fetched, not of an argument
    for entry in known[:_MOST_KEYS]:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK.from_dict(entry)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        # PyJWT makes secrets of `oct` keys, and of private ones private keys: neither is public.
        if key.algorithm_name in _ALGORITHMS and "d" not in entry and _is_long_enough(key):
            kid = key.key_id
            yield (kid if isinstance(kid, str) else None), key


def _is_long_enough(key: jwt.PyJWK) -> bool:
    return int(getattr(key.key, "key_size", _LEAST_RSA_BITS)) >= (
        _LEAST_RSA_BITS if key.key_type == "RSA" else 0
    )
