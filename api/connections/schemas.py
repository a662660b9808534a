"""Bodies of the connection endpoints. No answer has a field for the access token."""

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from pydantic import AliasChoices, AliasGenerator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from api.connections.fields import (
    CadenceField,
    ConnectionIdField,
    ConnectionName,
    Hours,
    Objects,
    Share,
    TimeZone,
)
from api.scans.fields import Day, Properties
from api.scans.schemas import AuthCreate
from api.schemas import Camel, OrganizationId, Pagination, Timestamp
from hubspot_deals.sync_contract import OBJECTS, ConnectionStatus, SyncKind, SyncOutcome

_EXAMPLE: Final[JsonDict] = {
    "connectionId": "acme",
    "organizationId": "org-12345",
    "name": "ACME, production account",
    "auth": {"accessToken": "pat-na1-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"},
    "settings": {
        "cadence": "hourly",
        "timeZone": "Europe/Berlin",
        "startDate": "2024-01-01",
        "objects": list(OBJECTS),
    },
}
_CHANGE_EXAMPLE: Final[JsonDict] = {"name": "ACME", "settings": {"quotaShare": 0.5}}
_ASKS: Final = (
    "Whether HubSpot is asked about the token: false where it cannot be reached. Then nobody "
    "looks whether the account is the right one, and connected once."
)


class _Part(BaseModel):
    """An object of the request that refuses fields it does not know."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        alias_generator=AliasGenerator(
            validation_alias=lambda name: AliasChoices(to_camel(name), name)
        ),
    )


class SettingsCreate(_Part):
    """How the account is kept current. What is absent or null has its default, or stays."""

    cadence: CadenceField | None = Field(
        default=None, description="How long a partition is; `hourly` when absent."
    )
    time_zone: TimeZone | None = Field(
        default=None, description="In which partitions begin, an IANA name; `UTC` when absent."
    )
    start_date: Day = Field(
        default=None, description="Day of the first partition; 90 days ago when absent."
    )
    objects: Objects | None = Field(
        default=None, description="What is kept beside the deals; everything when absent."
    )
    properties: Properties | None = Field(
        default=None,
        description="HubSpot's internal names. Null or empty: the standard deal properties. "
        '`["*"]`: every property of the account.',
    )
    refresh_hours: Hours | None = Field(
        default=None,
        description="How often associations, histories and calculated values are read anew of "
        "deals that show no change; 24 when absent.",
    )
    reconcile_hours: Hours | None = Field(
        default=None,
        description="How often all ids are compared with HubSpot's; 168 when absent.",
    )
    quota_share: Share | None = Field(
        default=None, description="Part of the account's limits that its syncs use; 1 when absent."
    )

    def given(self) -> dict[str, Any]:
        """Return what the request says, in the spelling of `SyncSettings.to_json`."""
        values = {to_camel(name): getattr(self, name) for name in self.model_fields_set}
        given = {name: value for name, value in values.items() if value is not None}
        if "properties" in values:
            given["properties"] = values["properties"] or None
        if "startDate" in given:
            given["startDate"] = given["startDate"].isoformat()
        return given


class ConnectionCreate(_Part):
    """The request that connects an account."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    connection_id: ConnectionIdField | None = Field(
        default=None, description="Part of asset and job names; generated when absent."
    )
    organization_id: OrganizationId
    name: ConnectionName = Field(default="", description="For people.")
    auth: AuthCreate
    settings: SettingsCreate = Field(default_factory=SettingsCreate)
    enabled: bool = Field(default=True, description="False: it rests until it is resumed.")
    check: bool = Field(default=True, description=_ASKS)

    @model_validator(mode="before")
    @classmethod
    def _name_missing_credential(cls, value: object) -> object:
        return {"auth": {}, **value} if isinstance(value, dict) else value

    def identity(self) -> Mapping[str, Any]:
        """Return what makes two requests the same one: everything but the credential."""
        return {
            **self.model_dump(exclude={"auth", "settings", "check"}),
            "settings": self.settings.given(),
        }


class ConnectionPatch(_Part):
    """The request that changes a connection; what is absent stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CHANGE_EXAMPLE]})

    name: ConnectionName | None = None
    auth: AuthCreate | None = Field(default=None, description="A new token of the same account.")
    settings: SettingsCreate = Field(
        default_factory=SettingsCreate,
        description="Once it has been synced, `cadence` and `timeZone` are fixed, and `startDate` "
        "can only become earlier.",
    )
    enabled: bool | None = Field(default=None, description="The same as pausing and resuming.")
    check: bool = Field(default=True, description=_ASKS)


class ConnectionSettings(Camel):
    """How the account is kept current."""

    cadence: str
    time_zone: str
    start_date: date
    objects: list[str]
    properties: list[str] | None = Field(description="Null: the standard deal properties.")
    refresh_hours: int
    reconcile_hours: int
    quota_share: float


class Connection(Camel):
    """A connection, and where it stands."""

    connection_id: str
    organization_id: str
    name: str
    portal_id: int | None = Field(description="HubSpot's account; null where nobody asked yet.")
    status: ConnectionStatus = Field(
        description="`waiting` for its first run, `loading` in it, `current`, `behind` (older than "
        "two partitions are long), `failing` (the last run failed), `paused`."
    )
    error_message: str | None = Field(description="Why the last run failed, while `failing`.")
    enabled: bool
    fresh_as_of: Timestamp | None = Field(
        description="Everything that happened before this moment is in the tables."
    )
    seconds_old: float | None = Field(description="How long ago that was.")
    syncing: bool = Field(description="Whether a run is at work.")
    run_id: str | None = Field(description="Dagster's id of that run.")
    sync_wanted_at: Timestamp | None = Field(description="Since when an extra run is due.")
    settings: ConnectionSettings
    created_at: Timestamp
    updated_at: Timestamp


class CreatedConnection(Connection):
    """A connection that was just accepted."""

    warnings: list[str] = Field(description="What the token does not open, or nobody checked.")


class ConnectionPage(Camel):
    """One page of connections, newest first."""

    connections: list[Connection]
    pagination: Pagination


class SyncRun(Camel):
    """One run of a connection."""

    run_no: int
    run_id: str = Field(description="Dagster's id of the run.")
    kind: SyncKind
    window_start: Timestamp | None = Field(description="Of the partitions it was launched for.")
    window_end: Timestamp | None
    started_at: Timestamp
    ended_at: Timestamp | None
    duration: float | None = Field(description="Seconds; null until it has ended.")
    outcome: SyncOutcome | None = Field(description="Null until it has ended.")
    read_until: Timestamp | None = Field(
        description="Everything that happened before this moment is in the tables since."
    )
    is_proved: bool | None = Field(description="Whether HubSpot's own count agreed.")
    counts: dict[str, Any]
    error_message: str | None


class SyncRunPage(Camel):
    """One page of runs, newest first."""

    connection_id: str
    runs: list[SyncRun]
    pagination: Pagination


class ChangedConnection(Camel):
    """A connection that was told what to do."""

    connection_id: str
    status: ConnectionStatus


class RequestedSync(ChangedConnection):
    """A sync that will be launched soon."""

    syncing: bool = Field(description="Whether a run is at work already; this one follows it.")
    sync_wanted_at: Timestamp | None


class RemovedConnection(Camel):
    """A connection that is gone."""

    connection_id: str
