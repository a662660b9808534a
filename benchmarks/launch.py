"""What starting a scan costs: Dagster's stock launcher and ours, side by side in one run.

Run it as `python benchmarks/launch.py`. Both stacks are up at the same time and take turns, so that
whatever else the machine does meets both. It takes eight minutes on two cores.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figure, at_least, at_most, print_figures
from benchmarks.stacks import BURST_POLL_SECONDS, Bench, Usage, running_stack, watched

_STOCK, _OURS = "stock", "ours"
_ROUNDS, _BURSTS, _BURST, _TOGETHER, _MANY, _DEALS = 7, 2, 30, 20, 200, 10_000
_FIRST: Final = 0.3
_FASTER: Final = 8
_MEGABYTES: Final = 60
_CONNECTIONS: Final = 3
_SESSIONS: Final = 100
# Of the account's three years: a few dozen deals, and about a hundred.
_FEW: Final = {"dateRange": {"startDate": "2024-03-01", "endDate": "2024-03-01"}}
_HUNDRED: Final = {"dateRange": {"startDate": "2024-03-01", "endDate": "2024-03-11"}}


def run(
    rounds: int = _ROUNDS,
    bursts: int = _BURSTS,
    together: int = _TOGETHER,
    many: int = _MANY,
    names: tuple[str, ...] = (_STOCK, _OURS),
) -> list[Figure]:
    """Measure both launchers; a number of 0 leaves that part out."""
    figures: list[Figure] = []
    with _stacks(names) as benches:
        if rounds:
            figures += _starts(benches, rounds)
        if bursts:
            figures += _bursts(benches, bursts)
        for bench in benches:
            if bench.name == _OURS and together:
                figures += _usage(bench, together)
            if bench.name == _OURS and many:
                figures += _many(bench, many)
    return figures


@contextmanager
def _stacks(names: tuple[str, ...]) -> Iterator[list[Bench]]:
    with ExitStack() as stack:
        # PostgreSQL's own user, under root, has to pass.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hubspot-deals-")))
        folder.chmod(0o711)
        yield [stack.enter_context(running_stack(name, folder, _DEALS)) for name in names]


def _starts(benches: list[Bench], rounds: int) -> list[Figure]:
    """Let the stacks take turns with single scans."""
    seconds: dict[str, list[tuple[float, float]]] = {bench.name: [] for bench in benches}
    for number in range(rounds + 1):
        for bench in benches:
            measured = _start(bench)
            if number:  # the first one finds caches cold
                seconds[bench.name].append(measured)
    firsts = {name: statistics.median(first for first, _ in all_) for name, all_ in seconds.items()}
    ends = {name: statistics.median(end for _, end in all_) for name, all_ in seconds.items()}
    what = "POST to the first HubSpot request"
    if len(benches) == 1:
        return [Figure(what, *(f"{first:.2f} s" for first in firsts.values()))]
    shown, whole = (
        {name: f"{value:.2f} s" for name, value in values.items()} for values in (firsts, ends)
    )
    ratio = firsts[_OURS] / firsts[_STOCK]
    end = Figure(
        "POST to the end of a small scan",
        *(whole[_OURS], whole[_STOCK], ends[_OURS] / ends[_STOCK]),
    )
    return [at_most(what, ratio, _FIRST, shown[_OURS], shown[_STOCK]), end]


def _start(bench: Bench) -> tuple[float, float]:
    """Seconds from POST to the first HubSpot request, and to the end, of one scan."""
    bench.control.reset()
    began = time.time()
    scan_id = bench.start(**_FEW)
    bench.wait([scan_id])
    ended = time.time()
    first = min(entry["at"] for entry in bench.control.requests()["last"])
    return first - began, ended - began


def _bursts(benches: list[Bench], bursts: int) -> list[Figure]:
    """Let the stacks take turns with bursts."""
    rates: dict[str, list[float]] = {bench.name: [] for bench in benches}
    for _ in range(bursts):
        for bench in benches:
            began = time.monotonic()
            bench.wait(bench.start_together(_BURST, **_FEW), BURST_POLL_SECONDS)
            rates[bench.name].append(60 * _BURST / (time.monotonic() - began))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    shown = {name: f"{rate:.0f} runs a minute" for name, rate in medians.items()}
    what = f"burst of {_BURST} scans"
    if len(benches) == 1:
        return [Figure(what, *shown.values())]
    ratio = medians[_OURS] / medians[_STOCK]
    return [at_least(what, ratio, _FASTER, shown[_OURS], shown[_STOCK])]


def _usage(bench: Bench, scans: int) -> list[Figure]:
    """Full scans together: memory and connections of their workers."""
    with watched(bench) as usage:
        bench.wait(bench.start_together(scans), BURST_POLL_SECONDS)
    connections = statistics.mean(usage.connections)
    of = f"{usage.together} scans of {_DEALS:,} deals at once"
    return [
        _memory(usage, of),
        Figure(
            f"connections of a worker, {of}",
            f"mean {connections:.1f}, most {max(usage.connections)}",
            wanted=f"mean at most {_CONNECTIONS}",
            is_met=connections <= _CONNECTIONS,
        ),
        Figure(
            f"sessions of the whole stack, {of}",
            f"most {usage.sessions}",
            wanted=f"at most {_SESSIONS}",
            is_met=usage.sessions <= _SESSIONS,
        ),
    ]


def _many(bench: Bench, scans: int) -> list[Figure]:
    """Short scans, far more than may run at once."""
    began = time.monotonic()
    with watched(bench) as usage:
        deals = bench.wait(bench.start_together(scans, **_HUNDRED), BURST_POLL_SECONDS)
    rate = 60 * scans / (time.monotonic() - began)
    of = f"{scans} scans of {deals / scans:.0f} deals posted at once"
    # A scan that does not complete ends the benchmark with an error.
    return [Figure(f"{of}, all completed", f"{rate:.0f} scans a minute"), _memory(usage, of)]


def _memory(usage: Usage, of: str) -> Figure:
    return Figure(
        f"unique memory of a worker, {of}",
        f"median {usage.unique_median:.0f} MB, most {max(usage.unique):.0f} MB",
        wanted=f"at most {_MEGABYTES} MB",
        is_met=usage.unique_median <= _MEGABYTES,
    )


@click.command()
@click.option("--rounds", default=_ROUNDS, show_default=True, help="Single scans of each launcher.")
@click.option("--bursts", default=_BURSTS, show_default=True, help=f"Bursts of {_BURST} scans.")
@click.option("--together", default=_TOGETHER, show_default=True, help="Full scans at once.")
@click.option("--many", default=_MANY, show_default=True, help="Short scans posted at once.")
@click.option("--only", type=click.Choice([_STOCK, _OURS]), help="Leave the other one out.")
def main(rounds: int, bursts: int, together: int, many: int, only: str | None) -> None:
    """Measure both launchers."""
    names = (only,) if only else (_STOCK, _OURS)
    print_figures("Starting scans", run(rounds, bursts, together, many, names))


if __name__ == "__main__":
    main()
