"""Deals as JSON, a page at a time: ready fragments picked by numpy and joined."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import groupby
from typing import Final

import orjson

from hubspot_sandbox.account import Ints
from hubspot_sandbox.clock import iso_ms
from hubspot_sandbox.columns import objects, render_moments
from hubspot_sandbox.store import Store

Slot = Callable[[Ints], list[bytes]]
_MOMENTS: Final = ("createdate", "hs_lastmodifieddate")
_FRAGMENT_BYTES: Final = 128_000_000
_PLANS: Final = 256


class Plan:
    """How to render one set of properties: the slots between the braces of `properties`."""

    def __init__(self, names: tuple[str, ...], store: Store) -> None:
        self.names = names
        self.size = 0
        self._store = store
        self.template = b",".join(self._parts())

    def _parts(self) -> list[bytes]:
        self.slots: list[Slot | str] = []
        parts: list[bytes] = []
        for is_profiled, group in groupby(self.names, self._store.is_profiled):
            names = tuple(group)
            if is_profiled:
                self.slots.append(self._profiled(names))
                parts.append(b"%b")
                continue
            for name in names:
                # The two moments are needed again for createdAt and updatedAt: render them once.
                is_moment = name in _MOMENTS
                self.slots.append(name if is_moment else self._store.column(name).json)
                parts.append(orjson.dumps(name) + (b':"%b"' if is_moment else b":%b"))
        return parts

    def _profiled(self, names: tuple[str, ...]) -> Slot:
        """One ready fragment per profile for a run of neighbouring properties."""
        keys = [orjson.dumps(name) + b":" for name in names]
        pools = [_with_key(key, self._pool(name)) for key, name in zip(keys, names, strict=True)]
        fragments = [b",".join(values) for values in zip(*pools, strict=True)]
        self.size += sum(map(len, fragments))
        table, account = objects(fragments), self._store.account

        def pick(rows: Ints) -> list[bytes]:
            picked: list[bytes] = table.take(account.profile.take(rows)).tolist()
            return picked

        return pick

    def _pool(self, name: str) -> list[str | None]:
        pool: list[str | None] = getattr(self._store.column(name), "pool", [])
        return pool


class Renderer:
    """Renders deals of the live store, and keeps the plans of the last property sets."""

    def __init__(self, store: Store, portal_id: int) -> None:
        self._store = store
        self._url = f"https://app.hubspot.com/contacts/{portal_id}/record/0-3/".encode()
        self._plans: OrderedDict[tuple[str, ...], Plan] = OrderedDict()

    def plan(self, requested: tuple[str, ...]) -> Plan:
        """The plan of a requested property set."""
        plan = self._plans.get(requested)
        if plan is None:
            plan = Plan(self._store.catalog.returned(requested), self._store)
            self._plans[requested] = plan
            # A set of 900 properties takes some 25 MB: keep the newest that fit.
            while len(self._plans) > 1 and self._is_full():
                self._plans.popitem(last=False)
        self._plans.move_to_end(requested)
        return plan

    def _is_full(self) -> bool:
        size = sum(plan.size for plan in self._plans.values())
        return size > _FRAGMENT_BYTES or len(self._plans) > _PLANS

    def deals(
        self, rows: Ints, plan: Plan, *, archived: bool = False, with_url: bool = True
    ) -> list[bytes]:
        """One JSON object per row."""
        if not len(rows):
            return []
        account = self._store.account
        # The bytes of ids and moments appear up to three times in a deal: made once here.
        ids = [b"%d" % number for number in account.ids.take(rows).tolist()]
        moments = {
            "createdate": render_moments(account.created_ms.take(rows)),
            "hs_lastmodifieddate": render_moments(account.modified_ms.take(rows)),
        }
        pieces = [ids]
        pieces += [moments[slot] if isinstance(slot, str) else slot(rows) for slot in plan.slots]
        pieces += [moments["createdate"], moments["hs_lastmodifieddate"]]
        template = b'{"id":"%b","properties":{' + plan.template
        template += b'},"createdAt":"%b","updatedAt":"%b","archived":'
        if archived:
            template += b'true,"archivedAt":"%b"'
            pieces.append(render_moments(account.archived_ms.take(rows)))
        else:
            template += b"false"
        if with_url:
            template += b',"url":"' + self._url + b'%b"'
            pieces.append(ids)
        template += b"}"
        deals = [template % parts for parts in zip(*pieces, strict=True)]
        if self._store.touched.take(rows).any():
            self._patch(deals, rows, plan, archived=archived, with_url=with_url)
        return deals

    def _patch(
        self, deals: list[bytes], rows: Ints, plan: Plan, *, archived: bool, with_url: bool
    ) -> None:
        """Render the changed deals of a page one by one."""
        for place, row in enumerate(rows.tolist()):
            if row in self._store.overlay:
                body = self.body(row, plan, archived=archived, with_url=with_url)
                deals[place] = orjson.dumps(body)

    def body(
        self, row: int, plan: Plan, *, archived: bool = False, with_url: bool = True
    ) -> dict[str, object]:
        """One deal as an object, for the paths that add to it."""
        account = self._store.account
        identity = str(account.ids[row])
        body: dict[str, object] = {
            "id": identity,
            "properties": self._store.values(row, plan.names),
            "createdAt": iso_ms(int(account.created_ms[row])),
            "updatedAt": iso_ms(int(account.modified_ms[row])),
            "archived": archived,
        }
        if archived:
            body["archivedAt"] = iso_ms(int(account.archived_ms[row]))
        if with_url:
            body["url"] = self._url.decode() + identity
        return body


def _with_key(key: bytes, pool: list[str | None]) -> list[bytes]:
    """`"key":value` per value; each distinct value is made once, pools repeat them a lot."""
    made = {value: key + orjson.dumps(value) for value in set(pool)}
    return [made[value] for value in pool]
