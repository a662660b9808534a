"""The fields of a connection request, and the text a caller gets when one's form is not met."""

from datetime import date, timedelta
from functools import lru_cache
from typing import Annotated, Final
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field

from api.schemas import fault, is_plain_text
from hubspot_deals.sync_contract import (
    CONNECTION_ID,
    OBJECTS,
    Cadence,
    SyncSettings,
)

_FIRST_DAY: Final = date(2006, 1, 1)
_MOST_HOURLY: Final = timedelta(days=3_653)
"""Dagster's pages slow down past some hundred thousand partitions."""
_NO_ZONES: Final = frozenset({"localtime", "Factory"})
_CADENCES: Final = [cadence.value for cadence in Cadence]


def _check_connection_id(text: str) -> str:
    if not CONNECTION_ID.fullmatch(text):
        msg = (
            "Connection ID must be 1-63 characters: lowercase letters, digits and underscores, "
            "a letter first"
        )
        raise fault(msg)
    return text


def _check_name(text: str) -> str:
    if text and not is_plain_text(text):
        msg = "Name must be at most 255 characters, not blank, without control characters"
        raise fault(msg)
    return text


def _check_cadence(text: str) -> str:
    if text not in _CADENCES:
        msg = f"Cadence must be one of {', '.join(_CADENCES)}"
        raise fault(msg)
    return text


@lru_cache(maxsize=1)
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_ZONES


def _check_time_zone(text: str) -> str:
    if text not in _time_zones():
        msg = "Time zone must be a name of the IANA database, such as Europe/Berlin"
        raise fault(msg)
    return text


def _check_objects(names: list[str]) -> list[str]:
    if not set(names) <= set(OBJECTS):
        msg = f"Objects must be some of {', '.join(OBJECTS)}"
        raise fault(msg)
    return [name for name in OBJECTS if name in names]


def fault_of_start(settings: SyncSettings, today: date) -> str | None:
    """Say what is wrong with a start date, if anything is; `today` is that of the time zone."""
    start = settings.start_date
    if start > today:
        return "Start date must not be in the future"
    if start < _FIRST_DAY:
        return f"Start date must not be before {_FIRST_DAY}"
    if settings.cadence is Cadence.HOURLY and today - start > _MOST_HOURLY:
        return "Start date must not be more than ten years ago when the cadence is hourly"
    return None


ConnectionIdField = Annotated[
    str,
    AfterValidator(_check_connection_id),
    Field(json_schema_extra={"pattern": f"^{CONNECTION_ID.pattern}$"}),
]
ConnectionName = Annotated[
    str, AfterValidator(_check_name), Field(json_schema_extra={"maxLength": 255})
]
CadenceField = Annotated[
    str, AfterValidator(_check_cadence), Field(json_schema_extra={"enum": _CADENCES})
]
TimeZone = Annotated[str, AfterValidator(_check_time_zone)]
Objects = Annotated[
    list[Annotated[str, Field(json_schema_extra={"enum": list(OBJECTS)})]],
    Field(max_length=20),
    AfterValidator(_check_objects),
]
Hours = Annotated[int, Field(ge=1, le=8_760)]
Share = Annotated[float, Field(gt=0, le=1)]
