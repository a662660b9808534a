"""How long deals stood in which stage, from the histories of `dealstage` and `pipeline`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hubspot_deals.source.arrow import parse_timestamp
from hubspot_deals.source.batches import read_batches
from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.endpoints import Endpoints

HISTORY: Final = ("dealstage", "pipeline")
CUT_AT: Final = 20
"""Versions from which on a history may have lost its oldest ones."""
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


async def read_stage_history(
    client: HubSpotClient, endpoints: Endpoints, deal_ids: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows of `deal_stage_history` of live deals, a request for each fifty.

    A deal that is archived, merged away or gone has none here: its rows end as they are.
    """
    read = await read_batches(client, endpoints, deal_ids, ["dealstage"], history=HISTORY)
    return [row for deal in read.own() for row in stage_rows(deal)]


@dataclass(frozen=True, slots=True)
class _Version:
    value: str
    moment: datetime
    source: Mapping[str, Any]


def stage_rows(deal: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stays of a deal in its stages, oldest first.

    Each row has `deal_id`, `entered_at` and `place` (which tells stays apart that began in the same
    millisecond), `stage_id`, `pipeline_id`, `visit` (1 for the first time in this stage), `left_at`
    and `seconds` (both None while it stands there), and who moved it: `source_type`, `source_id`,
    `user_id`. `is_cut` says that HubSpot may have dropped earlier versions: rows that are stored of
    before the first one are then still right, and `visit` counts from there.
    """
    histories = deal.get("propertiesWithHistory")
    histories = histories if isinstance(histories, Mapping) else {}
    stages, is_cut = _versions(histories.get("dealstage"))
    pipelines, _ = _versions(histories.get("pipeline"))
    changes = _changes(stages)
    visits: Counter[str] = Counter()
    places: Counter[datetime] = Counter()
    rows: list[dict[str, Any]] = []
    for number, version in enumerate(changes, 1):
        left = changes[number].moment if number < len(changes) else None
        if version.value:
            visits[version.value] += 1
            places[version.moment] += 1
            rows.append(
                {
                    "deal_id": str(deal["id"]),
                    "place": places[version.moment],
                    "visit": visits[version.value],
                    "is_cut": is_cut,
                }
                | _stay(version, left, pipelines)
            )
    return rows


def _stay(
    version: _Version, left: datetime | None, pipelines: Sequence[_Version]
) -> dict[str, Any]:
    return {
        "entered_at": version.moment,
        "stage_id": version.value,
        "pipeline_id": _pipeline_of(pipelines, version.moment, left),
        "left_at": left,
        "seconds": (left - version.moment) / timedelta(seconds=1) if left else None,
        "source_type": version.source.get("sourceType"),
        "source_id": version.source.get("sourceId"),
        "user_id": version.source.get("updatedByUserId"),
    }


def _versions(history: Any) -> tuple[list[_Version], bool]:
    """Return the versions of a property, oldest first, and whether older ones may be missing.

    HubSpot sends the newest first. Of two with the same time the later one in the list is older.
    """
    sent = [item for item in history or [] if isinstance(item, Mapping)]
    versions = []
    for item in reversed(sent):
        moment = parse_timestamp(str(item.get("timestamp") or ""))
        if moment is not None:
            versions.append(_Version(str(item.get("value") or ""), moment, item))
    versions.sort(key=lambda version: version.moment)
    return versions, len(sent) >= CUT_AT or len(versions) < len(sent)


def _changes(versions: Sequence[_Version]) -> list[_Version]:
    """Leave out versions that set what was set already: that is no move."""
    before = [None, *(version.value for version in versions)]
    return [
        version for value, version in zip(before, versions, strict=False) if value != version.value
    ]


def _pipeline_of(
    pipelines: Sequence[_Version], entered: datetime, left: datetime | None
) -> str | None:
    """Return the pipeline that a deal was in for most of a stay.

    Stage and pipeline are set together, but their times may be some milliseconds apart.
    """
    end = left or _LAST
    starts = [_FIRST, *(version.moment for version in pipelines[1:])]
    ends = [*starts[1:], _LAST]
    best, longest = None, timedelta(-1)
    for version, start, stop in zip(pipelines, starts, ends, strict=False):
        shared = min(end, stop) - max(entered, start)
        # Of equals the last one: where a stay had no length, what was set in its millisecond.
        if shared >= longest and shared >= timedelta():
            best, longest = version.value or None, shared
    return best
