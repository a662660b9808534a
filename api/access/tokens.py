"""Reads JWT bearer tokens: PyJWT checks them, this module says what has to be in them."""

from collections.abc import Mapping
from typing import Any, Final

import jwt

from api.access.actor import Actor
from api.access.key_set import KeySet
from api.errors import UnauthenticatedError
from api.schemas import is_plain_text
from api.settings import ApiSettings
from hubspot_deals.contract import AccessLevel
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.settings import PREFIX

_SHARED: Final = "HS256"
_LEAST_SECRET_BYTES: Final = 32
_LEAST_CHARACTERS: Final = 12
"""Different ones in a secret: a repeated word is long, and no secret."""

_LEEWAY_SECONDS: Final = 30
_REQUIRED: Final = ("exp", "iss", "aud", "sub")
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_REFUSED: Final = frozenset({"crit", "b64", "zip", "jku", "jwk", "x5u", "x5c"})
"""Headers with which a token would bring its own rules or keys."""

_MOST_ORGANIZATIONS: Final = 1_000
_LONGEST_SUBJECT: Final = 200
_ALL: Final = "*"


class TokenReader:
    """Checks tokens against a secret or the issuer's public keys, and reads what they open."""

    def __init__(self, settings: ApiSettings, keys: KeySet | None) -> None:
        self._secret = settings.jwt_secret.get_secret_value().encode()
        self._keys = keys
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._organizations_claim = settings.jwt_organizations_claim
        self._level_claim = settings.jwt_level_claim

    async def read(self, token: str) -> Actor:
        """Return whom a token is of.

        Raises UnauthenticatedError for a token with any fault, KeySetUnavailableError where the
        issuer's keys cannot be had.
        """
        try:
            header = jwt.get_unverified_header(token)
            key, algorithm = await self._key_for(header)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": list(_REQUIRED)},
            )
            return self._actor_of(claims)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            # Not chained: what PyJWT says quotes the token.
            raise UnauthenticatedError.of_invalid() from None

    async def _key_for(self, header: Mapping[str, Any]) -> tuple[bytes | jwt.PyJWK, str]:
        if not _REFUSED.isdisjoint(header) or str(header.get("typ", "JWT")).lower() not in _TYPES:
            raise UnauthenticatedError.of_invalid()
        if self._keys is None:
            return self._secret, _SHARED
        kid = header.get("kid")
        key = await self._keys.find(kid if isinstance(kid, str) else None)
        if key is None:
            raise UnauthenticatedError.of_invalid()
        # The key decides about the algorithm, never the token.
        return key, key.algorithm_name

    def _actor_of(self, claims: Mapping[str, Any]) -> Actor:
        subject = claims["sub"]
        if not is_plain_text(subject) or len(subject) > _LONGEST_SUBJECT:
            raise UnauthenticatedError.of_invalid()
        level = AccessLevel(str(claims.get(self._level_claim)))
        return Actor(f"jwt:{subject}", _organizations(claims.get(self._organizations_claim)), level)


def build_token_reader(settings: ApiSettings) -> TokenReader | None:
    """Build what reads tokens, None where neither secret nor keys are set.

    Raises ConfigurationError for settings that do not fit together, and for a weak secret.
    """
    secret = settings.jwt_secret.get_secret_value()
    if not secret and not settings.jwt_key_set:
        return None
    if secret and settings.jwt_key_set:
        msg = f"Set either {PREFIX}JWT_SECRET or {PREFIX}JWT_KEY_SET: a token has one issuer."
        raise ConfigurationError(msg)
    if not settings.jwt_issuer or not settings.jwt_audience:
        msg = f"JWTs need {PREFIX}JWT_ISSUER and {PREFIX}JWT_AUDIENCE: both are checked."
        raise ConfigurationError(msg)
    if secret and not _is_strong(secret):
        msg = (
            f"{PREFIX}JWT_SECRET is too weak: it takes {_LEAST_SECRET_BYTES} random bytes or more,"
            " such as those of `openssl rand -base64 48`."
        )
        raise ConfigurationError(msg)
    keys = KeySet(settings.jwt_key_set) if settings.jwt_key_set else None
    return TokenReader(settings, keys)


def _is_strong(secret: str) -> bool:
    return len(secret.encode()) >= _LEAST_SECRET_BYTES and len(set(secret)) >= _LEAST_CHARACTERS


def _organizations(claim: object) -> frozenset[str] | None:
    """Read `"*"`, one name, or a list of names; raises ValueError for anything else."""
    if claim == _ALL:
        return None
    names = [claim] if isinstance(claim, str) else claim
    if not isinstance(names, list) or not 0 < len(names) <= _MOST_ORGANIZATIONS:
        msg = "no organizations"
        raise ValueError(msg)
    if not all(isinstance(name, str) and is_plain_text(name) and name != _ALL for name in names):
        msg = "no organization"
        raise ValueError(msg)
    return frozenset(names)
