"""Finds out from whom a request is: by API key, by JWT, or in open mode by where it comes from."""

import asyncio
import time
from collections import OrderedDict
from typing import Final

from psycopg_pool import PoolTimeout
from starlette.datastructures import Headers
from starlette.types import Scope

from api.access.actor import ANONYMOUS, OPEN, Actor
from api.access.open_mode import check_mode, is_from_this_machine
from api.access.tokens import TokenReader, build_token_reader
from api.database import ConnectionPool, read
from api.errors import ForbiddenError, UnauthenticatedError
from api.settings import ApiSettings
from hubspot_deals.contract import AccessLevel
from hubspot_deals.warehouse.api_keys import PREFIX, GrantedKey, find_key, split_key

KEY_SECONDS: Final = 5.0
"""How long a process trusts what it knows of a key: a revoked one is refused after that."""

_MOST_KEYS: Final = 1_024
_STRANGERS: Final = 2
"""Lookups at once of keys that this process has not known as valid: anybody can make some up, and
those who have one are not to wait for a connection behind them."""
_TURN_SECONDS: Final = 5
_LONGEST: Final = 8_192
"""Characters of a credential; a longer one is not looked at."""


class Credentials:
    """Reads the credentials of requests; `tokens` is None where no JWT is accepted."""

    def __init__(self, pool: ConnectionPool, tokens: TokenReader | None, *, is_open: bool) -> None:
        self._pool = pool
        self._tokens = tokens
        self._is_open = is_open
        self._known: OrderedDict[tuple[str, bytes], tuple[float, Actor]] = OrderedDict()
        self._strangers = asyncio.Semaphore(_STRANGERS)

    async def identify(self, scope: Scope) -> Actor:
        """Return who calls, ANONYMOUS without a credential.

        Raises UnauthenticatedError for a credential that is not valid, ForbiddenError in open mode
        for a request that was not made on this machine, and what a database raises that is away.
        """
        if self._is_open:
            if not is_from_this_machine(scope):
                raise ForbiddenError.in_open_mode()
            return OPEN
        given = _credential_in(Headers(scope=scope))
        if given is None:
            return ANONYMOUS
        if len(given) <= _LONGEST and given.startswith(PREFIX):
            return await self._of_key(given)
        if len(given) <= _LONGEST and self._tokens is not None:
            return await self._tokens.read(given)
        raise UnauthenticatedError.of_invalid()

    async def _of_key(self, text: str) -> Actor:
        if (parts := split_key(text)) is None:
            raise UnauthenticatedError.of_invalid()
        until, actor = self._known.get(parts, (0.0, ANONYMOUS))
        if time.monotonic() < until:
            return actor
        was_known = self._known.pop(parts, None) is not None
        began = time.monotonic()
        key = await (self._find(parts) if was_known else self._find_stranger(parts))
        if key is None:
            raise UnauthenticatedError.of_invalid()
        own = None if key.organizations is None else frozenset(key.organizations)
        actor = Actor(f"key:{key.key_id}", own, AccessLevel(key.level))
        left = KEY_SECONDS if key.seconds_left is None else min(KEY_SECONDS, key.seconds_left)
        self._known[parts] = (began + left, actor)
        if len(self._known) > _MOST_KEYS:
            self._known.popitem(last=False)
        return actor

    async def _find(self, parts: tuple[str, bytes]) -> GrantedKey | None:
        return await read(self._pool, lambda connection: find_key(connection, *parts))

    async def _find_stranger(self, parts: tuple[str, bytes]) -> GrantedKey | None:
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                await self._strangers.acquire()
        except TimeoutError:
            msg = "too many unknown keys are being looked up"
            raise PoolTimeout(msg) from None
        try:
            return await self._find(parts)
        finally:
            self._strangers.release()


def check_access(settings: ApiSettings) -> None:
    """Raise ConfigurationError where callers could not be told apart as the settings want it."""
    check_mode(settings)
    build_token_reader(settings)


def build_credentials(settings: ApiSettings, pool: ConnectionPool) -> Credentials:
    """Build what reads credentials; raises ConfigurationError as `check_access` does."""
    is_open = settings.auth_mode == "open"
    return Credentials(pool, build_token_reader(settings), is_open=is_open)


def _credential_in(headers: Headers) -> str | None:
    """Return the one credential of a request; raises UnauthenticatedError for two of them."""
    given = headers.getlist("authorization")
    keys = headers.getlist("x-api-key")
    if not given and not keys:
        return None
    if len(given) + len(keys) > 1:
        raise UnauthenticatedError.of_invalid()
    if keys:
        return keys[0].strip()
    scheme, _, credential = given[0].strip().partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthenticatedError.of_invalid()
    return credential.strip()
