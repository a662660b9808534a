"""What the fault tests measured, for the terminal and for docs/reliability.md."""

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_HEAD = ("What was done", "What came of it")
_rows: dict[str, str] = {}


def record(line: str, figure: str) -> None:
    """Keep one figure; a line that is recorded again takes the place of the earlier one."""
    _rows[line] = figure


def table() -> list[str]:
    """Return the figures as an aligned Markdown table, none if nothing was measured."""
    if not _rows:
        return []
    rows = [_HEAD, *sorted(_rows.items())]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"| {line:<{widths[0]}} | {figure:<{widths[1]}} |" for line, figure in rows]
    return [lines[0], f"|{'-' * (widths[0] + 2)}|{'-' * (widths[1] + 2)}|", *lines[1:]]


def is_prepared(page: Path = PAGE) -> bool:
    """Tell whether the page has the two markers, in their order."""
    return page.exists() and END in page.read_text().partition(BEGIN)[2]


def write_report(page: Path = PAGE) -> None:
    """Replace what stands between the two markers of the page by the table."""
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text("\n".join([before + BEGIN, "", *table(), "", END + after]))
