"""The `keys` commands: of the key ring that seals stored secrets."""

import click

from hubspot_deals.cli.rotate import rotate_keys


@click.group()
def keys() -> None:
    """Rotate the key ring that seals stored secrets."""


keys.add_command(rotate_keys)
