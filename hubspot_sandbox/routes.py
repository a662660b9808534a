"""From a path to an endpoint: one table for v3 and the dated versions alike."""

from dataclasses import dataclass
from typing import Final

_DATED: Final = frozenset({"2025-09", "2026-03", "2026-09"})
_VERSIONS: Final = _DATED | {"v1", "v2", "v3", "v4"}
_DEAL_NAMES: Final = frozenset({"deals", "deal", "0-3"})
# Association targets by any of their names, with the type id used in paging tokens.
TARGET_TYPES: Final = {
    "contacts": "0-1",
    "contact": "0-1",
    "0-1": "0-1",
    "companies": "0-2",
    "company": "0-2",
    "0-2": "0-2",
    "line_items": "0-8",
    "line_item": "0-8",
    "0-8": "0-8",
}
# Method, versions besides the dated ones, path without its version, kind. `:type` is an object
# type, any other `:name` an argument. Fixed words come before arguments in the same place.
_TABLE: Final = """
GET  v3    crm/objects/:type                               list
POST v3    crm/objects/:type/search                        search
POST v3    crm/objects/:type/batch/read                    batch
GET  v3    crm/objects/:type/:id                           get
GET  v3|v4 crm/objects/:type/:id/associations/:to          association_list
POST v4    crm/associations/:type/:to/batch/read           associations
GET  v3    crm/properties/:type                            properties
GET  v3    crm/properties/:type/:name                      property
GET  v3    crm/pipelines/:type                             pipelines
GET  v3    crm/owners                                      owners
GET  v3    crm/owners/:id                                  owner
GET  v3    account-info/details                            account
GET  v3    account-info/api-usage/daily/private-apps       usage
GET  v3    settings/users                                  users
GET  v3    settings/users/teams                            teams
GET  v1    oauth/access-tokens/:token                      token_info
POST v2    oauth/private-apps/get/access-token-info        private_app_info
POST v3    oauth/token/introspect                          introspect
"""


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint with the parts of the path that vary.

    `kind` names the endpoint in logs, faults and latencies; `object_type` is as the client wrote
    it; `is_known_type` says whether the account has it.
    """

    kind: str
    method: str
    version: str
    object_type: str = "deals"
    args: tuple[str, ...] = ()

    @property
    def is_known_type(self) -> bool:
        """Whether the account has this object type: only deals."""
        return self.object_type.lower() in _DEAL_NAMES


@dataclass(frozen=True, slots=True)
class _Row:
    method: str
    versions: frozenset[str]
    pattern: tuple[str, ...]
    kind: str


def _read_row(line: str) -> _Row:
    method, versions, path, kind = line.split()
    # Doubtful: that the two old token endpoints have no dated form.
    dated = frozenset() if versions in {"v1", "v2"} else _DATED
    return _Row(method, dated.union(versions.split("|")), tuple(path.split("/")), kind)


_ROWS: Final = tuple(_read_row(line) for line in _TABLE.strip().splitlines())


def resolve(path: str) -> Route | None:
    """The endpoint of a path; None is a 404 page."""
    parts = [part for part in path.split("/") if part]
    # v3 stands in second place, dates mostly in third: `crm/v3/objects`, `crm/objects/2026-03`.
    # HubSpot's pages write `settings/users/v3` too, so either place is accepted for all.
    place = next((place for place, part in enumerate(parts[:3]) if part in _VERSIONS), 0)
    if not place:
        return None
    version = parts.pop(place)
    if version in _DATED and parts[0] == "crm" and place == 1:
        return None
    for row in _ROWS:
        if version in row.versions and _fits(parts, row.pattern):
            return _route(row, version, parts)
    return None


def _fits(parts: list[str], pattern: tuple[str, ...]) -> bool:
    return len(parts) == len(pattern) and all(
        wanted == part or wanted.startswith(":")
        for part, wanted in zip(parts, pattern, strict=True)
    )


def _route(row: _Row, version: str, parts: list[str]) -> Route:
    pairs = list(zip(parts, row.pattern, strict=True))
    args = tuple(part for part, name in pairs if name.startswith(":") and name != ":type")
    object_type = next((part for part, name in pairs if name == ":type"), "deals")
    return Route(row.kind, row.method, version, object_type, args)
