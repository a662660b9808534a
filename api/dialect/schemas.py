"""Bodies of the verb-first paths."""

from math import ceil
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.scans.schemas import ConfigCreate, ScanCreate
from api.schemas import Camel, OrganizationId, Timestamp
from hubspot_deals.contract import ScanStatus

Word = Literal["pending", "running", "completed", "failed", "cancelled"]

DEFAULT_ORGANIZATION = "default"


class ExtractionConfigCreate(ConfigCreate):
    """What an extraction is asked to do; its document knows no organizations."""

    organization_id: OrganizationId = Field(
        default=DEFAULT_ORGANIZATION,
        validation_alias=ConfigCreate.model_fields["organization_id"].validation_alias,
    )


class ExtractionCreate(ScanCreate):
    """The request that starts an extraction."""

    config: ExtractionConfigCreate


class ExtractionProgress(BaseModel):
    """How far an extraction has come. A HubSpot account counts as one user: it is read whole."""

    total_users: int
    completed_users: int
    total_events_extracted: int = Field(description="Deals read and committed so far.")
    failed_users: int
    successful_users: int
    percent: float | None = Field(description="Null while the number of deals is unknown.")


class Extraction(BaseModel):
    """Where an extraction stands."""

    id: str = Field(description="The service's own number of it.")
    scan_id: str = Field(serialization_alias="scanId")
    status: Word
    state: ScanStatus = Field(description="The same in the finer words of `/scan/{id}/status`.")
    started_at: Timestamp | None
    completed_at: Timestamp | None = Field(description="When it ended, however it did.")
    error_message: str | None
    created_at: Timestamp
    updated_at: Timestamp
    progress: ExtractionProgress


class UnknownExtraction(BaseModel):
    """What is told of an extraction that does not exist."""

    id: None = None
    scan_id: None = Field(default=None, serialization_alias="scanId")
    status: Literal["not_found"] = "not_found"
    started_at: None = None
    completed_at: None = None
    error_message: None = None
    created_at: None = None
    updated_at: None = None


class ChangedExtraction(Camel):
    """What was done to an extraction."""

    success: Literal[True] = True
    message: str
    scan_id: str
    status: Literal["cancelled", "removed"]
    data: dict[str, Any]
    timestamp: Timestamp


class PageNumbers(BaseModel):
    """Where a page lies in the whole, in numbers of pages."""

    current_page: int
    page_size: int
    total_events: int
    total_items: int = Field(description="The same as `total_events`.")
    total_pages: int
    has_next: bool
    has_previous: bool
    next_page: int | None
    previous_page: int | None
    next_cursor: str | None = Field(
        default=None, description="Pass it as `cursor`, all else being equal; null at the end."
    )

    @classmethod
    def of(
        cls, page: int, page_size: int, total: int, next_cursor: str | None = None
    ) -> "PageNumbers":
        """Describe a page; one behind the last has the last before it."""
        pages = ceil(total / page_size)
        following = page + 1 if page < pages else None
        preceding = min(page - 1, pages) or None
        return cls(
            current_page=page,
            page_size=page_size,
            total_events=total,
            total_items=total,
            total_pages=pages,
            has_next=following is not None,
            has_previous=preceding is not None,
            next_page=following,
            previous_page=preceding,
            next_cursor=next_cursor,
        )


class ExtractionPage(BaseModel):
    """One page of what was extracted."""

    scan_id: str = Field(serialization_alias="scanId")
    status: Word
    data: list[dict[str, Any]] = Field(description="Empty until an attempt has completed.")
    pagination: PageNumbers
    count: int
    total_count: int
    started_at: Timestamp | None
    completed_at: Timestamp | None
    error_message: str | None
    table_name: str = Field(serialization_alias="tableName")
    snapshot: int | None = Field(
        description="Number of the result that the page is of: an attempt that completes brings "
        "another one. Null while there is none."
    )
