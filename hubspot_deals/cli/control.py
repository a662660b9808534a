"""The `scan` commands that tell an existing scan what to do."""

import click

from hubspot_deals.cli.client import Verb
from hubspot_deals.cli.output import echo_confirmation, json_option
from hubspot_deals.cli.settings import CommandLine, pass_command_line


@click.command()
@click.argument("scan_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_command_line
def remove(command_line: CommandLine, *, scan_id: str, yes: bool, as_json: bool) -> None:
    """Remove a scan that has ended, with all its rows."""
    if not yes:
        click.confirm(f"Remove scan {scan_id} with all its rows?", abort=True, err=True)
    echo_confirmation(command_line.service().remove_scan(scan_id), scan_id, as_json=as_json)


def _command(verb: Verb, text: str) -> click.Command:
    @click.command(name=verb, help=text)
    @click.argument("scan_id")
    @json_option
    @pass_command_line
    def command(command_line: CommandLine, *, scan_id: str, as_json: bool) -> None:
        answer = command_line.service().change_scan(scan_id, verb)
        echo_confirmation(answer, scan_id, as_json=as_json)

    return command


pause = _command("pause", "Let a scan rest after its last committed chunk.")
resume = _command("resume", "Let a paused or crashed scan go on from its last checkpoint.")
cancel = _command("cancel", "End a scan for good; its rows are not served.")
