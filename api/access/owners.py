"""Whose scans are, as a caller may know it."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from api.access.actor import Actor
from api.database import ConnectionPool, read
from hubspot_deals.warehouse.scans import ScanOwner, find_owners

_MOST_REMEMBERED: Final = 4_096


class Owners:
    """Looks up who owns scans, and remembers it for those who ask again before an answer."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._known: OrderedDict[str, ScanOwner] = OrderedDict()

    async def look(self, actor: Actor, scan_ids: Sequence[str]) -> dict[str, int]:
        """Return the numbers (`seq`) of those scans that are there and that the caller may see."""
        found = await read(self._pool, partial(find_owners, scan_ids=list(scan_ids)))
        for scan_id in scan_ids:
            self._known.pop(scan_id, None)
        self._known.update((owner.scan_id, owner) for owner in found)
        while len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return {owner.scan_id: owner.seq for owner in found if actor.may_see(owner.organization_id)}

    def remember(self, actor: Actor, scan_ids: Sequence[str]) -> Mapping[str, int] | None:
        """Return the same as it was when last looked; None unless the caller could see them all.

        An id may have passed to another scan since, so whoever relies on it has to look again.
        """
        known = [self._known.get(scan_id) for scan_id in scan_ids]
        seen = {
            owner.scan_id: owner.seq
            for owner in known
            if owner is not None and actor.may_see(owner.organization_id)
        }
        return seen if len(seen) == len(set(scan_ids)) else None
