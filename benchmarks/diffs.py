"""How long a diff of two big scans takes, and whether it is exactly what was changed.

Run it as `python benchmarks/diffs.py`, a minute. It starts a PostgreSQL and the API and ends them.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import httpx
import orjson
import psycopg
from psycopg.types.json import Jsonb

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figure, print_figures
from benchmarks.running_api import serve_deals
from benchmarks.serving_data import BIG_SCAN, COLUMNS

LATER_SCAN: Final = "every-deal-later"
_DATASET: Final = "hubspot_deals_extraction"
_ROUNDS: Final = 3
_MOST_SECONDS: Final = 5.0

Truth = dict[str, tuple[str, dict[str, Any]]]
"""By deal id: kind, and what differs with old and new value, or the whole record."""

_COPY_SCAN: Final = f"""
    WITH scan AS (
        INSERT INTO hubspot_deals.scans (scan_id, organization_id, config, request_hash,
            started_at, ended_at, outcome, generation, records_extracted)
        SELECT '{LATER_SCAN}', organization_id, config, '', now(), now(), outcome, generation,
            records_extracted FROM hubspot_deals.scans WHERE scan_id = '{BIG_SCAN}'
    ), tables AS (
        INSERT INTO hubspot_deals.scan_tables
        SELECT '{LATER_SCAN}', generation, table_name, row_count, extracted_count, columns
        FROM hubspot_deals.scan_tables WHERE scan_id = '{BIG_SCAN}'
    )
    INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no, load_id,
        first_row, row_count, epoch)
    SELECT '{LATER_SCAN}', generation, table_name, chunk_no, 'later-' || load_id, first_row,
        row_count, epoch FROM hubspot_deals.scan_chunks WHERE scan_id = '{BIG_SCAN}'
"""
# In another order, as HubSpot may list them, and with rows of a worker that died.
_COPY_DEALS: Final = f"""
    INSERT INTO {_DATASET}.deals (scan_id, row_no, id, archived, properties, _dlt_load_id)
    SELECT '{LATER_SCAN}', row_no, id, archived, properties, 'later-' || _dlt_load_id
    FROM {_DATASET}.deals WHERE scan_id = '{BIG_SCAN}' ORDER BY md5(id)
"""
_DEAD_ROWS: Final = f"""
    INSERT INTO {_DATASET}.deals (scan_id, row_no, id, archived, properties, _dlt_load_id)
    SELECT scan_id, row_no, id || suffix, archived, '{{"dealname": "never counted"}}', 'dead'
    FROM {_DATASET}.deals, (VALUES (''), ('7')) s (suffix)
    WHERE scan_id = '{LATER_SCAN}' AND row_no % 97 = 0
