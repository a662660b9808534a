"""How fast and how big downloads are: first byte, seconds, memory, and whether all of it is right.

Run it as `python benchmarks/downloads.py`, a quarter of an hour for a million deals, most of it for
the workbook: `--only` leaves others out. It starts a PostgreSQL and the API and ends them.
"""

import hashlib
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.download_rows import digest, rows_of, stored_rows
from benchmarks.figures import Figure, print_figures
from benchmarks.running_api import serve_deals
from benchmarks.serving_data import BIG_SCAN, COLUMNS

_MEMORY: Final = "memory"
PARTS: Final = ("json", "ndjson", "csv", "parquet", "excel", _MEMORY)
_MOST_MEMORY: Final = 400e6
_MOST_FIRST_SECONDS: Final = 1.0
_CUTS: Final = 10
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Service:
    """The API, and the database behind it."""

    url: str
    pid: int
    database: str

    def get(
        self, form: str, path: Path, headers: dict[str, str] | None = None, **params: str
    ) -> "Got":
        """Download into a file, behind what is in it already."""
        address = f"{self.url}/api/v1/results/{BIG_SCAN}/download/{form}"
        began, first, size = time.perf_counter(), 0.0, 0
        with (
            path.open("ab") as file,
            httpx.stream(
                "GET",
                address,
                params={"tableName": "deals", **params},
                headers=headers,
                timeout=900,
                trust_env=False,
            ) as answer,
        ):
            answer.raise_for_status()
            for piece in answer.iter_raw():
                first = first or time.perf_counter() - began
                size += file.write(piece)
        return Got(first, time.perf_counter() - began, size, answer.headers["ETag"])

    def manifest(self, form: str) -> dict[str, Any]:
        """Return the manifest of a file that is written."""
        address = f"{self.url}/api/v1/results/{BIG_SCAN}/download/{form}/manifest"
        answer = httpx.get(address, params={"tableName": "deals"}, trust_env=False)
        return answer.json()["data"]  # type: ignore[no-any-return]

    def memory(self) -> int:
        """Return the bytes of the API and its processes, shared pages once."""
        process = psutil.Process(self.pid)
        total = 0
        for one in (process, *process.children(recursive=True)):
            try:
                total += one.memory_full_info().pss
            except psutil.Error:
                continue
        return total


@dataclass(frozen=True, slots=True)
class Got:
    """One download."""

    first_seconds: float
    seconds: float
    size: int
    tag: str


def run(deals: int = 1_000_000, parts: Sequence[str] = PARTS) -> list[Figure]:
    """Measure each format alone, then downloads at once."""
    with serve_deals(deals) as api:
        service, folder = Service(api.url, api.pid, api.database), api.folder
        figures: list[Figure] = []
        for part in parts:
            if part == _MEMORY:
                figures.append(_at_once(service, folder))
            else:
                figures += _one(service, part, folder / part, deals)
        return figures


def _one(service: Service, form: str, path: Path, deals: int) -> list[Figure]:
    got = service.get(form, path)
    manifest = service.manifest(form)
    is_same = _sha256(path) == manifest["sha256"] and got.size == manifest["bytes"]
    rows = digest(rows_of(form, path))
    is_right = is_same and rows == digest(stored_rows(service.database, form)) and rows[0] == deals
    cuts = sum(_cut(service, form, path, got.tag) for _ in range(_CUTS))
    path.unlink()
    first = Figure(f"{form}: first byte", f"{got.first_seconds:.2f} s")
    if form != "excel":
        is_met = got.first_seconds <= _MOST_FIRST_SECONDS
        first = replace(first, wanted=f"at most {_MOST_FIRST_SECONDS:g} s", is_met=is_met)
    return [
        first,
        Figure(f"{form}: {deals:,} deals", f"{got.seconds:.1f} s, {got.size / 1e6:,.0f} MB"),
        Figure(f"{form}: rows, values, SHA-256 of the table", wanted="equal", is_met=is_right),
        Figure(
            f"{form}: cut and resumed", f"{cuts} identical", wanted=f"{_CUTS}", is_met=cuts == _CUTS
        ),
    ]


def _cut(service: Service, form: str, whole: Path, tag: str) -> bool:
    """Take up a file behind a random offset; True if what comes is the rest of it."""
    place = random.randrange(1, whole.stat().st_size)
    rest = whole.with_suffix(".rest")
    got = service.get(form, rest, {"Range": f"bytes={place}-", "If-Range": tag})
    is_same = got.tag == tag and _sha256(rest) == _sha256(whole, place)
    rest.unlink()
    return is_same


def _at_once(service: Service, folder: Path) -> Figure:
    """Let the API write and send different files at once, and watch its memory."""
    most_columns = ",".join(reversed(COLUMNS))
    asked = dict.fromkeys(("json", "ndjson", "csv", "parquet"), most_columns)
    # As much memory, in a tenth of the time.
    asked["excel"] = "id,amount"
    threads = [
        threading.Thread(
            target=service.get, args=(form, folder / f"{form}.many"), kwargs={"columns": chosen}
        )
        for form, chosen in asked.items()
    ]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, service.memory())
        time.sleep(0.1)
    return Figure(
        "memory of the API with 5 downloads at once",
        f"{most / 1e6:.0f} MB",
        wanted="at most 400 MB",
        is_met=most <= _MOST_MEMORY,
    )


def _sha256(path: Path, start: int = 0) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


@click.command()
@click.option("--deals", default=1_000_000, show_default=True)
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Leave out others.")
def main(deals: int, only: tuple[str, ...]) -> None:
    """Measure downloads."""
    print_figures("Downloads", run(deals, only or PARTS))


if __name__ == "__main__":
    main()
