"""How long the audit behind a certificate takes.

Run it as `python benchmarks/audits.py`. It starts a PostgreSQL and the API and ends them.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any, Final

import click
import httpx
import psycopg

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figure, print_figures
from benchmarks.running_api import serve_deals
from benchmarks.serving_data import BIG_SCAN

_DEALS: Final = "hubspot_deals_extraction.deals"
_ROUNDS: Final = 3

# What a worker writes down beside a chunk before it is stored.
_HASH_CHUNKS: Final = f"""
    UPDATE hubspot_deals.scan_chunks c SET key_hash = (
        SELECT encode(sha256(convert_to(
            string_agg(d.id || E'\\n', '' ORDER BY d.id COLLATE "C"), 'UTF8')), 'hex')
        FROM {_DEALS} d WHERE d.scan_id = c.scan_id AND d._dlt_load_id = c.load_id
        AND d.row_no BETWEEN c.first_row AND c.first_row + c.row_count - 1
    )
"""


def run(deals: int = 1_000_000) -> list[Figure]:
    """Audit one scan beside counting its ids, then with one deal gone."""
    with serve_deals(deals) as api, psycopg.connect(api.database, autocommit=True) as database:
        database.execute(_HASH_CHUNKS)
        database.execute("VACUUM ANALYZE")
        address = f"{api.url}/api/v1/results/{BIG_SCAN}/certificate"
        times, floors = [], []
        for _ in range(_ROUNDS):
            seconds, whole = _timed(address)
            times.append(seconds)
            began = time.perf_counter()
            database.execute(f"SELECT count(*), count(DISTINCT id) FROM {_DEALS}")
            floors.append(time.perf_counter() - began)
        database.execute(f"DELETE FROM {_DEALS} WHERE row_no = %s", (deals // 2,))
        seconds, spoilt = _timed(address)
    time_of, floor = statistics.median(times), statistics.median(floors)
    is_met = whole["complete"] and not whole["audit"]["differences"]
    named = [found["rowNumbers"] for found in spoilt["audit"]["differences"]]
    what = f"audit of {deals:,} deals"
    return [
        Figure(what, f"{time_of:.2f} s", f"{floor:.2f} s", time_of / floor),
        Figure(f"{what}: nothing differs", wanted="complete", is_met=is_met),
        Figure(f"{what}, one deleted", f"{seconds:.2f} s"),
        Figure(f"{what}, one deleted: its row", wanted="named", is_met=[deals // 2] in named),
    ]


def _timed(address: str) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    answer = httpx.get(address, timeout=600, trust_env=False)
    answer.raise_for_status()
    return time.perf_counter() - began, answer.json()["data"]


@click.command()
@click.option("--deals", default=1_000_000, show_default=True)
def main(deals: int) -> None:
    """Measure audits."""
    print_figures("Audits", run(deals))


if __name__ == "__main__":
    main()
