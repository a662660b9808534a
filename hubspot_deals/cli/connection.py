"""The `connection` commands: accounts that are kept current."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final

import click

from hubspot_deals.cli.client import SyncVerb
from hubspot_deals.cli.output import (
    echo_confirmation,
    echo_facts,
    echo_json,
    echo_table,
    enumerate_names,
    json_option,
    readable_moment,
)
from hubspot_deals.cli.settings import CommandLine, pass_command_line
from hubspot_deals.sync_contract import OBJECTS, Cadence

_SETTINGS: Final[Mapping[str, str]] = {
    "cadence": "cadence",
    "time_zone": "timeZone",
    "start_date": "startDate",
    "objects": "objects",
    "properties": "properties",
    "refresh_hours": "refreshHours",
    "reconcile_hours": "reconcileHours",
    "quota_share": "quotaShare",
}
"""Options, and what they are called in a request."""

_OPTIONS: Final = (
    click.option("--name", help="A name for people."),
    click.option(
        "--cadence",
        type=click.Choice([cadence.value for cadence in Cadence]),
        help="How often it is synced, and how long a partition is [hourly].",
    ),
    click.option("--time-zone", metavar="NAME", help="In which partitions begin, IANA name [UTC]."),
    click.option(
        "--start-date", metavar="YYYY-MM-DD", help="Day of the first partition [90 days ago]."
    ),
    click.option(
        "--object",
        "objects",
        multiple=True,
        type=click.Choice(OBJECTS),
        help="What to keep beside the deals; repeat for more. Default: everything.",
    ),
    click.option(
        "--property",
        "properties",
        multiple=True,
        metavar="NAME",
        help="A deal property to keep; repeat for more. '*' keeps all. Default: the standard ones.",
    ),
    click.option(
        "--refresh-hours", type=int, help="How often what moves no timestamp is read anew [24]."
    ),
    click.option("--reconcile-hours", type=int, help="How often all ids are compared [168]."),
    click.option("--quota-share", type=float, help="Part of HubSpot's limits to use [1]."),
    click.option("--token-file", metavar="PATH", help="Read the HubSpot token there; - is stdin."),
    click.option("--no-check", is_flag=True, help="Do not ask HubSpot about the token."),
)


def _connection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command those options: `body`, what a request says of them, and `token_file`."""

    @wraps(command)
    def collecting(*arguments: Any, **options: Any) -> None:
        given = {sent: options.pop(name) for name, sent in _SETTINGS.items()}
        settings = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
            if value not in {None, ()}
        }
        name, no_check = options.pop("name"), options.pop("no_check")
        body: dict[str, Any] = {} if name is None else {"name": name}
        body |= {"settings": settings} if settings else {}
        body |= {"check": False} if no_check else {}
        command(*arguments, body=body, **options)

    decorated: Callable[..., None] = collecting
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


@click.group()
def connection() -> None:
    """Keep HubSpot accounts current, and see how current they are."""


@connection.command()
@click.option("--organization", default="default", show_default=True, help="Organization id.")
@click.option("--connection-id", help="Id of the connection; else generated.")
@_connection_options
@click.option("--disabled", is_flag=True, help="Let it rest until it is resumed.")
@click.option("--idempotency-key", metavar="KEY", help="Makes a repeated creation the same one.")
@json_option
@pass_command_line
def create(  # noqa: PLR0913 - one parameter per option
    command_line: CommandLine,
    *,
    organization: str,
    connection_id: str | None,
    body: dict[str, Any],
    token_file: str | None,
    disabled: bool,
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Connect an account, to be kept current from now on.

    The HubSpot token comes from HUBSPOT_DEALS_ACCESS_TOKEN, --token-file, or a hidden prompt.
    """
    body |= {"organizationId": organization, "enabled": not disabled}
    if connection_id is not None:
        body["connectionId"] = connection_id
    token = command_line.access_token(token_file)
    created = command_line.service().create_connection(body, token, idempotency_key)
    _echo(created, as_json=as_json)
    if not as_json:
        for warning in created["warnings"]:
            click.echo(f"warning: {warning}", err=True)
        if created["enabled"]:
            made = created["connectionId"]
            text = f"Its first load begins within a minute: hubspot-deals connection show {made}"
            click.echo(text, err=True)


@connection.command(name="list")
@click.option("--organization", help="Only this organization's connections.")
@click.option("--limit", default=20, show_default=True, help="Connections on the page.")
@click.option("--cursor", help="Where the page begins: the `nextCursor` of the one before.")
@json_option
@pass_command_line
def list_connections(
    command_line: CommandLine,
    *,
    organization: str | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List connections, newest first."""
    page = command_line.service().page_of_connections(organization, limit, cursor)
    if as_json:
        echo_json(page)
        return
    rows = (
        (
            found["connectionId"],
            found["organizationId"],
            found["status"],
            readable_moment(found["freshAsOf"]),
            found["settings"]["cadence"],
        )
        for found in page["connections"]
    )
    echo_table(("connection", "organization", "status", "fresh as of, UTC", "cadence"), rows)
    _echo_end(page, len(page["connections"]))


@connection.command()
@click.argument("connection_id")
@json_option
@pass_command_line
def show(command_line: CommandLine, *, connection_id: str, as_json: bool) -> None:
    """Show one connection."""
    _echo(command_line.service().get_connection(connection_id), as_json=as_json)


@connection.command()
@click.argument("connection_id")
@_connection_options
@click.option("--new-token", is_flag=True, help="Replace the token by the one of the environment.")
@json_option
@pass_command_line
def update(  # noqa: PLR0913 - one parameter per option
    command_line: CommandLine,
    *,
    connection_id: str,
    body: dict[str, Any],
    token_file: str | None,
    new_token: bool,
    as_json: bool,
) -> None:
    """Change a connection; what is not named stays.

    The token is replaced with --token-file, or with --new-token by that of
    HUBSPOT_DEALS_ACCESS_TOKEN or of a hidden prompt.
    """
    wants_token = new_token or token_file is not None
    if not body and not wants_token:
        msg = "Say what to change."
        raise click.UsageError(msg)
    token = command_line.access_token(token_file) if wants_token else None
    changed = command_line.service().change_connection(connection_id, body, token)
    _echo(changed, as_json=as_json)


@connection.command()
@click.argument("connection_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_command_line
def remove(command_line: CommandLine, *, connection_id: str, yes: bool, as_json: bool) -> None:
    """Remove a connection with its token and all that it has kept."""
    if not yes:
        question = f"Remove connection {connection_id} with everything that it has kept?"
        click.confirm(question, abort=True, err=True)
    answer = command_line.service().remove_connection(connection_id)
    echo_confirmation(answer, connection_id, as_json=as_json)


@connection.command()
@click.argument("connection_id")
@click.option("--limit", default=20, show_default=True, help="Runs on the page.")
@click.option("--cursor", help="Where the page begins: the `nextCursor` of the one before.")
@json_option
@pass_command_line
def runs(
    command_line: CommandLine, *, connection_id: str, limit: int, cursor: str | None, as_json: bool
) -> None:
    """List the runs of a connection, newest first."""
    page = command_line.service().page_of_sync_runs(connection_id, limit, cursor)
    if as_json:
        echo_json(page)
        return
    rows = (
        (
            run["runNo"],
            run["kind"],
            run["outcome"],
            readable_moment(run["startedAt"]),
            run["duration"] and f"{run['duration']:.1f}",
            readable_moment(run["readUntil"]),
            run["errorMessage"],
        )
        for run in page["runs"]
    )
    echo_table(("run", "kind", "outcome", "started, UTC", "seconds", "read until", "error"), rows)
    _echo_end(page, len(page["runs"]))


def _command(verb: SyncVerb, text: str) -> click.Command:
    @click.command(name=verb, help=text)
    @click.argument("connection_id")
    @json_option
    @pass_command_line
    def command(command_line: CommandLine, *, connection_id: str, as_json: bool) -> None:
        answer = command_line.service().tell_connection(connection_id, verb)
        echo_confirmation(answer, connection_id, as_json=as_json)

    return command


connection.add_command(_command("sync", "Have a connection synced now, outside its schedule."))
connection.add_command(_command("pause", "Let a connection rest until it is resumed."))
connection.add_command(_command("resume", "Let a paused connection go on."))


def _echo(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        echo_json(found)
        return
    settings = found["settings"]
    properties = settings["properties"]
    lines = {
        "connection": found["connectionId"],
        "name": found["name"],
        "organization": found["organizationId"],
        "account": found["portalId"],
        "status": found["status"] + (", a run is at work" if found["syncing"] else ""),
        "fresh as of": found["freshAsOf"],
        "error": found["errorMessage"],
        "partitions": f"{settings['cadence']} from {settings['startDate']}, {settings['timeZone']}",
        "objects": ", ".join(settings["objects"]),
        "properties": enumerate_names(properties) if properties else "the standard ones",
        "read anew": f"every {settings['refreshHours']} h",
        "reconciled": f"every {settings['reconcileHours']} h",
        "quota share": f"{settings['quotaShare']:g}",
    }
    echo_facts(lines)


def _echo_end(page: Mapping[str, Any], shown: int) -> None:
    """Say how many there are, and how to see the others."""
    pagination = page["pagination"]
    click.echo(f"{shown} of {pagination['total']}")
    if pagination["nextCursor"]:
        click.echo(f"more with --cursor {pagination['nextCursor']}")
