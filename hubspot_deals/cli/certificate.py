"""The `certificate` command: whether a scan has every deal, and its tables still have them."""

from collections.abc import Iterator
from typing import Any

import click

from hubspot_deals.cli.output import echo_json, echo_table, enumerate_names, json_option
from hubspot_deals.cli.settings import CommandLine, pass_command_line
from hubspot_deals.errors import PermanentError

_COLUMNS = (
    "table",
    "read",
    "committed",
    "stored then",
    "stored now",
    "distinct now",
    "differences",
)


class NotCompleteError(PermanentError):
    """The certificate or the tables say that something is missing or was changed."""

    def __init__(self, scan_id: str) -> None:
        super().__init__(f"Scan {scan_id} is not complete, or its tables are not what was read.")


@click.command(short_help="Prove that a scan is whole and unchanged.")
@click.argument("scan_id")
@json_option
@pass_command_line
def certificate(command_line: CommandLine, *, scan_id: str, as_json: bool) -> None:
    """Prove that a scan is complete, and that its tables still are what was read.

    Every row is counted and hashed anew. Exit code 1 when something is missing or was changed.
    """
    found = command_line.service().get_certificate(scan_id)
    if as_json:
        echo_json(found)
    else:
        _echo(found)
    if not found["complete"]:
        raise NotCompleteError(scan_id)


def _echo(found: dict[str, Any]) -> None:
    proof, audit = found["certificate"], found["audit"]
    if proof is None:
        click.echo("This scan is from before there were certificates; its rows were counted.")
    else:
        for statement in proof["statements"]:
            click.echo(statement)
    echo_table(_COLUMNS, _rows(found))
    for difference in audit["differences"]:
        click.echo(_line(difference))
    if found["complete"]:
        click.echo(f"Complete, audited at {audit['madeAt']} in {audit['seconds']} s.")


def _rows(found: dict[str, Any]) -> Iterator[list[object]]:
    proof, audit = found["certificate"], found["audit"]
    then = {table["name"]: table for table in proof["tables"]} if proof else {}
    for table in audit["tables"]:
        certified = then.get(table["name"], {})
        amount = sum(one["table"] == table["name"] for one in audit["differences"])
        numbers = [certified.get("read"), table["committed"], certified.get("stored")]
        numbers += [table["stored"], table["distinct"], amount]
        yield [table["name"], *("" if number is None else f"{number:,}" for number in numbers)]


def _line(difference: dict[str, Any]) -> str:
    chunk = difference["chunk"]
    line = f"{difference['table']}{f', chunk {chunk}' if chunk else ''}: {difference['text']}"
    for name, label in (("rowNumbers", "rows"), ("keys", "ids")):
        if named := difference[name]:
            line += f"; {label} {enumerate_names(named)}"
    return line
