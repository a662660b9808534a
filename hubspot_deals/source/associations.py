"""What deals are associated with: contacts, companies and line items, however many each has."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from hubspot_deals.errors import HubSpotProtocolError
from hubspot_deals.source.batches import in_batches
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.endpoints import ASSOCIATED, Endpoint, Endpoints
from hubspot_deals.source.pages import next_cursor, results_of
from hubspot_deals.source.shards import work_together

_BATCH: Final = 1_000


async def read_associations(
    client: HubSpotClient,
    endpoints: Endpoints,
    deal_ids: Sequence[str],
    kinds: Sequence[str] = ASSOCIATED,
) -> list[dict[str, Any]]:
    """Return the rows of `deal_associations` of these deals, all of them or none.

    Each has `deal_id`, `object_type` (contacts, companies or line_items), `object_id`, and as
    `types` the ids and labels of the kinds of association between the two. A deal without any has
    no row. One request for each thousand deals and type, and one more for each hundred more that
    the fullest of them has.
    """
    rows: dict[str, list[dict[str, Any]]] = {}

    async def read_kind(kind: str) -> None:
        read = partial(_read_batch, client, endpoints.associations[kind])
        rows[kind] = [
            {"deal_id": deal_id, "object_type": kind, "object_id": object_id, "types": types}
            for found in await in_batches(deal_ids, _BATCH, read)
            for (deal_id, object_id), types in sorted(found.items())
        ]

    await work_together(read_kind(kind) for kind in kinds)
    return [row for kind in kinds for row in rows[kind]]


_Found = dict[tuple[str, str], list[dict[str, Any]]]


async def _read_batch(client: HubSpotClient, endpoint: Endpoint, deal_ids: Sequence[str]) -> _Found:
    """Follow the cursor of every deal that has more than a page."""
    found: _Found = {}
    inputs = [{"id": deal_id} for deal_id in deal_ids]
    used: set[tuple[str, str]] = set()
    while inputs:
        answer = await client.post(endpoint, {"inputs": inputs})
        inputs = []
        for record in results_of(answer, key="from"):
            deal_id = _id_of(record["from"], "id")
            for pair in record.get("to") or []:
                _take_in(found.setdefault((deal_id, _id_of(pair, "toObjectId")), []), pair)
            after = next_cursor(record)
            if after is None:
                continue
            if (deal_id, after) in used:
                msg = f"HubSpot gave the cursor {after!r} of a deal's associations twice; stopped."
                raise HubSpotProtocolError(msg)
            used.add((deal_id, after))
            inputs.append({"id": deal_id, "after": after})
    return found


def _take_in(types: list[dict[str, Any]], pair: dict[str, Any]) -> None:
    """Add the kinds of a pair to what is known of it: it may come once for each of them."""
    for kind in pair.get("associationTypes") or []:
        fact = {name: kind.get(name) for name in ("category", "typeId", "label")}
        if fact not in types:
            types.append(fact)


def _id_of(item: Any, key: str) -> str:
    """Return an id, which is a number or a text, of something that has to have one."""
    value = item.get(key) if isinstance(item, dict) else None
    if value is None:
        msg = f"HubSpot sent an association without {key!r}; is this the HubSpot API?"
        raise HubSpotProtocolError(msg)
    return str(value)
