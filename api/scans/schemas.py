"""Bodies of the scan endpoints."""

import operator
from datetime import date
from typing import Any, Final, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from api.scans.fields import (
    AccessToken,
    DateField,
    Day,
    Properties,
    ScanIdField,
    ScanType,
    TenantUrl,
    UserNames,
    check_source,
)
from api.schemas import Camel, OrganizationId, Pagination, Timestamp, fault
from hubspot_deals.contract import DATE_FIELDS, DateRange, ScanConfig, ScanFilters, ScanStatus

_UNUSED_NAMES: Final = (
    "user_upns does not narrow a HubSpot scan: the deals of all owners are extracted"
)
_EXAMPLE: Final[JsonDict] = {
    "config": {
        "scanId": "hubspot-deals-scan-2025-001",
        "organizationId": "org-12345",
        "type": ["user"],
        "auth": {"accessToken": "pat-na1-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"},
        "filters": {
            "properties": ["dealname", "amount", "dealstage"],
            "includeArchived": False,
            "dateRange": {"startDate": "2024-01-01", "endDate": "2024-12-31"},
        },
    }
}


class _Part(BaseModel):
    """An object of the request that refuses fields it does not know.

    A misspelt `startdate` that was ignored would read the whole account instead of a year of it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class DateRangeCreate(_Part):
    """Whole UTC days, both included. An open side is left out."""

    start_date: Day = Field(default=None, validation_alias=AliasChoices("startDate", "start_date"))
    end_date: Day = Field(default=None, validation_alias=AliasChoices("endDate", "end_date"))
    field: DateField = Field(
        default=DATE_FIELDS[0], description="The deal property that the dates are compared with."
    )

    @field_validator("end_date")
    @classmethod
    def _not_before_start(cls, end: date | None, info: ValidationInfo) -> date | None:
        start = info.data.get("start_date")
        if start is not None and end is not None and end < start:
            msg = "End date must not be before the start date"
            raise fault(msg)
        return end


class FiltersCreate(_Part):
    """Which deals, and which of their properties."""

    properties: Properties | None = Field(
        default=None,
        description="HubSpot's internal names. Absent, null or empty: the standard deal "
        'properties. `["*"]`: every property of the account. Repeated names count once.',
    )
    include_archived: bool | None = Field(
        default=None,
        validation_alias=AliasChoices("includeArchived", "include_archived"),
        description="Whether archived deals are read too; false when absent.",
    )
    date_range: DateRangeCreate | None = Field(
        default=None, validation_alias=AliasChoices("dateRange", "date_range")
    )

    def to_filters(self) -> ScanFilters:
        """Return the filters as the product keeps them."""
        span = self.date_range
        is_open = span is None or (span.start_date is None and span.end_date is None)
        return ScanFilters(
            properties=tuple(self.properties) if self.properties else None,
            include_archived=bool(self.include_archived),
            date_range=None
            if span is None or is_open
            else DateRange(start=span.start_date, end=span.end_date, field=span.field),
        )


class AuthCreate(BaseModel):
    """The HubSpot credential; encrypted before it is stored, never part of an answer."""

    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)

    access_token: AccessToken = Field(
        validation_alias=AliasChoices("accessToken", "access_token"),
        description="Private-app access token with the scope crm.objects.deals.read.",
    )
    tenant_url: TenantUrl | None = Field(
        default=None,
        validation_alias=AliasChoices("tennantUrl", "tenantUrl", "tennant_url", "tenant_url"),
        description="Checked for form only; `tenantUrl` is accepted too.",
    )


class ConfigCreate(_Part):
    """What a scan is asked to do."""

    scan_id: ScanIdField = Field(validation_alias=AliasChoices("scanId", "scan_id"))
    organization_id: OrganizationId = Field(
        validation_alias=AliasChoices("organizationId", "organization_id")
    )
    type: ScanType
    auth: AuthCreate
    filters: FiltersCreate | None = None
    date_range: DateRangeCreate | None = Field(
        default=None,
        validation_alias=AliasChoices("dateRange", "date_range"),
        description="The same as `filters.dateRange`, for callers who know it by this place.",
    )
    user_upns: UserNames | None = Field(
        default=None,
        description="Of callers who extract by user. A HubSpot account is read whole: the answer "
        "warns that these do not narrow it.",
    )

    @field_validator("date_range")
    @classmethod
    def _in_one_place(
        cls, span: DateRangeCreate | None, info: ValidationInfo
    ) -> DateRangeCreate | None:
        filters: FiltersCreate | None = info.data.get("filters")
        if span is not None and filters is not None and filters.date_range is not None:
            msg = "Date range is given twice: here and in the filters"
            raise fault(msg)
        return span

    @model_validator(mode="before")
    @classmethod
    def _name_missing_credential(cls, value: object) -> object:
        """Report a missing `auth` where the caller has to act: at its access token."""
        check_source(value)
        return {"auth": {}, **value} if isinstance(value, dict) else value


class ScanCreate(BaseModel):
    """The request that starts a scan."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        hide_input_in_errors=True,
        json_schema_extra={"examples": [_EXAMPLE]},
    )

    config: ConfigCreate

    @model_validator(mode="before")
    @classmethod
    def _name_missing_fields(cls, value: object) -> object:
        return {"config": {}, **value} if isinstance(value, dict) else value

    def to_config(self) -> ScanConfig:
        """Return the configuration without the credential."""
        filters = self.config.filters or FiltersCreate()
        if self.config.date_range is not None:
            filters = filters.model_copy(update={"date_range": self.config.date_range})
        return ScanConfig(
            scan_id=self.config.scan_id,
            organization_id=self.config.organization_id,
            scan_type=self.config.type[0],
            filters=filters.to_filters(),
        )

    def warnings(self) -> list[str]:
        """Say what of the request has no effect."""
        return [_UNUSED_NAMES] if self.config.user_upns else []


