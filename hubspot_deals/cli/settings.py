"""The command line's settings, and what its commands are given."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import httpx
import psycopg
from pydantic import Field, HttpUrl, SecretStr

from hubspot_deals.cli.client import ServiceClient
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.local.ports import DEFAULT_API_PORT, LOOPBACK
from hubspot_deals.settings import PREFIX, Settings, load_settings
from hubspot_deals.warehouse.connections import open_connection

DEFAULT_API_URL: Final = f"http://{LOOPBACK}:{DEFAULT_API_PORT}"


class CommandLineSettings(Settings):
    """What the `hubspot-deals` command reads from the environment."""

    api_url: HttpUrl | None = Field(
        default=None,
        description="Base URL of the REST API. Without it: the stack running on the data folder, "
        f"or {DEFAULT_API_URL}.",
    )
    access_token: SecretStr | None = Field(
        default=None, description="HubSpot private-app token that `scan start` sends."
    )
    api_key: SecretStr | None = Field(
        default=None, description="API key, or JWT, that the REST API is asked with."
    )
    database_url: SecretStr | None = Field(
        default=None, description="PostgreSQL for `keys` and `audit`, as a libpq URL."
    )
    data_dir: Path = Field(
        default=Path(".hubspot-deals"), description="Folder of the embedded stack's data."
    )


@dataclass(slots=True)
class CommandLine:
    """What a command needs from outside; tests hand in another transport."""

    transport: httpx.BaseTransport | None = None

    @property
    def settings(self) -> CommandLineSettings:
        """The settings, read when a command needs them."""
        return load_settings(CommandLineSettings)

    def service(self) -> ServiceClient:
        """Return a client of the REST API."""
        return ServiceClient(self._api_url(), self.transport, key=self.settings.api_key)

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection[Any]]:
        """Open the database: of the environment, or of the stack that runs on the data folder.

        Raises ConfigurationError when there is neither, or none that answers.
        """
        url = self.settings.database_url
        if url is None and (known := self.stack_urls().get("database")):
            url = SecretStr(known)
        if url is None:
            msg = f"No database: set {PREFIX}DATABASE_URL, or start a stack with hubspot-deals up."
            raise ConfigurationError(msg)
        try:
            with open_connection(url) as connection:
                yield connection
        except psycopg.errors.UndefinedTable:
            msg = "The database is not prepared: run python -m hubspot_deals.warehouse.migrate."
            raise ConfigurationError(msg) from None

    def stack_urls(self) -> dict[str, str]:
        """Return the URLs of the stack that runs on the data folder, none when there is none."""
        file = self.settings.data_dir / "stack.json"
        try:
            urls: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))["urls"]
        except (OSError, ValueError, KeyError):
            return {}
        return urls

    def access_token(self, token_file: str | None) -> SecretStr:
        """Return the HubSpot token: of the file, of the environment, or typed in unseen.

        It is never an argument, which every user of the machine could read.
        """
        if token_file is not None:
            try:
                with click.open_file(token_file) as handle:
                    return SecretStr(handle.read().strip())
            except (OSError, UnicodeError) as error:
                reason = getattr(error, "strerror", None) or "it is no text"
                msg = f"The token cannot be read from --token-file {token_file}: {reason}."
                raise ConfigurationError(msg) from None
        if self.settings.access_token is not None:
            return self.settings.access_token
        if sys.stdin.isatty():
            typed: str = click.prompt("HubSpot access token", hide_input=True)
            return SecretStr(typed.strip())
        msg = f"No HubSpot access token: set {PREFIX}ACCESS_TOKEN, or use --token-file."
        raise ConfigurationError(msg)

    def _api_url(self) -> str:
        given = self.settings.api_url
        return str(given) if given else self.stack_urls().get("api", DEFAULT_API_URL)


pass_command_line = click.make_pass_decorator(CommandLine)
