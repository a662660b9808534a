"""The `keys` commands: make, list and revoke keys of the REST API, in its database."""

from datetime import UTC, datetime
from typing import Any, Final

import click

from hubspot_deals.cli.output import echo_json, echo_table, enumerate_names, json_option
from hubspot_deals.cli.settings import CommandLine, pass_command_line
from hubspot_deals.contract import AccessLevel
from hubspot_deals.warehouse.api_keys import ApiKey, create_key, list_keys, revoke_key
from hubspot_deals.warehouse.audit_log import write_operator_entry

_DAYS: Final = 365
_MOST_DAYS: Final = 36_500
_LONGEST: Final = 255


@click.group(short_help="Make, list and revoke keys of the REST API.")
def keys() -> None:
    """Make, list and revoke keys of the REST API, in HUBSPOT_DEALS_DATABASE_URL."""


def _check_text(_: click.Context, __: click.Parameter, value: Any) -> Any:
    for text in (value,) if isinstance(value, str) else value:
        if not text.isprintable() or text.isspace() or not 0 < len(text) <= _LONGEST or text == "*":
            msg = f"takes 1-{_LONGEST} printable characters"
            raise click.BadParameter(msg)
    return value


@keys.command()
@click.option("--name", required=True, callback=_check_text, help="Whose key it is, or what for.")
@click.option(
    "--organization",
    "organizations",
    multiple=True,
    callback=_check_text,
    help="An organization whose scans it is for; repeatable.",
)
@click.option("--all-organizations", is_flag=True, help="For everybody's scans.")
@click.option(
    "--level",
    type=click.Choice([level.value for level in AccessLevel]),
    default=AccessLevel.READ.value,
    show_default=True,
    help="read; run: also start, steer and remove scans; admin: also make and change "
    "connections and webhooks, and maintenance.",
)
@click.option(
    "--days",
    type=click.IntRange(1, _MOST_DAYS),
    default=_DAYS,
    show_default=True,
    help="How long it is valid.",
)
@click.option("--never-expires", is_flag=True, help="It is valid until it is revoked.")
@json_option
@pass_command_line
def create(  # noqa: PLR0913 - one parameter per option
    command_line: CommandLine,
    *,
    name: str,
    organizations: tuple[str, ...],
    all_organizations: bool,
    level: str,
    days: int,
    never_expires: bool,
    as_json: bool,
) -> None:
    """Make a key. It is printed this once: only a hash of it is kept."""
    if bool(organizations) == all_organizations:
        msg = "Name --organization at least once, or --all-organizations."
        raise click.UsageError(msg)
    with command_line.database() as connection, connection.transaction():
        made = create_key(
            connection,
            name=name,
            organizations=None if all_organizations else organizations,
            level=AccessLevel(level),
            days=None if never_expires else days,
        )
        write_operator_entry(connection, "create_key", made.key_id)
    secret = made.key.get_secret_value() if made.key else ""
    if as_json:
        echo_json({**_document(made), "key": secret})
        return
    click.echo(f"Key {made.key_id}, {_scope(made)}, {_until(made)}:", err=True)
    click.echo(secret)
    click.echo("Keep it now: it is not shown again.", err=True)


@keys.command(name="list")
@json_option
@pass_command_line
def list_all(command_line: CommandLine, *, as_json: bool) -> None:
    """List all keys, newest first; none of their secrets is known."""
    with command_line.database() as connection:
        known = list_keys(connection)
    if as_json:
        echo_json([_document(key) for key in known])
        return
    rows = (
        (
            key.key_id,
            key.name,
            key.level,
            _organizations(key),
            _state(key),
            _moment(key.expires_at),
            _moment(key.last_used_at),
        )
        for key in known
    )
    echo_table(("key", "name", "level", "organizations", "state", "expires", "last used"), rows)


@keys.command()
@click.argument("key_id")
@pass_command_line
def revoke(command_line: CommandLine, *, key_id: str) -> None:
    """Make a key useless for good. API processes refuse it after five seconds at most."""
    with command_line.database() as connection, connection.transaction():
        revoked = revoke_key(connection, key_id)
        write_operator_entry(connection, "revoke_key", key_id)
    click.echo(f"Key {key_id} ({revoked.name}) is revoked")


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "keyId": key.key_id,
        "name": key.name,
        "organizations": "*" if key.organizations is None else key.organizations,
        "level": key.level,
        "state": _state(key),
        "createdAt": _moment(key.created_at),
        "expiresAt": _moment(key.expires_at),
        "lastUsedAt": _moment(key.last_used_at),
        "revokedAt": _moment(key.revoked_at),
    }


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    is_over = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    return "expired" if is_over else "valid"


def _organizations(key: ApiKey) -> str:
    return "*" if key.organizations is None else enumerate_names(key.organizations)


def _scope(key: ApiKey) -> str:
    whose = "all organizations" if key.organizations is None else _organizations(key)
    return f"level {key.level} for {whose}"


def _until(key: ApiKey) -> str:
    return "valid until revoked" if key.expires_at is None else f"valid until {key.expires_at:%F}"


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")
