"""Which tokens the account accepts, what they may read, and which have expired."""

import re
from typing import Final

from hubspot_sandbox.clock import Clock
from hubspot_sandbox.config import ALL_SCOPES, SandboxConfig
from hubspot_sandbox.failures import expired_token, html, no_credentials
from hubspot_sandbox.messages import Reply

_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9._~+/=-]{10,}")
_MALFORMED_STATUS: Final = 530
_OAUTH_LIFE_SECONDS: Final = 1_800


class Tokens:
    """The account's tokens.

    Without configured tokens every well-formed one is accepted, and words inside it say what is
    wrong with it: `invalid`, `expired`, `noscope`, `noowners`.
    """

    def __init__(self, config: SandboxConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._expired: dict[str, int] = {}

    def reset(self) -> None:
        """Make expired tokens good again."""
        self._expired.clear()

    def expire(self, token: str) -> None:
        """Refuse this token from now on."""
        self._expired[token] = self._clock.ms()

    @staticmethod
    def of_header(header: bytes | None) -> str | None:
        """The bearer token, or None."""
        scheme, _, token = (header or b"").decode("latin-1").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None

    def refuse(self, token: str | None) -> Reply | None:
        """The reply for a token that may not come in, or None."""
        if token is None:
            return no_credentials().reply()
        if self._config.tokens:
            if token not in self._config.tokens:
                return no_credentials().reply()
        elif not _WELL_FORMED.fullmatch(token):
            # Doubtful: one connector reports Cloudflare's 530 page for malformed tokens.
            return html(_MALFORMED_STATUS, "530 Origin DNS error")
        elif "invalid" in token:
            return no_credentials().reply()
        return self._refuse_expired(token)

    def _refuse_expired(self, token: str) -> Reply | None:
        now = self._clock.ms()
        if token in self._expired:
            return expired_token(self._expired[token], now).reply()
        if "expired" in token and not self._config.tokens:
            return expired_token(now - 60_000, now).reply()
        return None

    def scopes(self, token: str) -> frozenset[str]:
        """What a good token may read."""
        if self._config.tokens:
            return self._config.tokens.get(token, frozenset())
        if "noscope" in token:
            return frozenset()
        if "noowners" in token:
            return ALL_SCOPES - {"crm.objects.owners.read"}
        return ALL_SCOPES

    @staticmethod
    def life_seconds() -> int:
        """How long an OAuth access token lives."""
        return _OAUTH_LIFE_SECONDS
