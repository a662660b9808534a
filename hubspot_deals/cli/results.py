"""The `results` command: the tables of a scan, a page of rows, or all of them."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

from hubspot_deals.cli.client import Params
from hubspot_deals.cli.output import echo_json, echo_table
from hubspot_deals.cli.settings import CommandLine, pass_command_line
from hubspot_deals.errors import ConfigurationError

_SHOWN_COLUMNS: Final = 7
_LABELS: Final = 3
"""The last columns of deals that are asked for with their labels."""
_STREAMS: Final = ("ndjson", "csv")
_COMPARED: Final = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_FILTER: Final = re.compile(r"(\w+)\s*(=|>=?|<=?)(.*)", re.DOTALL)


@click.command()
@click.argument("scan_id")
@click.option("--table", help="Show rows of this table; without it, the tables are listed.")
@click.option("--limit", default=20, show_default=True, help="Rows on the page.")
@click.option("--offset", default=0, show_default=True, help="Rows to skip.")
@click.option(
    "--all", "everything", is_flag=True, help="Every row, as ndjson or csv, for programs."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "json", *_STREAMS)),
    help="Default: table for a page, ndjson with --all.",
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="CONDITION",
    help="Only deals like dealstage=won,lost or 'amount>=1000'; all of them if repeated.",
)
@click.option("--sort", metavar="COLUMNS", help="Order of deals, like -amount,closedate.")
@click.option("--expand-labels", is_flag=True, help="Deals with stage, pipeline and owner named.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@pass_command_line
def results(  # noqa: PLR0913 - one parameter per option
    command_line: CommandLine,
    *,
    scan_id: str,
    table: str | None,
    limit: int,
    offset: int,
    everything: bool,
    form: str | None,
    filters: tuple[str, ...],
    sort: str | None,
    expand_labels: bool,
    as_json: bool,
) -> None:
    """Show the result of a completed scan."""
    form = form or ("json" if as_json else None)
    chosen = _params(filters, sort, expand_labels=expand_labels)
    service = command_line.service()
    if table is None:
        if everything or form in _STREAMS or chosen:
            msg = (
                "--all, --format ndjson or csv, --filter, --sort and --expand-labels need a "
                "--table."
            )
            raise ConfigurationError(msg)
        _echo_tables(service.get_tables(scan_id), form)
    elif everything:
        _echo_stream(service.pages(scan_id, table, offset, chosen), form or _STREAMS[0])
    else:
        page = service.page_of_rows(scan_id, table, limit, offset, more=chosen)
        _echo_page(page, form, _LABELS if expand_labels and table == "deals" else 0)


def _params(filters: Sequence[str], sort: str | None, *, expand_labels: bool) -> Params:
    params: Params = {}
    for condition in filters:
        if (match := _FILTER.fullmatch(condition.strip())) is None:
            msg = f"--filter {condition!r}: write column=value, or >, >=, <, <= between them."
            raise ConfigurationError(msg)
        column, compared, value = match.groups()
        operator = f"[{_COMPARED[compared]}]" if compared in _COMPARED else ""
        name = f"filter[{column}]{operator}"
        if name in params:
            msg = f"--filter {condition!r}: this is given more than once; write column=a,b."
            raise ConfigurationError(msg)
        params[name] = value.strip()
    if sort is not None:
        params["sort"] = sort
    if expand_labels:
        params["expand"] = "labels"
    return params


def _echo_tables(found: dict[str, Any], form: str | None) -> None:
    if form == "json":
        echo_json(found)
        return
    rows = ((table["name"], f"{table['rowCount']:,}") for table in found["tables"])
    echo_table(("table", "rows"), rows)


def _echo_page(page: dict[str, Any], form: str | None, labels: int) -> None:
    if form == "json":
        echo_json(page)
    elif form in _STREAMS:
        _echo_stream([page], form or _STREAMS[0])
    else:
        known = page["columns"]
        shown = [*known[: _SHOWN_COLUMNS - labels], *known[len(known) - labels :]]
        columns = list(dict.fromkeys(shown))
        echo_table(columns, ([row.get(name) for name in columns] for row in page["records"]))
        seen = page["pagination"]
        hidden = len(page["columns"]) - len(columns)
        more = f"; {hidden} more columns with --json" if hidden else ""
        click.echo(f"{seen['returned']} of {seen['total']:,} rows from {seen['offset']:,}{more}")


def _echo_stream(pages: Iterable[dict[str, Any]], form: str) -> None:
    if form not in _STREAMS:
        msg = f"--all writes {' or '.join(_STREAMS)}: choose one with --format."
        raise ConfigurationError(msg)
    columns: list[str] | None = None
    for page in pages:
        if form == "ndjson":
            for row in page["records"]:
                click.echo(json.dumps(row, ensure_ascii=False))
        else:
            click.echo(_csv(page, with_header=columns is None), nl=False)
            columns = page["columns"]


def _csv(page: dict[str, Any], *, with_header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, page["columns"], extrasaction="ignore")
    if with_header:
        writer.writeheader()
    for row in page["records"]:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _cell(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
