"""Reads deals whose ids are known, a hundred at a time: by POST, whatever their properties."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from hubspot_deals.errors import HubSpotProtocolError
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.pages import deals_of, missing_ids
from hubspot_deals.source.shards import work_together

_T = TypeVar("_T")
BATCH: Final = 100
HISTORY_BATCH: Final = 50
MERGED_PROPERTY: Final = "hs_merged_object_ids"
"""Ids, joined by semicolons, of the deals that were merged into a deal."""
_READERS: Final = 4
"""Batches under way at once: as many seconds' worth as an answer takes."""


@dataclass(frozen=True, slots=True)
class BatchRead:
    """What became of each id that was asked for.

    `found` has the deal that answers to it: its own, or the survivor where it was merged away,
    which has another id. `gone` are ids that HubSpot knows nothing of.
    """

    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def own(self) -> list[dict[str, Any]]:
        """Return the deals that answer to their own ids."""
        return [deal for asked, deal in self.found.items() if asked == str(deal["id"])]


def merged_ids(deal: dict[str, Any]) -> list[str]:
    """Return the ids of the deals that were merged into this one, as far as it was asked for."""
    return [text for text in str(deal["properties"].get(MERGED_PROPERTY) or "").split(";") if text]


async def read_batch(  # noqa: PLR0913 - what the request has
    client: HubSpotClient,
    endpoints: Endpoints,
    ids: Sequence[str],
    properties: Sequence[str],
    *,
    archived: bool = False,
    history: Sequence[str] = (),
) -> BatchRead:
    """Read one batch: live deals, or archived ones instead.

    For a deal that was merged away HubSpot sends the survivor, under the survivor's id and once,
    however often it was asked for. The survivor tells whom it swallowed, if that was asked for;
    absent ids that no survivor explains are asked for again, each alone.
    """

    async def post(asked: Sequence[str]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "inputs": [{"id": deal_id} for deal_id in asked],
            "properties": list(properties),
        }
        params = {"archived": "true" if archived else "false"}
        more = {"propertiesWithHistory": list(history)} if history else {}
        return await client.post(endpoints.batch_read, body | more, params=params)

    if not ids:
        return BatchRead()
    answer = await post(ids)
    deals, gone = deals_of(answer), missing_ids(answer)
    answering = {loser: deal for deal in deals for loser in merged_ids(deal)}
    answering |= {str(deal["id"]): deal for deal in deals}
    read = BatchRead(gone=gone & set(ids))
    for deal_id in ids:
        if deal_id in answering:
            read.found[deal_id] = answering[deal_id]
        elif deal_id not in gone:
            again = await post([deal_id])
            if survivors := deals_of(again):
                read.found[deal_id] = survivors[0]
            elif deal_id in missing_ids(again):
                read.gone.add(deal_id)
            else:
                raise _unexplained(deal_id)
    return read


async def read_batches(  # noqa: PLR0913 - what the requests have
    client: HubSpotClient,
    endpoints: Endpoints,
    ids: Sequence[str],
    properties: Sequence[str],
    *,
    archived: bool = False,
    history: Sequence[str] = (),
) -> BatchRead:
    """Read any number of deals, held in memory all at once: some thousands at most."""
    whole = BatchRead()

    async def read(batch: Sequence[str]) -> BatchRead:
        return await read_batch(
            client, endpoints, batch, properties, archived=archived, history=history
        )

    for part in await in_batches(ids, HISTORY_BATCH if history else BATCH, read):
        whole.found.update(part.found)
        whole.gone.update(part.gone)
    return whole


async def in_batches(
    items: Sequence[str], size: int, read: Callable[[Sequence[str]], Awaitable[_T]]
) -> list[_T]:
    """Return what was read of each batch of items, in order; some are read at a time."""
    items = list(dict.fromkeys(items))
    starts = iter(range(0, len(items), size))
    results: dict[int, _T] = {}

    async def work() -> None:
        for start in starts:
            results[start] = await read(items[start : start + size])

    await work_together(work() for _ in range(min(_READERS, len(items))))
    return [results[start] for start in sorted(results)]


def _unexplained(deal_id: str) -> HubSpotProtocolError:
    msg = (
        f"HubSpot listed the deal {deal_id}, but twice gave neither its properties nor "
        "a reason; stopped, so that no deal is lost. Run it again later."
    )
    return HubSpotProtocolError(msg)
