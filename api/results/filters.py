"""Reads `filter[…]` and `sort` from the address of a result page."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from api.errors import query_faults, shorten
from api.schemas import is_plain_text
from hubspot_deals.warehouse.selections import (
    FIELDS,
    Condition,
    FieldKind,
    Operator,
    Selection,
    SortKey,
    Value,
)

_FORM: Final = re.compile(r"filter\[([^\[\]]*)\](?:\[([^\[\]]*)\])?")
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,18})?", re.ASCII)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_RANGES: Final = (Operator.GT, Operator.GTE, Operator.LT, Operator.LTE)
_OPERATORS: Final = {
    FieldKind.TEXT: (Operator.IN,),
    FieldKind.TRUTH: (Operator.IN,),
    FieldKind.NUMBER: (Operator.IN, *_RANGES),
    FieldKind.MOMENT: _RANGES,
}
_NEXT_DAY: Final = {Operator.GT: Operator.GTE, Operator.LTE: Operator.LT}
"""A day is a whole UTC day: what comes after it begins, and what it ends with lies, at the next."""

_NAMES: Final = frozenset({"filter", "sort"})
_MOST_VALUES: Final = 100
_LONGEST: Final = 63

Path = tuple[str, ...]


class _FaultError(ValueError):
    """What is wrong at a place in the request."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        super().__init__(text)


def read_selection(given: Iterable[tuple[str, str]]) -> Selection:
    """Return which deals the parameters of a request ask for, in a form that equal ones share.

    Raises RequestValidationError with all that is at fault.
    """
    asked = [(name, text) for name, text in given if name in _NAMES or name.startswith("filter[")]
    conditions: list[Condition] = []
    order: tuple[SortKey, ...] = ()
    faults: list[tuple[Path, str]] = []
    seen: set[Path] = set()
    for name, text in asked:
        try:
            path = _path_of(name, seen)
            if name == "sort":
                order = _read_order(text)
            else:
                conditions.append(_read_condition(path, text))
        except _FaultError as fault:
            faults.append((fault.path, str(fault)))
    if faults:
        raise query_faults(*faults)
    conditions.sort(key=lambda one: (one.field, one.operator, repr(one.values)))
    return Selection(tuple(conditions), order)


def _path_of(name: str, seen: set[Path]) -> Path:
    """Return where a parameter is in the request, and note it; each may come once."""
    match = _FORM.fullmatch(name)
    if name != "sort" and match is None:
        hint = "Write filter[column]=value or filter[column][gte]=value"
        raise _FaultError(("filter",), hint)
    parts = match.groups() if match else ()
    path = (
        name.partition("[")[0],
        *(shorten(part, _LONGEST) for part in parts if part is not None),
    )
    if path in seen:
        raise _FaultError(path, "This is given more than once")
    seen.add(path)
    return path


def _read_condition(path: Path, text: str) -> Condition:
    _, field, *compared = path
    if (kind := FIELDS.get(field)) is None:
        raise _FaultError(path[:2], _not_on(field, "Filters are"))
    if compared and compared[0] not in _RANGES:
        raise _FaultError(path, f"The comparisons are {', '.join(_RANGES)}")
    operator = Operator(compared[0]) if compared else Operator.IN
    if operator not in _OPERATORS[kind]:
        hint = "has no order" if compared else f"is compared with {', '.join(_RANGES)}"
        raise _FaultError(path, f"'{field}' {hint}")
    if kind is FieldKind.MOMENT:
        operator, moment = _read_moment(path, operator, text)
        return Condition(field, operator, (moment,))
    texts = text.split(",") if operator is Operator.IN else [text]
    if len(texts) > _MOST_VALUES:
        raise _FaultError(path, f"At most {_MOST_VALUES} values are possible")
    values = dict.fromkeys(_read_value(path, kind, one) for one in texts)
    return Condition(field, operator, tuple(values))


def _read_value(path: Path, kind: FieldKind, text: str) -> Value:
    match kind:
        case FieldKind.NUMBER if _NUMBER.fullmatch(text):
            return Decimal(text)
        case FieldKind.TRUTH if text in {"true", "false"}:
            return text == "true"
        case FieldKind.TEXT if is_plain_text(text):
            return text
    forms = {
        FieldKind.NUMBER: "Not a number like 1000 or -0.50, of at most 20 digits and 18 decimals",
        FieldKind.TRUTH: "Neither true nor false",
    }
    raise _FaultError(path, forms.get(kind, "A value has 1-255 characters, not blank"))


def _read_moment(path: Path, operator: Operator, text: str) -> tuple[Operator, datetime]:
    try:
        if _DATE.fullmatch(text):
            day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            if operator in _NEXT_DAY:
                return _NEXT_DAY[operator], day + timedelta(days=1)
            return operator, day
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return operator, moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    hint = "Not a day like 2024-01-31, nor a moment like 2024-01-31T12:00:00Z"
    raise _FaultError(path, hint)


def _read_order(text: str) -> tuple[SortKey, ...]:
    keys = [SortKey(part.removeprefix("-"), part.startswith("-")) for part in text.split(",")]
    for key in keys:
        if key.field not in FIELDS:
            raise _FaultError(("sort",), _not_on(key.field, "Sorting is"))
    if len({key.field for key in keys}) < len(keys):
        raise _FaultError(("sort",), "A column is named more than once")
    return tuple(keys)


def _not_on(field: str, what: str) -> str:
    return f"{what} possible on {', '.join(FIELDS)}; not on {shorten(field, _LONGEST)!r}"


def describe_parameters() -> Sequence[dict[str, Any]]:
    """Describe the parameters for the OpenAPI document, which FastAPI cannot know."""
    compared = {name.value: {"type": "string"} for name in _RANGES}
    choices = {
        field: {"type": "string"}
        if _OPERATORS[kind] == (Operator.IN,)
        else {"anyOf": [{"type": "string"}, {"type": "object", "properties": compared}]}
        for field, kind in FIELDS.items()
    }
    return [
        {
            "name": "filter",
            "in": "query",
            "style": "deepObject",
            "description": "Of `deals` only: `filter[dealstage]=a,b`, `filter[amount][gte]=1000`, "
            "`filter[closedate][lt]=2024-07-01`. All of them have to be met.",
            "schema": {"type": "object", "properties": choices, "additionalProperties": False},
        },
        {
            "name": "sort",
            "in": "query",
            "description": "Of `deals` only: columns with commas between them, `-` before one that "
            "goes down; deals without value come last.",
            "schema": {"type": "string", "examples": ["-amount,closedate"]},
        },
    ]
