"""Reads the deals that were changed, created or restored since a moment, and where to go on.

Not all of what happens to deals is a change: see `identities` for deals that vanish.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.batches import MERGED_PROPERTY
from hubspot_deals.source.deals import DealPage
from hubspot_deals.source.plan import Checkpoint, MomentRange, SearchRange
from hubspot_deals.source.search import UnsoundSearchError

LAG: Final = timedelta(seconds=30)
"""How far the search index was seen to lag behind at most."""
OVERLAP: Final = timedelta(minutes=5)
"""How far it may lag behind without a change being missed."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(slots=True)
class ChangeStream:
    """The deals of a stretch of time, each once, with their present values.

    `cursor` and `is_proved` are final when `pages` has ended. The cursor is where the next run
    begins, whose overlap is before it. Where the search was not proved to be complete the cursor
    stays where it was, so that the next run asks again; what was found is true all the same.
    """

    pages: Iterator[DealPage]
    cursor: datetime
    until: datetime
    is_proved: bool = False


@contextmanager
def open_changes(  # noqa: PLR0913 - a reading's facts, and where it goes on
    account: HubSpotAccount,
    since: datetime,
    properties: Sequence[str],
    *,
    until: datetime | None = None,
    overlap: timedelta = OVERLAP,
    or_list: bool = False,
    start: Checkpoint | None = None,
    earlier: Iterable[tuple[str, str | None]] = (),
) -> Iterator[ChangeStream]:
    """Read what was changed from `since` on, or so much earlier, until before `until`.

    `until` is never later than now by HubSpot's clock: what is changed while this reads belongs to
    the next run. A deal that was changed once more meanwhile comes with its newer values, and one
    that others were merged into names them (`batches.merged_ids`), wanted or not.

    With `or_list` all live deals are listed where the search can't be proved: right, and as dear as
    a full scan. `start` and `earlier` are those of `HubSpotAccount.open_deals`; a run that goes on
    must be given the `until` that it began with.
    """
    now = account.now()
    until = now if until is None else min(until, now)
    span = MomentRange(_milliseconds(since - overlap), _milliseconds(until) - 1)
    plan = [SearchRange(span, or_list=or_list)]
    names = list(dict.fromkeys([*properties, MERGED_PROPERTY]))
    with account.open_deals(plan, names, start=start, earlier=earlier) as deals:
        stream = ChangeStream(iter(()), cursor=since, until=until)
        stream.pages = _proving(deals.pages, stream)
        yield stream


def _proving(pages: Iterator[DealPage], stream: ChangeStream) -> Iterator[DealPage]:
    try:
        yield from pages
    except UnsoundSearchError:
        return
    stream.is_proved = True
    stream.cursor = max(stream.cursor, stream.until)


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND
