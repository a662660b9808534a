"""The `maintenance` commands: remove old results, find scans without worker."""

import click

from hubspot_deals.cli.output import echo_confirmation, json_option
from hubspot_deals.cli.settings import CommandLine, pass_command_line


@click.group()
def maintenance() -> None:
    """Remove old results; find scans whose workers are gone."""


@maintenance.command()
@click.option(
    "--days-old",
    required=True,
    type=click.IntRange(1, 365),
    help="Only scans that ended longer ago than so many days.",
)
@click.option("--purge", is_flag=True, help="Remove the scans too, not only their results.")
@json_option
@pass_command_line
def cleanup(command_line: CommandLine, *, days_old: int, purge: bool, as_json: bool) -> None:
    """Remove the results of old scans."""
    answer = command_line.service().clean_up(days_old, purge=purge)
    echo_confirmation(answer, as_json=as_json)


@maintenance.command()
@click.option(
    "--timeout-minutes",
    default=10,
    show_default=True,
    type=click.IntRange(1, 1_440),
    help="A worker that has made no progress for so long counts as gone.",
)
@json_option
@pass_command_line
def detect_crashed(command_line: CommandLine, *, timeout_minutes: int, as_json: bool) -> None:
    """List scans whose workers are gone."""
    answer = command_line.service().detect_crashed(timeout_minutes)
    echo_confirmation(answer, as_json=as_json)
    if not as_json:
        for scan_id in answer["data"]["crashedJobIds"]:
            click.echo(scan_id)
