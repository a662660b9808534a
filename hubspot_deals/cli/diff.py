"""The `diff` command: what changed from one scan to another."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, Final

import click

from hubspot_deals.cli.client import PAGE_ROWS, ServiceClient
from hubspot_deals.cli.output import echo_json, echo_table, enumerate_names, json_option
from hubspot_deals.cli.settings import CommandLine, pass_command_line

_SHOWN_PROPERTIES: Final = 10
_NAMES: Final = ("dealname", "amount", "dealstage")
"""What is shown of a deal that is only in one of the scans."""


@click.command(short_help="Show what changed between two scans.")
@click.argument("old")
@click.argument("new")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Changes to show; 0 for the numbers alone.",
)
@json_option
@pass_command_line
def diff(command_line: CommandLine, *, old: str, new: str, limit: int, as_json: bool) -> None:
    """Show what changed from scan OLD to scan NEW of the same organization."""
    with closing(command_line.service()) as service:
        found = service.get_diff_summary(old, new)
        changes = list(_changes(service, old, new, limit))
    if as_json:
        echo_json(found | {"changes": changes})
        return
    _echo_summary(found)
    if changes:
        echo_table(("deal", "", "property", "old", "new"), _rows(changes), title="changes")
    total = sum(found["summary"][kind] for kind in ("added", "removed", "changed"))
    if limit and len(changes) < total:
        click.echo(f"{len(changes)} of {total:,} changes; more with --limit")


def _changes(service: ServiceClient, old: str, new: str, limit: int) -> Iterator[dict[str, Any]]:
    """Yield so many changes; a page may be short, or empty, before the last one."""
    cursor: str | None = None
    while limit:
        page = service.page_of_diff(old, new, min(limit, PAGE_ROWS), cursor)
        yield from page["changes"]
        limit -= len(page["changes"])
        cursor = page["pagination"]["nextCursor"]
        if cursor is None:
            return


def _echo_summary(found: Mapping[str, Any]) -> None:
    counts = found["summary"]
    kinds = ("added", "removed", "changed", "unchanged")
    echo_table(("deals", "number"), ((kind, f"{counts[kind]:,}") for kind in kinds))
    if by_property := list(counts["byProperty"].items()):
        shown = [(name, f"{number:,}") for name, number in by_property[:_SHOWN_PROPERTIES]]
        echo_table(("property", "changed in"), shown)
    for side in ("old", "new"):
        if only := found["properties"][f"onlyIn{side.capitalize()}"]:
            click.echo(f"read only by the {side} scan, not compared: {enumerate_names(only)}")
    if found["old"]["filters"] != found["new"]["filters"]:
        click.echo("The scans had different filters: deals may be missing only because of them.")


def _rows(changes: Iterable[Mapping[str, Any]]) -> Iterator[tuple[object, ...]]:
    for change in changes:
        if change["kind"] == "changed":
            values = [(name, *pair.values()) for name, pair in change["changes"].items()]
        else:
            is_added = change["kind"] == "added"
            record = change["record"]
            values = [
                (name, None if is_added else record[name], record[name] if is_added else None)
                for name in _NAMES
                if name in record
            ] or [("", None, None)]
        for number, pair in enumerate(values):
            yield (*((change["id"], change["kind"]) if number == 0 else ("", "")), *pair)