class AcceptedScan(Camel):
    """A scan that was just accepted."""

    scan_id: str
    status: ScanStatus = ScanStatus.PENDING
    warnings: list[str] = Field(
        default=[], description="What of the request has no effect.", exclude_if=operator.not_
    )


class ScanAccepted(Camel):
    """The answer to a start; a repeated one gets the same again."""

    success: Literal[True] = True
    message: str = "Scan initialization accepted and is now processing in the background."
    scan_id: str
    status: Literal["started"] = "started"
    data: AcceptedScan
    timestamp: Timestamp = Field(description="When the scan was accepted.")


class ChangedScan(Camel):
    """A scan that was told what to do."""

    scan_id: str
    status: ScanStatus


class RemovedScan(Camel):
    """A scan that is gone."""

    scan_id: str
    records_deleted: int = Field(description="Rows of all its tables.")


class CheckpointInfo(Camel):
    """How far a scan has come."""

    latest_checkpoint: dict[str, Any] = Field(description="Where reading goes on; may be empty.")
    progress: float | None = Field(
        description="Percent; null while the number of deals is unknown, 100 once completed."
    )
    last_checkpoint_at: Timestamp | None


class ScanSummary(Camel):
    """One scan in a list."""

    scan_id: str
    organization_id: str
    status: ScanStatus
    start_time: Timestamp | None = Field(description="Null until a worker has taken the scan up.")
    end_time: Timestamp | None
    records_extracted: int = Field(description="Deals read and committed so far.")


class Scan(ScanSummary):
    """One scan in full."""

    type: str
    last_heartbeat: Timestamp | None
    resume_at: Timestamp | None = Field(
        description="When a scan that waits for HubSpot's limit goes on by itself."
    )
    duration: float | None = Field(description="Seconds from the start to the end, or until now.")
    error_message: str | None
    metadata: dict[str, Any] = Field(
        description="`runId`; `attempts`, every run that has taken the scan up; `runStatus`, "
        "Dagster's word on the run while the scan waits for it; `resultsRemovedAt`; and what the "
        "run has found out."
    )
    config: dict[str, Any] = Field(description="The request without its credential.")
    checkpoint_info: CheckpointInfo


class ScanPage(Camel):
    """One page of scans, newest first."""

    scans: list[ScanSummary]
    pagination: Pagination
