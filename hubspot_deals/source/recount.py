"""Counts the live deals once more when they are read, and finds out why a count differs.

HubSpot's search counts from an index that is some seconds behind, and accounts change while they
are read. So a difference has reasons that are no fault. They are looked for in this order: deals
that came or changed since the scan began, deals that the index does not know yet, and, by halving
ranges of ids, deals that are gone. A deal that is there, unchanged since before the scan began, and
was not read is missing.

An equal count costs one search. A difference costs at most `_MOST_SEARCHES` searches, a tenth as
many batch reads, and `_MOST_SECONDS` seconds.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pyroaring import BitMap64

from hubspot_deals.errors import HubSpotDealsError
from hubspot_deals.source.arrow import parse_timestamp
from hubspot_deals.source.deals import LIST_PAGE, DealReader
from hubspot_deals.source.pages import deals_of
from hubspot_deals.source.plan import (
    Span,
    above_id,
    changed_since,
    date_filters,
    is_inside,
    up_to_id,
)
from hubspot_deals.source.search import SEARCH_PAGE, UnsoundSearchError

_MOST_SEARCHES: Final = 60
_MOST_SECONDS: Final = 60.0
_RECOUNTS: Final = (0.0, 3.0, 6.0)
"""Seconds before a count is asked for again: the index is behind for a while."""
_MOST_RECENT: Final = 10 * SEARCH_PAGE
"""Deals that came or changed since the scan began: more are not looked at one by one."""
_MOST_READ: Final = 500
_MOST_NAMED: Final = 100
_CHANGES: Final = ("createdate", "hs_lastmodifieddate")


class Agreement(StrEnum):
    """What HubSpot's own count says about what was read."""

    EQUAL = "equal"
    EXPLAINED = "explained"
    DIFFERS = "differs"
    """Not all of the difference could be explained; no deal is known to be missing."""
    MISSING = "missing"
    NOT_COUNTED = "not_counted"


class Why(StrEnum):
    """Why HubSpot's count may differ without a fault."""

    CHANGED = "created, changed or restored since shortly before the scan began"
    TOO_MANY = "among those that came or changed since shortly before the scan began"
    NOT_INDEXED = "changed so lately that HubSpot's search does not know it yet"
    OUTDATED = "gone, or out of the range, but still counted by HubSpot's search"
    GONE = "archived, deleted, merged or moved out of the range since it was read"
    UNFOUND = "there, but not found by HubSpot's search"


