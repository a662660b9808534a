"""Bodies of the endpoints that only ask."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.scans.schemas import AuthCreate
from api.schemas import Camel

Basis = Literal["counted", "atLeast", "unknown"]


class TokenCheckCreate(BaseModel):
    """The request that looks at a token."""

    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)

    auth: AuthCreate

    @model_validator(mode="before")
    @classmethod
    def _name_missing_fields(cls, value: object) -> object:
        return {"auth": {}, **value} if isinstance(value, dict) else value


class Scopes(Camel):
    """What the token may do."""

    granted: list[str] | None = Field(
        description="As HubSpot lists them; null where it lists none for this kind of token."
    )
    missing: list[str] = Field(description="Asked for and refused, one for each table or more.")


class Tier(Camel):
    """The account's limits, and how much of them scans may use."""

    name: str | None = Field(description="The subscription that has such limits, if one does.")
    requests_per_ten_seconds: int | None
    searches_per_second: float
    share: float = Field(description="`HUBSPOT_DEALS_HUBSPOT_SHARE`.")


class DailyQuota(Camel):
    """The requests of all private apps of the account in a day."""

    limit: int
    used: int | None
    resets_at: str | None


class Access(Camel):
    """What a token opens."""

    can_scan: bool
    reason: str | None = Field(description="Why no scan is possible.")
    portal_id: int | None
    scopes: Scopes
    tier: Tier
    daily_quota: DailyQuota | None = Field(description="Null where HubSpot counts none.")


class TokenReport(Camel):
    """Whether HubSpot accepts a token, and what it opens then."""

    valid: bool
    can_scan: bool = Field(description="Whether it may read deals.")
    reason: str | None = Field(description="What HubSpot said against it.")
    portal_id: int | None = None
    scopes: Scopes | None = None
    tier: Tier | None = None
    daily_quota: DailyQuota | None = None


class PlannedTable(Camel):
    """One table of the result."""

    name: str
    rows: int | None
    basis: Basis = Field(description="Whether `rows` was counted, or is the least there will be.")
    missing_scope: str | None
    consequence: str | None = Field(description="What the table is without what was refused.")


class PlannedDeals(Camel):
    """The deals that the filters ask for."""

    live: int | None = Field(description="HubSpot's own count.")
    archived: int | None = Field(description="Read and counted; null unless asked for.")
    total: int | None
    basis: Basis = Field(
        description="`atLeast` when there are more archived deals than half a minute can count."
    )


class PlannedProperties(Camel):
    """The properties that the deals will have."""

    selected: list[str]
    unknown: list[str] = Field(description="Asked for, and not defined in this account.")


class PlannedRequests(Camel):
    """Requests to HubSpot, repeated ones not counted."""

    total: int
    list: int
    search: int
    other: int
    basis: Literal["estimated", "atLeast"]


class Plan(Access):
    """What a scan will bring and take."""

    tables: list[PlannedTable]
    deals: PlannedDeals | None = Field(description="Null when no scan is possible.")
    properties: PlannedProperties | None
    requests: PlannedRequests | None
    daily_share: float | None = Field(description="Percent of the day's quota.")
    minutes: float | None = Field(description="At this account's limits, if nobody else uses them.")
    notes: list[str] = Field(description="What HubSpot refused or does not tell.")
    requests_used: int = Field(description="Requests that making this plan has taken.")
