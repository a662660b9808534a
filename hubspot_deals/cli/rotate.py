"""The `keys rotate` command: seal everything stored anew with the first key of the key ring.

It works on the database itself: the REST API never hands keys or ciphertexts out.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import click
from pydantic import Field, SecretStr

from hubspot_deals.cli.output import json_option
from hubspot_deals.cli.settings import CommandLine, pass_command_line
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.local.folder import DataFolder
from hubspot_deals.redaction import hide_settings
from hubspot_deals.settings import PREFIX, Settings, load_settings
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.rotation import TableRotation, rotate

_MOST_NAMED: Final = 10
_LEFT: Final = 1


class RotationSettings(Settings):
    """What a rotation reads from the environment; without them, of the embedded stack."""

    database_url: SecretStr | None = Field(
        default=None, description="PostgreSQL for scans and rows, as a libpq URL."
    )
    encryption_keys: SecretStr | None = Field(
        default=None,
        description="Key ring for stored access tokens; everything is sealed anew with its first "
        "key.",
    )


@click.command("rotate")
@json_option
@pass_command_line
def rotate_keys(command_line: CommandLine, *, as_json: bool) -> None:
    """Seal all stored secrets anew with the first key of the key ring.

    Safe while scans run. Before it, every process must have the new key: put it second in
    HUBSPOT_DEALS_ENCRYPTION_KEYS and restart, then first and restart, then rotate. Ends with exit
    code 1 while another key is still needed. Without HUBSPOT_DEALS_DATABASE_URL it works on the
    stack that runs on the data folder.
    """
    database_url, encryption_keys = _secrets(command_line)
    hide_settings(database_url, encryption_keys)
    keys = KeyRing.parse(encryption_keys)
    done = rotate(database_url, keys)
    if as_json:
        found = {"key": keys.primary, "tables": [asdict(table) for table in done]}
        click.echo(json.dumps(found, indent=2))
    else:
        for line in describe(keys, done):
            click.echo(line)
    if any(table.left for table in done):
        click.get_current_context().exit(_LEFT)


def describe(keys: KeyRing, done: Sequence[TableRotation]) -> list[str]:
    """Return lines that say what was sealed anew and which keys may be dropped."""
    lines = [f"{table.table}: {table.resealed} sealed anew with {keys.primary!r}" for table in done]
    needed: dict[str, int] = {}
    for table in done:
        for key_id, rows in table.left.items():
            needed[key_id] = needed.get(key_id, 0) + rows
        if table.damaged:
            named = ", ".join(table.damaged[:_MOST_NAMED])
            more = ", …" if len(table.damaged) > _MOST_NAMED else ""
            lines.append(
                f"{table.table}: {len(table.damaged)} do not open with their key ({named}{more}): "
                "they were changed or moved"
            )
    for key_id, rows in sorted(needed.items()):
        where = "" if key_id in keys.ids else ", which is not in the key ring: add it"
        lines.append(f"key {key_id!r} is still needed by {rows} rows{where}")
    free = sorted(keys.ids - {keys.primary} - needed.keys())
    lines += [
        f"key {key_id!r} is not needed any more: drop it from {PREFIX}ENCRYPTION_KEYS everywhere"
        for key_id in free
    ]
    return lines


def _secrets(command_line: CommandLine) -> tuple[SecretStr, SecretStr]:
    settings = load_settings(RotationSettings)
    if settings.database_url is not None and settings.encryption_keys is not None:
        return settings.database_url, settings.encryption_keys
    embedded = command_line.stack_urls().get("database")
    if embedded is None or settings.database_url is not None:
        msg = (
            f"Set {PREFIX}DATABASE_URL and {PREFIX}ENCRYPTION_KEYS, or start the embedded stack: "
            f"none runs on {command_line.settings.data_dir}."
        )
        raise ConfigurationError(msg)
    keys = DataFolder(command_line.settings.data_dir).encryption_keys()
    return SecretStr(embedded), settings.encryption_keys or SecretStr(keys)