@dataclass(slots=True)
class Recount:
    """How HubSpot's count compares with the live deals that are stored.

    `unexplained` is how many more HubSpot counts, by net, than could be found out in time;
    negative for fewer. `reasons` hold the number of deals and at most a hundred of their ids.
    """

    stored: int
    counted: int | None = None
    status: Agreement = Agreement.NOT_COUNTED
    note: str | None = None
    missing: list[int] = field(default_factory=list)
    unexplained: int = 0
    reasons: dict[Why, tuple[int, list[int]]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether nothing says that deals are missing."""
        return not self.missing and self.unexplained <= 0

    def explain(self, why: Why, ids: Sequence[int] | BitMap64, count: int | None = None) -> None:
        """Take a reason down, if there are such deals."""
        if number := len(ids) if count is None else count:
            known, named = self.reasons.get(why, (0, []))
            self.reasons[why] = known + number, [*named, *ids][:_MOST_NAMED]

    def to_json(self) -> dict[str, Any]:
        """Return it in the spelling of the REST documents; ids are texts."""
        return {
            "agreement": self.status.value,
            "counted": self.counted,
            "stored": self.stored,
            "note": self.note,
            "missing": len(self.missing),
            "missingIds": [str(number) for number in self.missing[:_MOST_NAMED]],
            "unexplained": self.unexplained,
            "reasons": [
                {"why": why.value, "deals": count, "ids": [str(number) for number in ids]}
                for why, (count, ids) in self.reasons.items()
            ],
        }


@dataclass(frozen=True, slots=True)
class KnownDeals:
    """The live deals that are stored, those of them that changed since a moment, and the moment.

    The moment is in epoch milliseconds, some time before the scan began.
    """

    stored: BitMap64
    fresh: BitMap64
    since: int


@dataclass(frozen=True, slots=True)
class _Window:
    """Ids above `low` and up to `high`: how many of them HubSpot counts, and how many are known."""

    low: int
    high: int | None
    counted: int
    known: int

    @property
    def surplus(self) -> int:
        return self.counted - self.known

    @property
    def bounds(self) -> list[dict[str, str]]:
        return [above_id(self.low)] + ([up_to_id(self.high)] if self.high is not None else [])


async def count_now(reader: DealReader, span: Span | None) -> tuple[int | None, str | None]:
    """Return HubSpot's count of the live deals in a range, or the reason why there is none."""
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            return await reader.search.total(date_filters(span)), None
    except HubSpotDealsError as error:
        return None, str(error)
    except UnsoundSearchError:
        return None, "HubSpot's deal search does not say how many deals there are."
    except TimeoutError:
        return None, f"HubSpot's search did not answer within {_MOST_SECONDS:.0f} seconds."


async def explain_count(
    reader: DealReader,
    span: Span | None,
    counted: int,
    known: KnownDeals,
    pauses: Sequence[float] = _RECOUNTS,
) -> Recount:
    """Find out why a count is not that of the stored deals."""
    comparison = _Comparison(reader, span, known, Recount(len(known.stored), counted))
    recount = comparison.recount
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            await comparison.carry_out(pauses)
    except (HubSpotDealsError, UnsoundSearchError, TimeoutError) as error:
        recount.note = str(error) or "HubSpot's search was too slow or too odd to find out more."
        recount.unexplained = (recount.counted or 0) - recount.stored
    recount.status = _status_of(recount)
    return recount


def _status_of(recount: Recount) -> Agreement:
    if recount.missing:
        return Agreement.MISSING
    if recount.counted == recount.stored:
        return Agreement.EQUAL
    return Agreement.DIFFERS if recount.unexplained else Agreement.EXPLAINED


class _Comparison:
    """One search for reasons."""

    def __init__(
        self, reader: DealReader, span: Span | None, known: KnownDeals, recount: Recount
    ) -> None:
        self._reader = reader
        self._span = span
        self._range = date_filters(span)
        self._known = known
        self._unchanged = [
            {
                "propertyName": "hs_lastmodifieddate",
                "operator": "LT",
                "value": str(known.since),
            },
            *self._range,
        ]
        self._searches = 0
        self._windows: list[_Window] = []
        self._unread: list[int] = []
        self._unfound: list[int] = []
        self.recount = recount

    async def carry_out(self, pauses: Sequence[float]) -> None:
        recent: BitMap64 | None = None
        for number, pause in enumerate(pauses):
            await asyncio.sleep(pause)
            if number:
                self.recount.counted = await self._count(self._range)
            if self.recount.counted == self.recount.stored:
                return
            recent = await self._find_recent()
            if recent is None:
                break
            if self._is_explained_by(recent, patient=number == 0):
                return
        await self._narrow_down(recent or BitMap64())

    async def _find_recent(self) -> BitMap64 | None:
        """Search for what came or changed since the scan began; None if that is too much."""
        found, skipped = BitMap64(), 0
        while skipped < _MOST_RECENT:
            self._searches += 1
            page = await self._reader.search.window(
                [changed_since(self._known.since), *self._range], skipped=skipped
            )
            found.update(page.ids)
            if page.is_last:
                return found
            if page.total > _MOST_RECENT:
                return None
            skipped += len(page.ids) or SEARCH_PAGE
        return None

    def _is_explained_by(self, recent: BitMap64, *, patient: bool) -> bool:
        """Compare only what has not changed; the index may not know yet that some of it has."""
        unchanged = (self.recount.counted or 0) - len(recent)
        stored = self._known.stored - recent
        lagging = self._known.fresh - recent
        ahead = len(stored) - unchanged
        if ahead and (patient or not 0 <= ahead <= len(lagging)):
            return False
        self.recount.explain(Why.CHANGED, recent - self._known.stored)
        self.recount.explain(Why.NOT_INDEXED, lagging if ahead == len(lagging) else [], ahead)
        return True

    async def _narrow_down(self, recent: BitMap64) -> None:
        known = self._known.stored - self._known.fresh - recent
        counted = await self._count(self._unchanged)
        self._windows = [_Window(0, None, counted, len(known))]
        while self._windows and self._searches < _MOST_SEARCHES:
            # Those where deals may be missing first, and of them the nearest to its end.
            window = min(self._windows, key=lambda one: (one.surplus < 0, one.counted))
            self._windows.remove(window)
            if window.surplus == 0:
                continue
            if -window.surplus > _MOST_READ and window.counted <= SEARCH_PAGE:
                self.recount.unexplained += window.surplus
            elif window.counted <= SEARCH_PAGE or window.known <= 1:
                await self._look_into(window, known)
            else:
                self._windows += await self._halve(window, known)
        self.recount.unexplained += self._left_over(recent)
        await self._look_at_unread()
        await self._look_at_unfound()
        self._explain_rest(counted, recent)

    async def _halve(self, window: _Window, known: BitMap64) -> list[_Window]:
        first = known.rank(window.low)
        half = window.known // 2
        middle = known[first + half - 1]
        low = _Window(window.low, middle, 0, half)
        counted = await self._count([*low.bounds, *self._unchanged])
        if counted > window.counted:
            raise UnsoundSearchError
        return [
            _Window(window.low, middle, counted, half),
            _Window(middle, window.high, window.counted - counted, window.known - half),
        ]

    async def _look_into(self, window: _Window, known: BitMap64) -> None:
        self._searches += 1
        page = await self._reader.search.window([*window.bounds, *self._unchanged])
        inside = BitMap64(page.ids)
        if any(not window.low < number <= (window.high or number) for number in page.ids):
            raise UnsoundSearchError
        self._unread += inside - self._known.stored
        if page.is_last:
            end = len(known) if window.high is None else known.rank(window.high)
            here = (known[place] for place in range(known.rank(window.low), end))
            self._unfound += [number for number in here if number not in inside]
        else:
            self.recount.unexplained += page.total - len(page.ids)

    def _left_over(self, recent: BitMap64) -> int:
        """Sum up what was not looked into, less what the index may only be behind with."""
        lagging = self._known.fresh - recent
        left = 0
        for window in self._windows:
            end = len(lagging) if window.high is None else lagging.rank(window.high)
            behind = end - lagging.rank(window.low)
            left += min(window.surplus, max(window.surplus - behind, 0))
        return left

    async def _look_at_unread(self) -> None:
        """Ask HubSpot's store, which is not behind, for the deals that only its search has."""
        ids = self._unread[:_MOST_READ]
        self.recount.unexplained += len(self._unread) - len(ids)
        found = await self._read(ids)
        for number in ids:
            deal = found.get(number)
            if deal is None or not is_inside(deal, self._span):
                self.recount.explain(Why.OUTDATED, [number])
            elif self._has_changed(deal):
                self.recount.explain(Why.CHANGED, [number])
            else:
                self.recount.missing.append(number)

    async def _look_at_unfound(self) -> None:
        ids = self._unfound[:_MOST_READ]
        self.recount.unexplained -= len(self._unfound) - len(ids)
        found = await self._read(ids)
        for number in ids:
            deal = found.get(number)
            is_there = deal is not None and is_inside(deal, self._span)
            if deal is not None and self._has_changed(deal):
                self.recount.explain(Why.CHANGED, [number])
            else:
                self.recount.explain(Why.UNFOUND if is_there else Why.GONE, [number])

    def _explain_rest(self, counted: int, recent: BitMap64) -> None:
        """What is left of a difference, when all unchanged deals agree, lies among the others."""
        if recent:
            self.recount.explain(Why.CHANGED, recent - self._known.stored)
        elif not self.recount.reasons and not self.recount.missing and not self.recount.unexplained:
            changed = (self.recount.counted or 0) - counted
            self.recount.explain(Why.TOO_MANY, [], max(changed, len(self._known.fresh)))

    def _has_changed(self, deal: Mapping[str, Any]) -> bool:
        texts = [deal["properties"].get(name) for name in _CHANGES]
        moments = [parse_timestamp(str(text or "")) for text in texts]
        return any(one and one.timestamp() * 1000 >= self._known.since for one in moments)

    async def _read(self, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        names = [*_CHANGES, *([self._span.field] if self._span else [])]
        found: dict[int, dict[str, Any]] = {}
        for first in range(0, len(ids), LIST_PAGE):
            inputs = [{"id": str(number)} for number in ids[first : first + LIST_PAGE]]
            answer = await self._reader.client.post(
                self._reader.endpoints.batch_read,
                {"inputs": inputs, "properties": names},
                params={"archived": "false"},
            )
            found |= {
                int(deal["id"]): deal for deal in deals_of(answer) if not deal.get("archived")
            }
        return found

    async def _count(self, bounds: Sequence[Mapping[str, str]]) -> int:
        self._searches += 1
        return await self._reader.search.total(bounds)
