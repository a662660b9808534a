"""Search filters: reading them from a request body, and what each operator means for a value."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt
from typing import Any, Final

from hubspot_sandbox.catalog import Catalog, PropertySpec
from hubspot_sandbox.clock import parse_ms
from hubspot_sandbox.failures import ApiError, bad_json, bad_request, bad_search

Test = Callable[[str | None], bool]
OPERATORS: Final = frozenset(
    [
        "BETWEEN",
        "CONTAINS_TOKEN",
        "EQ",
        "GT",
        "GTE",
        "HAS_PROPERTY",
        "IN",
        "LT",
        "LTE",
        "NEQ",
        "NOT_CONTAINS_TOKEN",
        "NOT_HAS_PROPERTY",
        "NOT_IN",
    ]
)
_LISTS: Final = frozenset({"IN", "NOT_IN"})
_VALUELESS: Final = frozenset({"HAS_PROPERTY", "NOT_HAS_PROPERTY"})
_TOKENS: Final = frozenset({"CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"})
_NEGATIONS: Final = {"NEQ": "EQ", "NOT_IN": "IN", "NOT_CONTAINS_TOKEN": "CONTAINS_TOKEN"}
MAX_GROUPS: Final = 5
MAX_FILTERS: Final = 6
MAX_ALL_FILTERS: Final = 18
_COMPARISONS: Final = {"GT": gt, "GTE": ge, "LT": lt, "LTE": le}
_BINDER: Final = (
    "Cannot construct instance of `com.hubspot.inbounddb.publicobject.core.v3.search.Filter`, "
    "problem: "
)


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on one property."""

    spec: PropertySpec
    operator: str
    value: str | None = None
    high: str | None = None
    values: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The property."""
        return self.spec.name


def read_groups(body: dict[str, Any], catalog: Catalog) -> tuple[tuple[Filter, ...], ...]:
    """The filter groups of a search; top-level `filters` stand for one group."""
    groups = body.get("filterGroups") or []
    if body.get("filters") and isinstance(groups, list):
        groups = [*groups, {"filters": body["filters"]}]
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        problem = "filterGroups must be a list of objects"
        raise bad_json(problem)
    raw = [group.get("filters") or [] for group in groups]
    if not all(isinstance(group, list) for group in raw):
        problem = "filters must be a list of objects"
        raise bad_json(problem)
    _check_numbers(raw)
    return tuple(tuple(_read_filter(item, catalog) for item in group) for group in raw)


def _check_numbers(groups: list[list[Any]]) -> None:
    # Doubtful: 3 groups, 5 groups and 6 groups have all been documented; this is the newest guide.
    if len(groups) > MAX_GROUPS:
        message = f"Too many filterGroups: {len(groups)} given, {MAX_GROUPS} allowed"
        raise bad_request(message)
    if any(len(group) > MAX_FILTERS for group in groups):
        message = f"Too many filters in one filterGroup: {MAX_FILTERS} allowed"
        raise bad_request(message)
    if sum(map(len, groups)) > MAX_ALL_FILTERS:
        message = f"Too many filters in the request: {MAX_ALL_FILTERS} allowed"
        raise bad_request(message)


def _read_filter(item: object, catalog: Catalog) -> Filter:
    if not isinstance(item, dict):
        problem = _BINDER + "a filter must be an object"
        raise bad_json(problem)
    name, operator = item.get("propertyName"), item.get("operator")
    if not isinstance(name, str) or operator not in OPERATORS:
        problem = f"Some required fields were not set or not valid: [{name}, {operator}]"
        raise bad_json(problem)
    spec = catalog.find(name)
    if spec is None:
        raise bad_search()
    listed = item.get("values") or []
    values = tuple(str(value) for value in listed) if isinstance(listed, list) else ()
    found = Filter(spec, operator, _text(item, "value"), _text(item, "highValue"), values)
    _check_values(found)
    return found


def _text(item: dict[str, Any], key: str) -> str | None:
    value = item.get(key)
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def _check_values(found: Filter) -> None:
    if found.operator in _VALUELESS:
        return
    if found.operator in _LISTS:
        if not found.values:
            problem = f"{_BINDER}operator {found.operator} requires values"
            raise bad_json(problem)
        return
    if found.operator == "BETWEEN" and found.high is None:
        problem = _BINDER + "operator BETWEEN requires a highValue"
        raise bad_json(problem, column=102)
    if not (found.value or "").strip():
        problem = (
            f"value must be non-empty and non-blank, if specified {{propertyName: '{found.name}'}}"
        )
        raise bad_json(_BINDER + problem, column=92)
    if found.spec.type in {"date", "datetime"}:
        _check_moment(found)


def _check_moment(found: Filter) -> None:
    moment = parse_ms(found.value or "")
    if moment is None or (found.high is not None and parse_ms(found.high) is None):
        raise bad_search()
    if moment == 0:
        # Doubtful: one production connector reports a 500 for the epoch itself.
        status = 500
        message = "internal error"
        raise ApiError(status, message)


def to_number(spec: PropertySpec, text: str | None) -> float | None:
    """The number that a value is compared as; None if it is none."""
    if not text:
        return None
    if spec.type in {"date", "datetime"}:
        return parse_ms(text)
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def number_bounds(found: Filter) -> tuple[float, float | None]:
    """The one or two numbers that a filter compares with."""
    low, high = to_number(found.spec, found.value), to_number(found.spec, found.high)
    if low is None or (found.operator == "BETWEEN" and high is None):
        raise bad_search()
    return low, high


def compare(operator: str, value: Any, low: Any, high: Any) -> Any:
    """The five range operators and EQ, for a number or for a numpy column alike."""
    if operator == "BETWEEN":
        # Inclusive at both ends.
        return (value >= low) & (value <= high)
    return _COMPARISONS.get(operator, eq)(value, low)


def value_test(found: Filter) -> Test:
    """The filter as a test of one value."""
    operator = found.operator
    if operator in _VALUELESS:
        # Doubtful: a cleared value ("") is taken as not having the property.
        wanted = operator == "HAS_PROPERTY"
        return lambda text: bool(text) is wanted
    if operator in _NEGATIONS:
        # Doubtful: the negations are taken to match only deals that have a value.
        positive = value_test(_positive(found))
        return lambda text: bool(text) and not positive(text)
    if found.spec.type in {"number", "date", "datetime"} and operator not in _TOKENS:
        return _number_test(found)
    return _text_test(found)


def _positive(found: Filter) -> Filter:
    operator = _NEGATIONS[found.operator]
    return Filter(found.spec, operator, found.value, found.high, found.values)


def _number_test(found: Filter) -> Test:
    spec = found.spec
    if found.operator == "IN":
        wanted = {to_number(spec, value) for value in found.values} - {None}
        return lambda text: to_number(spec, text) in wanted
    low, high = number_bounds(found)

    def test(text: str | None) -> bool:
        number = to_number(spec, text)
        return number is not None and bool(compare(found.operator, number, low, high))

    return test


def _text_test(found: Filter) -> Test:
    # Enumerations are case-sensitive for every operator, the rest is not.
    exact = found.spec.type == "enumeration"
    if found.operator in _TOKENS:
        return token_test(found.value or "")
    if found.operator == "IN":
        # For strings HubSpot lowers the stored value only: upper-case wishes never match.
        wanted = frozenset(found.values)
        return lambda text: bool(text) and _fold(text, exact=exact) in wanted
    low, high = _fold(found.value, exact=exact), _fold(found.high, exact=exact)
    return lambda text: (
        bool(text) and bool(compare(found.operator, _fold(text, exact=exact), low, high))
    )


def _fold(text: str | None, *, exact: bool) -> str:
    return (text or "") if exact else (text or "").lower()


def token_test(wanted: str) -> Test:
    """Whether a text holds a word; `*` stands for any letters."""
    words = [re.escape(word).replace(r"\*", r"\w*") for word in wanted.lower().split()]
    patterns = [re.compile(rf"(?<!\w){word}(?!\w)") for word in words]
    return lambda text: (
        bool(text) and all(pattern.search((text or "").lower()) for pattern in patterns)
    )
