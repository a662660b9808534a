"""Where HubSpot keeps things: the paths of one API version. The only place that names versions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hubspot_deals.source.governor import Budget

LEGACY_VERSION: Final = "v3"
"""v1 to v4 end in 2027; date versions such as `2026-03` are supported for 18 months each."""

DEALS_SCOPE: Final = "crm.objects.deals.read"
ASSOCIATED: Final = ("contacts", "companies", "line_items")
OWNERS_SCOPE: Final = "crm.objects.owners.read"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path, the budget its requests draw on, and the scope that opens it."""

    path: str
    scope: str
    budget: Budget = Budget.BURST


TOKEN_INFO: Final = Endpoint("/oauth/v2/private-apps/get/access-token-info", "none")
"""The same in every version."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Every path that the source reads."""

    deals: Endpoint
    search: Endpoint
    batch_read: Endpoint
    properties: Endpoint
    pipelines: Endpoint
    owners: Endpoint
    account: Endpoint
    usage: Endpoint
    associations: Mapping[str, Endpoint]
    """By what deals are associated with: contacts, companies, line_items."""

    @classmethod
    def spellings(cls, version: str) -> "list[Endpoints]":
        """Return the paths of a version as servers may spell them, the documented one first.

        A server that has no date versions at all is asked in the legacy one.
        """
        if version == LEGACY_VERSION:
            return [cls.of_version(version)]
        by_name = cls.of_version(version, deal_object="deals")
        return [cls.of_version(version), by_name, cls.of_version(LEGACY_VERSION)]

    @classmethod
    def of_version(cls, version: str, *, deal_object: str | None = None) -> "Endpoints":
        """Return the paths of `v3` or of a date version.

        HubSpot resolves `deals` and the type id `0-3` alike; its date-versioned documents write
        the type id, the older ones the name.
        """
        if version == LEGACY_VERSION:
            objects = f"/crm/v3/objects/{deal_object or 'deals'}"
        else:
            objects = f"/crm/objects/{version}/{deal_object or '0-3'}"
        versioned = "/crm/{}/{}" if version != LEGACY_VERSION else "/crm/{1}/{0}"
        return cls(
            deals=Endpoint(objects, DEALS_SCOPE),
            search=Endpoint(f"{objects}/search", DEALS_SCOPE, Budget.SEARCH),
            batch_read=Endpoint(f"{objects}/batch/read", DEALS_SCOPE),
            properties=Endpoint(versioned.format("properties", version) + "/deals", DEALS_SCOPE),
            pipelines=Endpoint(versioned.format("pipelines", version) + "/deals", DEALS_SCOPE),
            owners=Endpoint(versioned.format("owners", version), OWNERS_SCOPE),
            account=Endpoint(f"/account-info/{version}/details", "oauth"),
            usage=Endpoint(f"/account-info/{version}/api-usage/daily/private-apps", "oauth"),
            # HubSpot names a burst of their own for them; within the app's is within both.
            associations={
                name: Endpoint(
                    f"/crm/v4/associations/deals/{name}/batch/read"
                    if version == LEGACY_VERSION
                    else f"/crm/associations/{version}/{deal_object or '0-3'}/{name}/batch/read",
                    DEALS_SCOPE,
                )
                for name in ASSOCIATED
            },
        )
