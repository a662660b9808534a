"""Reads diffs: a page, all of it line by line, or numbers."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson
from psycopg import AsyncConnection

from api.database import ConnectionPool, read
from api.diffs.schemas import DiffCounts, DiffPagination, DiffProperties, DiffSide, Position
from api.errors import SnapshotReplacedError
from api.results.service import get_snapshot
from hubspot_deals.errors import ScanNotFoundError
from hubspot_deals.warehouse import diffs
from hubspot_deals.warehouse.diffs import MOST_IDS, Changes, Pair
from hubspot_deals.warehouse.results import RAW_TABLE, Snapshot
from hubspot_deals.warehouse.scans import ScanRecord, get_scan

_FIRST_IDS: Final = 1_000
"""So few, so that a page is soon there where much has changed."""

_MOST_CHANGES: Final = 1_000
_PAGE_SECONDS: Final = 5.0
"""After which a page is sent with what was found."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two scans of one organization, both served."""

    pair: Pair
    old: ScanRecord
    new: ScanRecord

    def head(self) -> dict[str, Any]:
        """Return what every answer says of the two."""
        properties = DiffProperties(
            compared=self.pair.compared,
            only_in_old=self.pair.only_in_old,
            only_in_new=self.pair.only_in_new,
        )
        return {
            "old": _side(self.pair.old, self.old).model_dump(by_alias=True),
            "new": _side(self.pair.new, self.new).model_dump(by_alias=True),
            "properties": properties.model_dump(by_alias=True),
        }

    def position(self, last_id: str) -> Position:
        """Return the place behind a deal of these very snapshots."""
        old, new = self.pair.old, self.pair.new
        return Position((old.seq, old.generation), (new.seq, new.generation), last_id)


class _Pace:
    """How many deals are compared at a time: as many as will have the changes that are wanted."""

    def __init__(self) -> None:
        self.ids = _FIRST_IDS

    def adapt(self, *, found: int, wanted: int) -> None:
        """Take note of what the last deals brought, and of what is wanted of the next ones."""
        likely = self.ids * wanted // max(found, 1)
        self.ids = min(max(likely, _FIRST_IDS), 4 * self.ids, MOST_IDS)


class DiffReader:
    """Compares two scans, each range of deals on a connection that is lent for it alone."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def open(self, old_id: str, new_id: str) -> Comparison:
        """Return what is to be compared; raises what a page of either scan would raise.

        A scan of another organization is answered like one that does not exist.
        """
        return await read(self._pool, partial(_open, old_id=old_id, new_id=new_id))

    async def get_page(
        self, compared: Comparison, limit: int, cursor: str | None
    ) -> tuple[bytes, str | None]:
        """Return up to `limit` changes from a cursor on, as JSON, and the cursor after them."""
        after = ""
        if cursor is not None:
            wanted = Position.from_cursor(cursor)
            _raise_if_replaced(wanted, compared)
            after = wanted.last_id
        deadline = time.monotonic() + _PAGE_SECONDS
        pace, found, returned = _Pace(), [], 0
        while True:
            part = await self._find(compared, after, pace.ids, limit - returned, ",")
            found += [part.records] if part.returned else []
            returned += part.returned
            after = part.last_id or after
            if part.is_end or returned >= limit or time.monotonic() > deadline:
                break
            pace.adapt(found=part.returned, wanted=limit - returned)
        following = None if part.is_end else compared.position(after).to_cursor()
        pagination = DiffPagination(
            limit=limit,
            returned=returned,
            has_more=following is not None,
            next_cursor=following,
        )
        data = compared.head() | {
            "changes": orjson.Fragment(b"[%b]" % b",".join(found)),
            "pagination": pagination.model_dump(by_alias=True),
        }
        return orjson.dumps({"success": True, "data": data}), following

    async def lines(self, compared: Comparison) -> AsyncIterator[bytes]:
        """Yield all changes, one JSON object a line; the first piece comes with the first range.

        Raises SnapshotReplacedError, or what a page would raise, once either is not served.
        """
        after, pace = "", _Pace()
        while True:
            part = await self._find(compared, after, pace.ids, _MOST_CHANGES, "\n")
            yield part.records + b"\n" if part.returned else b""
            if part.is_end:
                return
            after = part.last_id or after
            # Not all that a call may bring: what is behind its limit is compared once more.
            pace.adapt(found=part.returned, wanted=_MOST_CHANGES * 3 // 4)

    async def summarize(self, compared: Comparison) -> bytes:
        """Return how many deals differ, as JSON."""
        after, kinds, properties = "", Counter[str](), Counter[str]()
        while True:
            count = partial(diffs.count_changes, pair=compared.pair, after=after, ids=MOST_IDS)
            part = await read(self._pool, count)
            if part is None:
                raise await self._why_hidden(compared)
            kinds += part.kinds
            properties += part.properties
            if part.is_end:
                break
            after = part.last_id or after
        counts = DiffCounts(
            added=kinds["added"],
            removed=kinds["removed"],
            changed=kinds["changed"],
            unchanged=_deals(compared.pair.old) - kinds["removed"] - kinds["changed"],
            by_property=dict(properties.most_common()),
        )
        data = compared.head() | {"summary": counts.model_dump(by_alias=True)}
        return orjson.dumps({"success": True, "data": data})

    async def _find(
        self, compared: Comparison, after: str, ids: int, limit: int, separator: str
    ) -> Changes:
        found = await read(
            self._pool,
            partial(
                diffs.find_changes,
                pair=compared.pair,
                after=after,
                ids=ids,
                limit=limit,
                separator=separator,
            ),
        )
        if found is None:
            raise await self._why_hidden(compared)
        return found

    async def _why_hidden(self, compared: Comparison) -> Exception:
        now = await self.open(compared.old.scan_id, compared.new.scan_id)
        _raise_if_replaced(compared.position(""), now)
        # Served, hidden and served again within two statements.
        return SnapshotReplacedError(
            compared.old.scan_id, compared.pair.old.generation, now.pair.old.generation
        )


async def _open(connection: AsyncConnection[Any], *, old_id: str, new_id: str) -> Comparison:
    old = await get_scan(connection, old_id)
    new = await get_scan(connection, new_id)
    if new.organization_id != old.organization_id:
        raise ScanNotFoundError(new_id)
    pair = Pair(
        await get_snapshot(connection, scan_id=old_id),
        await get_snapshot(connection, scan_id=new_id),
    )
    if (pair.old.seq, pair.new.seq) != (old.seq, new.seq):
        # Removed and started anew since, perhaps by somebody else.
        raise ScanNotFoundError(new_id)
    if (pair.old.generation, pair.new.generation) != (old.generation, new.generation):
        # An attempt has completed since: what was asked for and what is served have to agree.
        return await _open(connection, old_id=old_id, new_id=new_id)
    return Comparison(pair, old, new)


def _raise_if_replaced(wanted: Position, compared: Comparison) -> None:
    served = compared.position("")
    for scan, before, now in (
        (compared.old, wanted.old, served.old),
        (compared.new, wanted.new, served.new),
    ):
        if before != now:
            raise SnapshotReplacedError(scan.scan_id, before[1], now[1])


def _side(snapshot: Snapshot, scan: ScanRecord) -> DiffSide:
    return DiffSide(
        scan_id=scan.scan_id,
        snapshot=snapshot.generation,
        ended_at=scan.served_end,
        deals=_deals(snapshot),
        filters=scan.served_config.get("filters", {}),
    )


def _deals(snapshot: Snapshot) -> int:
    return sum(table.row_count for table in snapshot.tables if table.table_name == RAW_TABLE)
