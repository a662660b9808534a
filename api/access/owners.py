"""Whose the objects in a path are, as a caller may know it."""

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from api.access.actor import Actor
from api.database import ConnectionPool, read
from hubspot_deals.contract import SCAN_ID
from hubspot_deals.errors import HubSpotDealsError, ScanNotFoundError, WebhookNotFoundError
from hubspot_deals.sync_contract import CONNECTION_ID
from hubspot_deals.sync_errors import ConnectionNotFoundError
from hubspot_deals.warehouse.owners import OwnedKind, Owner, find_owners

_MOST_REMEMBERED: Final = 4_096


class Named(NamedTuple):
    """An object that a path names."""

    kind: OwnedKind
    object_id: str


@dataclass(frozen=True, slots=True)
class _Parameter:
    kind: OwnedKind
    form: re.Pattern[str]
    """Of its ids: what cannot be one is told by the route, which asks nobody about it."""


_SCAN: Final = _Parameter(OwnedKind.SCAN, SCAN_ID)
_CONNECTION: Final = _Parameter(OwnedKind.CONNECTION, CONNECTION_ID)
_WEBHOOK: Final = _Parameter(OwnedKind.WEBHOOK, re.compile(r"wh_[0-9a-f]{32}"))
_PARAMETERS: Final[Mapping[str, _Parameter]] = {
    "scan_id": _SCAN,
    "other_scan_id": _SCAN,
    "connection_id": _CONNECTION,
    "webhook_id": _WEBHOOK,
}
"""The parameters of paths that are checked for every route."""

_UNKNOWN: Final[Mapping[OwnedKind, Callable[[str], HubSpotDealsError]]] = {
    OwnedKind.SCAN: ScanNotFoundError,
    OwnedKind.CONNECTION: ConnectionNotFoundError,
    OwnedKind.WEBHOOK: WebhookNotFoundError,
}


def named_in(params: Mapping[str, str]) -> list[Named]:
    """Return the objects that a path names, in their order."""
    return [
        Named(known.kind, params[name])
        for name, known in _PARAMETERS.items()
        if known.form.fullmatch(params.get(name, ""))
    ]


def objects_in(params: Mapping[str, str]) -> list[tuple[OwnedKind | None, str]]:
    """Return each id in a path with the kind of its object, None for what nobody owns alone."""
    return [
        (_PARAMETERS[name].kind if name in _PARAMETERS else None, text)
        for name, text in params.items()
        if name.endswith("_id")
    ]


def unknown_error(named: Named) -> HubSpotDealsError:
    """Build the error of an object that does not exist."""
    return _UNKNOWN[named.kind](named.object_id)


class Owners:
    """Looks up whose objects are, and remembers it for those who look again before an answer."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._known: OrderedDict[Named, Owner] = OrderedDict()

    async def look(self, actor: Actor, asked: Collection[Named]) -> dict[Named, int]:
        """Return the numbers (`seq`) of those that are there and that the caller may see."""
        wanted: dict[OwnedKind, list[str]] = {}
        for named in asked:
            wanted.setdefault(named.kind, []).append(named.object_id)
        found: dict[Named, Owner] = {}
        for kind, ids in wanted.items():
            owners = await read(self._pool, partial(find_owners, kind=kind, object_ids=ids))
            found |= {Named(kind, owner.object_id): owner for owner in owners}
        for named in asked:
            self._known.pop(named, None)
        self._known.update(found)
        while len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return _visible(actor, found)

    def remember(self, actor: Actor, asked: Iterable[Named]) -> Mapping[Named, int] | None:
        """Return the same as it was when last looked; None unless the caller could see them all.

        An id may have passed to another object since, so whoever relies on it looks again.
        """
        wanted = set(asked)
        known = {named: self._known[named] for named in wanted if named in self._known}
        seen = _visible(actor, known)
        return seen if len(seen) == len(wanted) else None


def _visible(actor: Actor, owners: Mapping[Named, Owner]) -> dict[Named, int]:
    return {
        named: owner.seq for named, owner in owners.items() if actor.may_see(owner.organization_id)
    }
