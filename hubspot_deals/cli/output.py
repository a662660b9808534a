"""What the commands print: tables, progress, and lines where there is no terminal."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from hubspot_deals.contract import ScanStatus
from hubspot_deals.logs import one_line

_POLL_SECONDS: Final = 0.5
_OFTEN_SECONDS: Final = 60.0
"""How long that often is often enough; then less and less often, for an hour has 1,000 requests."""
_MOST_POLL_SECONDS: Final = 10.0
_LINE_SECONDS: Final = 5.0
_CELL_WIDTH: Final = 36
_FILE_WIDTH: Final = 200
_NAMES: Final = 10
_ENDED: Final = {
    ScanStatus.COMPLETED,
    ScanStatus.FAILED,
    ScanStatus.CANCELLED,
    ScanStatus.CRASHED,
}

Scan = dict[str, Any]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def echo_json(document: object) -> None:
    """Print a document for a program to read."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def echo_confirmation(
    answer: Mapping[str, Any], about: str | None = None, *, as_json: bool
) -> None:
    """Print what the API says that it has done, about the object of an id if one is named."""
    if as_json:
        echo_json(answer["data"])
    else:
        click.echo(f"{about}: {answer['message']}" if about else answer["message"])


def echo_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str = "",
    cell_width: int = _CELL_WIDTH,
) -> None:
    """Print rows for a person to read; long cells are cut."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column)
    for row in rows:
        # Of columns that may wrap the widest gives way first; their cells are cut all the same.
        table.add_row(
            *(Text(_cell(value, cell_width), no_wrap=True, overflow="ellipsis") for value in row)
        )
    # Without a terminal there is no width to fit into.
    width = None if Console().is_terminal else _FILE_WIDTH
    Console(markup=False, highlight=False, width=width).print(table)


def enumerate_names(names: Sequence[object]) -> str:
    """Return the first names with commas between them, and a sign that there are more."""
    more = ", …" if len(names) > _NAMES else ""
    return ", ".join(map(str, names[:_NAMES])) + more


def readable_moment(moment: str | None) -> str | None:
    """Return a moment of the API, which is UTC, without what a table has no room for."""
    return moment and moment[: len("2026-11-23T21:35:23")].replace("T", " ")


def echo_scan(scan: Scan) -> None:
    """Print a scan's status in a few lines."""
    lines: Mapping[str, object] = {
        "scan": scan["scanId"],
        "organization": scan.get("organizationId"),
        "status": scan["status"],
        "records": f"{scan.get('recordsExtracted') or 0:,}",
        "progress": _percent(scan),
        "started": scan.get("startTime"),
        "ended": scan.get("endTime"),
        "goes on": scan.get("resumeAt"),
        "error": scan.get("errorMessage"),
    }
    echo_facts(lines)


def echo_facts(lines: Mapping[str, object]) -> None:
    """Print a name and a value a line, without those that have no value."""
    for name, value in lines.items():
        if value:
            click.echo(f"{name:<13} {value}")


def follow(get_scan: Callable[[], Scan], checkpoint: Callable[[], None], *, quiet: bool) -> Scan:
    """Show a scan's progress until it has ended, and return its last status.

    `checkpoint` is called at every turn and may raise to stop following.
    """
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        return _follow_in_lines(get_scan, checkpoint, quiet=quiet)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[records]:,} records"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("pending", total=None, records=0)
        said = ""
        for scan in _polled(get_scan, checkpoint):
            if (notice := _notice(scan)) != said and notice:
                progress.console.print(notice, markup=False, highlight=False)
            said = notice
            progress.update(
                task,
                description=str(scan["status"]),
                # Without a known total the bar moves to and fro.
                total=None if (percent := _progress(scan)) is None else 100,
                completed=percent or 0,
                records=scan.get("recordsExtracted") or 0,
            )
    return scan


def _follow_in_lines(
    get_scan: Callable[[], Scan], checkpoint: Callable[[], None], *, quiet: bool
) -> Scan:
    shown, printed_at = "", 0.0
    for scan in _polled(get_scan, checkpoint):
        notice = _notice(scan)
        line = notice or _line(scan)
        is_due = time.monotonic() - printed_at > _LINE_SECONDS or notice or scan["status"] in _ENDED
        if not quiet and line != shown and is_due:
            click.echo(line, err=True)
            shown, printed_at = line, time.monotonic()
    return scan


def _polled(get_scan: Callable[[], Scan], checkpoint: Callable[[], None]) -> Iterable[Scan]:
    began, pause = time.monotonic(), _POLL_SECONDS
    while True:
        checkpoint()
        scan = get_scan()
        yield scan
        if scan["status"] in _ENDED:
            return
        if time.monotonic() - began > _OFTEN_SECONDS:
            pause = min(1.1 * pause, _MOST_POLL_SECONDS)
        time.sleep(pause)


def _line(scan: Scan) -> str:
    return f"{scan['status']}: {scan.get('recordsExtracted') or 0:,} records {_percent(scan)}"


def _notice(scan: Scan) -> str:
    """Say until when a scan rests; empty while it does not."""
    if scan["status"] != ScanStatus.PAUSED:
        return ""
    if (moment := scan.get("resumeAt")) is not None:
        return f"paused until {moment}, then it goes on by itself"
    return f"paused until somebody resumes it: hubspot-deals scan resume {scan['scanId']}"


def _cell(value: object, width: int) -> str:
    # Of the audit log, for one, callers have written some: a terminal must not obey them.
    text = "" if value is None else one_line(str(value))
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _progress(scan: Scan) -> float | None:
    progress: float | None = (scan.get("checkpointInfo") or {}).get("progress")
    return progress


def _percent(scan: Scan) -> str:
    progress = _progress(scan)
    return "" if progress is None else f"{progress:.0f} %"
