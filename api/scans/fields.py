"""The fields of a scan request: each one's form, and the text a caller gets when it is not met.

No text echoes a value: it may be a token in the wrong place.
"""

import re
from datetime import date
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from api.errors import SourceUnavailableError
from api.schemas import MOST_TEXT, fault, is_plain_text
from hubspot_deals.contract import ALL_PROPERTIES, DATE_FIELDS, DEALS_TYPE, SCAN_ID, SCAN_TYPES
from hubspot_deals.redaction import hide_here

MOST_PROPERTIES: Final = 2_000
_MOST_USERS: Final = 10_000
_CALENDAR: Final = "calendar"
_TOKEN_LENGTHS: Final = (10, 2_048)
_MOST_URL: Final = 2_048
# HubSpot forms property names of lowercase letters, digits and underscores, at most 100. Names
# it generates from stage ids start with a letter, but old accounts hold others, so the first
# character is not held to more than the rest.
_PROPERTY: Final = re.compile(r"[a-z0-9_]{1,100}", re.ASCII)
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
# HubSpot fails at epoch 0, and the end of a day is the start of the next, which must exist.
_FIRST_DAY: Final = date(1970, 1, 2)
_LAST_DAY: Final = date(9999, 12, 30)


def _check_scan_id(text: str) -> str:
    if not SCAN_ID.fullmatch(text):
        msg = "Scan ID must be 1-255 characters: letters A-Z and a-z, digits, hyphens, underscores"
        raise fault(msg)
    return text


def _check_type(value: object) -> object:
    if value not in ([*SCAN_TYPES], [DEALS_TYPE]):
        msg = 'Type must be ["user"] or ["deals"]'
        raise fault(msg)
    return value


def check_source(config: object) -> None:
    """Raise SourceUnavailableError for a source that is documented and does not exist yet.

    Before anything else is looked at: its credential, too, has another form.
    """
    types = config.get("type") if isinstance(config, dict) else None
    if isinstance(types, list) and _CALENDAR in types:
        raise SourceUnavailableError(_CALENDAR)


def _check_token(secret: SecretStr) -> SecretStr:
    hide_here(secret)
    text = secret.get_secret_value()
    shortest, longest = _TOKEN_LENGTHS
    if len(text) < shortest:
        msg = f"Access token must be at least {shortest} characters"
        raise fault(msg)
    if len(text) > longest:
        msg = f"Access token must be at most {longest} characters"
        raise fault(msg)
    # It is sent as an HTTP header's value.
    if not all("!" <= character <= "~" for character in text):
        msg = "Access token must consist of printable ASCII characters without spaces"
        raise fault(msg)
    return secret


def _check_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or len(text) > _MOST_URL or not text.isprintable() or " " in text:
        msg = "Tenant URL must be a valid http or https URL"
        raise fault(msg)
    return text


def _check_property(name: str) -> str:
    if name != ALL_PROPERTIES and not _PROPERTY.fullmatch(name):
        msg = (
            "Property must be a HubSpot internal name: "
            "1-100 lowercase letters, digits and underscores"
        )
        raise fault(msg)
    return name


def _check_properties(names: list[str]) -> list[str]:
    if ALL_PROPERTIES in names and len(names) > 1:
        msg = f'"{ALL_PROPERTIES}" means every property and must be the only entry'
        raise fault(msg)
    return list(dict.fromkeys(names))


def _check_user(name: str) -> str:
    if not is_plain_text(name):
        msg = "User must be 1-255 characters, not blank, without control characters"
        raise fault(msg)
    return name


def _parse_day(value: object) -> object:
    if value is None:
        return None
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        msg = "Date must be in YYYY-MM-DD format"
        raise fault(msg)
    try:
        day = date.fromisoformat(value)
    except ValueError:
        msg = "Date does not exist in the calendar"
        raise fault(msg) from None
    if not _FIRST_DAY <= day <= _LAST_DAY:
        msg = f"Date must be from {_FIRST_DAY} to {_LAST_DAY}; leave it out for an open range"
        raise fault(msg)
    return day


def _check_date_field(value: object) -> object:
    if value not in DATE_FIELDS:
        msg = f"Field must be one of {', '.join(DATE_FIELDS)}"
        raise fault(msg)
    return value


ScanIdField = Annotated[
    str,
    AfterValidator(_check_scan_id),
    Field(json_schema_extra={"pattern": "^[A-Za-z0-9_-]{1,255}$"}),
]
ScanType = Annotated[
    list[Literal["user", "deals"]],
    BeforeValidator(_check_type),
    Field(json_schema_extra={"minItems": 1, "maxItems": 1}),
]
AccessToken = Annotated[
    SecretStr,
    AfterValidator(_check_token),
    Field(
        json_schema_extra={
            "minLength": _TOKEN_LENGTHS[0],
            "maxLength": _TOKEN_LENGTHS[1],
            "pattern": "^[!-~]*$",
        }
    ),
]
TenantUrl = Annotated[str, AfterValidator(_check_url), Field(json_schema_extra={"format": "uri"})]
Properties = Annotated[
    list[
        Annotated[
            str,
            AfterValidator(_check_property),
            Field(json_schema_extra={"pattern": rf"^({_PROPERTY.pattern}|\{ALL_PROPERTIES})$"}),
        ]
    ],
    Field(max_length=MOST_PROPERTIES),
    AfterValidator(_check_properties),
]
UserNames = Annotated[
    list[
        Annotated[
            str,
            AfterValidator(_check_user),
            Field(json_schema_extra={"minLength": 1, "maxLength": MOST_TEXT}),
        ]
    ],
    Field(max_length=_MOST_USERS),
]
Day = Annotated[date | None, BeforeValidator(_parse_day)]
DateField = Annotated[
    str,
    BeforeValidator(_check_date_field),
    Field(json_schema_extra={"enum": list(DATE_FIELDS)}),
]