"""


def add_later_scan(url: str, changes: int) -> Truth:
    """Store a second scan that differs in so many deals; return what a diff has to say."""
    chance = random.Random(5)
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("SET synchronous_commit = off")
        database.execute(_COPY_SCAN)
        database.execute(_COPY_DEALS)
        found = database.execute(
            f"SELECT id, properties FROM {_DATASET}.deals WHERE scan_id = %s ORDER BY row_no",
            (BIG_SCAN,),
        ).fetchall()
        truth: Truth = {}
        for number, (deal_id, properties) in enumerate(chance.sample(found, changes)):
            kind = ("added", "removed", "changed", "changed")[number % 4]
            truth |= _CHANGE[kind](database, deal_id, properties, chance)
        database.execute(_DEAD_ROWS)
        database.execute("VACUUM ANALYZE")
    return truth


def _add(database: Any, deal_id: str, properties: dict[str, Any], _: random.Random) -> Truth:
    """Take a deal out of the first scan: its row there no longer counts."""
    database.execute(
        f"UPDATE {_DATASET}.deals SET _dlt_load_id = 'dead' WHERE scan_id = %s AND id = %s",
        (BIG_SCAN, deal_id),
    )
    return {deal_id: ("added", _record(deal_id, properties))}


def _remove(database: Any, deal_id: str, properties: dict[str, Any], _: random.Random) -> Truth:
    database.execute(
        f"DELETE FROM {_DATASET}.deals WHERE scan_id = %s AND id = %s", (LATER_SCAN, deal_id)
    )
    return {deal_id: ("removed", _record(deal_id, properties))}


def _change(
    database: Any, deal_id: str, properties: dict[str, Any], chance: random.Random
) -> Truth:
    """Change some properties: another text, cleared, null, a text for a null, or archived."""
    names = chance.sample(sorted(properties), chance.randrange(4))
    changes = {
        name: {"old": properties[name], "new": new}
        for name in names
        if (new := chance.choice(["Ærø \"7\" \\ 'x'\n", "", None, "true", "1e3"]))
        != properties[name]
    }
    archived = not changes
    if archived:
        changes = {
            "archived": {"old": False, "new": True},
            "archivedAt": {"old": None, "new": "2024-02-01T00:00:00.000Z"},
        }
    stored = properties | {} if archived else properties | {n: c["new"] for n, c in changes.items()}
    # What HubSpot sends unasked is not compared.
    stored["nobody_asked"] = deal_id
    database.execute(
        f"UPDATE {_DATASET}.deals SET properties = %s, archived = %s, archived_at = %s"
        " WHERE scan_id = %s AND id = %s",
        (Jsonb(stored), archived, "2024-02-01Z" if archived else None, LATER_SCAN, deal_id),
    )
    return {deal_id: ("changed", changes)}


_CHANGE: Final[dict[str, Callable[..., Truth]]] = {
    "added": _add,
    "removed": _remove,
    "changed": _change,
}


def _record(deal_id: str, properties: dict[str, Any]) -> dict[str, Any]:
    own = {"id": deal_id, "archived": False, "archivedAt": None}
    return {name: own.get(name, properties.get(name)) for name in COLUMNS}


def told(changes: list[dict[str, Any]]) -> Truth:
    """Return what a diff has said, in the same form."""
    found = {
        one["id"]: (one["kind"], one["changes"] if one["kind"] == "changed" else one["record"])
        for one in changes
    }
    assert len(found) == len(changes)
    assert [one["id"] for one in changes] == sorted(found)
    return found


@dataclass(frozen=True, slots=True)
class _Service:
    address: str

    def summary(self) -> dict[str, Any]:
        return self._get(summary="true")["summary"]  # type: ignore[no-any-return]

    def lines(self) -> list[dict[str, Any]]:
        answer = httpx.get(self.address, params={"format": "ndjson"}, timeout=120, trust_env=False)
        answer.raise_for_status()
        return [orjson.loads(line) for line in answer.content.splitlines()]

    def pages(self) -> list[dict[str, Any]]:
        return [change for page in self._pages() for change in page["changes"]]

    def _pages(self) -> Iterator[dict[str, Any]]:
        page = self._get()
        yield page
        while cursor := page["pagination"]["nextCursor"]:
            page = self._get(cursor=cursor)
            yield page

    def _get(self, **params: str) -> dict[str, Any]:
        answer = httpx.get(self.address, params=params, timeout=120, trust_env=False)
        answer.raise_for_status()
        return answer.json()["data"]  # type: ignore[no-any-return]


def run(deals: int = 100_000, changes: int = 1_000) -> list[Figure]:
    """Measure the three forms of a diff, then one of scans that have read other properties."""
    with serve_deals(deals) as api:
        truth = add_later_scan(api.database, changes)
        service = _Service(f"{api.url}/api/v1/results/{BIG_SCAN}/diff/{LATER_SCAN}")
        floor, _ = _median(partial(_bare, api.database))
        what = f"of {deals:,} deals, {changes:,} changed"
        figures = [
            *_measure(f"every change {what}, NDJSON", service.lines, floor, truth),
            *_measure(f"every change {what}, pages of 100", service.pages, floor, truth),
        ]
        seconds, counts = _median(service.summary)
        kinds = [kind for kind, _ in truth.values()]
        is_right = all(counts[kind] == kinds.count(kind) for kind in _CHANGE)
        figures += _lines(f"summary {what}", seconds, floor, is_right=is_right)
        _read_fewer_properties(api.database)
        seconds, _ = _median(service.summary)
        return [*figures, *_lines(f"summary {what}, other properties read", seconds, floor)]


def _measure(
    what: str, get: Callable[[], list[dict[str, Any]]], floor: float, truth: Truth
) -> list[Figure]:
    seconds, changes = _median(get)
    return _lines(what, seconds, floor, is_right=told(changes) == truth)


def _lines(
    what: str, seconds: float, floor: float, *, is_right: bool | None = None
) -> list[Figure]:
    is_met = seconds <= _MOST_SECONDS
    value, wanted = f"{seconds:.2f} s", f"at most {_MOST_SECONDS:g} s"
    figures = [Figure(what, value, f"{floor:.2f} s", seconds / floor, wanted, is_met)]
    if is_right is not None:
        figures.append(Figure(f"{what}: what was changed", wanted="exactly", is_met=is_right))
    return figures


def _median(get: Callable[[], Any]) -> tuple[float, Any]:
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        got = get()
        times.append(time.perf_counter() - began)
    return statistics.median(times), got


def _bare(url: str) -> None:
    """Compare whole rows with the plainest statement, which says only how many differ."""
    with psycopg.connect(url) as database:
        database.execute(
            f"SELECT count(*) FROM (SELECT * FROM {_DATASET}.deals WHERE scan_id = %s) o"
            f" FULL JOIN (SELECT * FROM {_DATASET}.deals WHERE scan_id = %s) n USING (id)"
            " WHERE o.properties IS DISTINCT FROM n.properties",
            (BIG_SCAN, LATER_SCAN),
        )


def _read_fewer_properties(url: str) -> None:
    """Let the later scan have read all but two properties: every row differs as a whole."""
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(
            f"UPDATE {_DATASET}.deals SET properties = properties - '{{hs_mrr,hs_arr}}'::text[]"
            " WHERE scan_id = %s",
            (LATER_SCAN,),
        )
        database.execute(
            "UPDATE hubspot_deals.scan_tables SET columns ="
            " array_remove(array_remove(columns, 'hs_mrr'), 'hs_arr') WHERE scan_id = %s",
            (LATER_SCAN,),
        )
        database.execute("VACUUM ANALYZE")


@click.command()
@click.option("--deals", default=100_000, show_default=True)
@click.option("--changes", default=1_000, show_default=True)
def main(deals: int, changes: int) -> None:
    """Measure diffs."""
    print_figures("Diffs", run(deals, changes))


if __name__ == "__main__":
    main()
