"""HubSpot owners as the `users` table: active and archived ones, or what the deals show of them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.pages import results_of, walk_list

_PAGE: Final = "100"


async def fetch_owners(client: HubSpotClient, endpoints: Endpoints) -> list[dict[str, Any]]:
    """Return all owners, archived ones too: old deals still belong to them.

    Raises HubSpotScopeError when the token may not read owners.
    """
    owners: list[dict[str, Any]] = []
    for archived in ("false", "true"):
        params = {"limit": _PAGE, "archived": archived}
        async for page, _ in walk_list(client, endpoints.owners, params):
            owners += results_of(page)
    return list({str(owner["id"]): owner for owner in owners}.values())


def owner_rows(
    owners: Iterable[Mapping[str, Any]], referenced_ids: Iterable[str]
) -> list[dict[str, Any]]:
    """Return the rows of the `users` table, by ascending id.

    Every owner id on a deal has a row, so that a join never drops a deal: ids that the owner
    list does not know (deleted, or the scope is missing) stand alone.
    """
    rows = {str(owner["id"]): _owner_row(owner) for owner in owners}
    for owner_id in referenced_ids:
        rows.setdefault(owner_id, {"id": owner_id})
    return [rows[owner_id] for owner_id in sorted(rows, key=lambda text: (len(text), text))]


def _owner_row(owner: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(owner["id"]),
        "email": owner.get("email"),
        "first_name": owner.get("firstName"),
        "last_name": owner.get("lastName"),
        "type": owner.get("type"),
        # Archived owners keep their user only in the second field.
        "user_id": owner.get("userId") or owner.get("userIdIncludingInactive"),
        "archived": owner.get("archived"),
        "created_at": owner.get("createdAt"),
        "updated_at": owner.get("updatedAt"),
        "teams": owner.get("teams"),
    }
