"""What an access token opens, and the limits that come with it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import SecretStr

from hubspot_deals.errors import HubSpotDealsError, HubSpotScopeError
from hubspot_deals.settings import HubSpotSettings
from hubspot_deals.source.account import HubSpotAccount, Refusal
from hubspot_deals.source.client import ConnectionOptions
from hubspot_deals.source.endpoints import DEALS_SCOPE, OWNERS_SCOPE
from hubspot_deals.source.survey import (
    DailyQuota,
    TokenInfo,
    fetch_daily_quota,
    fetch_token_info,
    tier_of,
)

_T = TypeVar("_T")
_PATIENCE_SECONDS: Final = 15.0
"""Longest silence of HubSpot, and longest time of repeating a request: somebody waits."""
_NEEDED: Final = (DEALS_SCOPE, OWNERS_SCOPE)


@dataclass(frozen=True, slots=True)
class Access:
    """What is known of a token.

    `refusal` says why it can't read deals; `requests` are those by which a scan finds that out, and
    `lists` those of them that ask for deals; `burst` is what headers allow in ten seconds.
    """

    refusal: HubSpotScopeError | None
    requests: int
    lists: int
    info: TokenInfo | None
    quota: DailyQuota | None
    portal_id: int | None
    burst: int | None

    def describe(self, settings: HubSpotSettings, missing: Sequence[str]) -> dict[str, Any]:
        """Return the part that both answers of the API have."""
        quota = self.quota
        return {
            "portalId": self.portal_id,
            "canScan": self.refusal is None,
            "reason": str(self.refusal) if self.refusal else None,
            "scopes": {
                "granted": list(self.info.scopes) if self.info else None,
                "missing": list(dict.fromkeys(missing)),
            },
            "tier": {
                "name": tier_of(self.burst, quota.limit if quota else None),
                "requestsPerTenSeconds": self.burst,
                "searchesPerSecond": settings.searches_per_second,
                "share": settings.hubspot_share,
            },
            "dailyQuota": None
            if quota is None
            else {"limit": quota.limit, "used": quota.used, "resetsAt": quota.resets_at},
        }


def examine_token(token: SecretStr, settings: HubSpotSettings) -> dict[str, Any]:
    """Return what a token opens, as `POST /auth/validate` answers. Raises HubSpotDealsError."""
    with HubSpotAccount(token, connection_options(settings)) as account:
        access = look_at_access(account)
        _, no_owners = look(account, account.fetch_owners)
        errors = [access.refusal, no_owners.error if no_owners else None]
        missing = [scope for error in errors if (scope := missing_scope(error))]
        return {"valid": True} | access.describe(settings, missing)


def connection_options(settings: HubSpotSettings) -> ConnectionOptions:
    """Return how HubSpot is reached while somebody waits for the answer."""
    return ConnectionOptions.of(settings, patience=_PATIENCE_SECONDS)


def look_at_access(account: HubSpotAccount) -> Access:
    """Ask what the token may do; raises HubSpotDealsError, but not for a missing scope."""
    refusal = None
    try:
        account.check_access()
    except HubSpotScopeError as error:
        refusal = error
    requests = sent(account)
    # Neither is there for every kind of token and of server.
    info = _if_possible(lambda: account.ask(fetch_token_info))
    quota = _if_possible(lambda: account.ask(fetch_daily_quota))
    return Access(
        refusal,
        requests,
        requests - 1,  # the account's details
        info,
        quota,
        account.portal_id or (info.portal_id if info else None),
        account.burst_limit,
    )


def look(account: HubSpotAccount, fetch: Callable[[], _T]) -> tuple[_T, Refusal | None]:
    """Fetch what a scan can go without, and tell whether it was refused."""
    known = len(account.refusals)
    found = fetch()
    return found, next(iter(account.refusals[known:]), None)


def sent(account: HubSpotAccount) -> int:
    """Return how many requests were sent, not counting repeated ones."""
    return account.counts.requests - account.counts.retries


def missing_scope(error: HubSpotDealsError | None) -> str | None:
    """Return the scope to be granted, where HubSpot names several that would do."""
    if not isinstance(error, HubSpotScopeError):
        return None
    return next((scope for scope in _NEEDED if scope in error.scopes), error.scopes[0])


def _if_possible(question: Callable[[], _T]) -> _T | None:
    with suppress(HubSpotDealsError):
        return question()
    return None
