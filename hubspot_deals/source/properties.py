"""Property definitions of an account, and which properties a scan asks for because of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hubspot_deals.contract import ALL_PROPERTIES, ScanFilters
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.pages import results_of
from hubspot_deals.tables import CORE_PROPERTIES, ColumnType

OWNER_PROPERTY: Final = "hubspot_owner_id"
_EVERYWHERE: Final = frozenset(
    {
        "dealname",
        "amount",
        "dealstage",
        "pipeline",
        "closedate",
        "createdate",
        "hs_lastmodifieddate",
    }
)
"""What HubSpot sends of a deal unasked: every account has them, whatever its definitions say."""

# What a definition may say for a core column to be filled from it. `date` is midnight UTC.
_FITTING_TYPES: Final[Mapping[ColumnType, frozenset[str]]] = {
    ColumnType.TEXT: frozenset({"string", "enumeration", "phone_number", "number"}),
    ColumnType.DECIMAL: frozenset({"number", "string", "enumeration"}),
    ColumnType.BOOL: frozenset({"bool", "enumeration", "string"}),
    ColumnType.TIMESTAMP: frozenset({"date", "datetime"}),
}


@dataclass(frozen=True, slots=True)
class PropertySelection:
    """The properties of a scan.

    `shown` are the ones its result has, in order; `fetched` adds what the reader itself needs;
    `typed` are the core columns whose definition agrees with their type; `unknown` are named ones
    that the account does not define.
    """

    shown: tuple[str, ...]
    fetched: tuple[str, ...]
    typed: frozenset[str]
    unknown: tuple[str, ...]


async def fetch_definitions(client: HubSpotClient, endpoints: Endpoints) -> list[dict[str, Any]]:
    """Return the deal property definitions as HubSpot sends them."""
    return results_of(await client.get(endpoints.properties), key="name")


def needs_definitions(filters: ScanFilters) -> bool:
    """Tell whether the properties to read are those that the account defines."""
    return filters.properties == (ALL_PROPERTIES,)


def select_properties(
    filters: ScanFilters, definitions: Sequence[Mapping[str, Any]]
) -> PropertySelection:
    """Decide which properties to read for these filters in this account."""
    types = {definition["name"]: definition.get("type") for definition in definitions}
    if filters.properties is None:
        shown = tuple(name for name in CORE_PROPERTIES if name in types or name in _EVERYWHERE)
    elif needs_definitions(filters):
        shown = tuple(types)
    else:
        shown = filters.properties
    needed = [OWNER_PROPERTY, "createdate", "hs_lastmodifieddate"]
    if filters.date_range is not None:
        needed.append(filters.date_range.field)
    return PropertySelection(
        shown=shown,
        fetched=tuple(dict.fromkeys([*shown, *needed])),
        typed=frozenset(
            name
            for name, column in CORE_PROPERTIES.items()
            if types.get(name) in _FITTING_TYPES[column] | {None}
        ),
        unknown=_unknown(shown, types) if filters.properties else (),
    )


def _unknown(shown: Sequence[str], types: Mapping[str, Any]) -> tuple[str, ...]:
    """Without definitions, which an account may refuse, nobody knows, and no name is accused."""
    return tuple(name for name in shown if name not in types) if types else ()


def definition_row(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of the `deal_properties` table for one definition."""
    return {
        "name": definition["name"],
        "label": definition.get("label"),
        "type": definition.get("type"),
        "field_type": definition.get("fieldType"),
        "group_name": definition.get("groupName"),
        "description": definition.get("description"),
        "calculated": definition.get("calculated"),
        "hubspot_defined": definition.get("hubspotDefined"),
        "options": definition.get("options") or [],
    }
