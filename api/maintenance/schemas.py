"""Parameters and bodies of the maintenance endpoints."""

from typing import Annotated, Final

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from api.schemas import Camel

DAYS_OLD: Final = 7
_TIMEOUT_MINUTES: Final = 10


def _default_days(value: object) -> object:
    return DAYS_OLD if value is None else value


class _Asked(BaseModel):
    """Part of a request that refuses what it does not know.

    A misspelt `daysold` that was ignored would remove results that were meant to be kept.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Cleanup(_Asked):
    """The request to clean up."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"daysOld": 30}]})

    days_old: Annotated[int, BeforeValidator(_default_days)] = Field(
        default=DAYS_OLD,
        ge=1,
        le=365,
        validation_alias=AliasChoices("daysOld", "days_old"),
        description="Only scans that ended longer ago than so many days.",
    )


class CleanupQuery(_Asked):
    """The query of a cleanup."""

    purge: bool = Field(
        default=False, description="Remove the scans too, instead of keeping their status."
    )


class DetectionQuery(_Asked):
    """The query of a detection."""

    timeout_minutes: int = Field(
        default=_TIMEOUT_MINUTES,
        ge=1,
        le=1_440,
        alias="timeoutMinutes",
        description="A worker that has made no progress for so long counts as gone.",
    )


class CleanedUp(Camel):
    """What a cleanup has removed."""

    cleaned_count: int
    days_old: int


class DetectedCrashes(Camel):
    """Scans whose workers are gone."""

    crashed_job_ids: list[str] = Field(description="Ids of scans.")
    crashed_count: int
    timeout_minutes: int
