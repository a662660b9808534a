"""Where Dagster's own facts are stored: beside the scans, in a schema of their own."""

from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from pydantic import Field, SecretStr

from hubspot_deals.settings import Settings

_DAGSTER_SCHEMA: Final = "dagster"


class StorageSettings(Settings):
    """The database as Dagster's processes find it."""

    database_url: SecretStr = Field(description="PostgreSQL for scans and rows, as a libpq URL.")
    dagster_storage_url: SecretStr | None = Field(
        default=None, description="The same for Dagster, as SQLAlchemy reads it."
    )

    @property
    def url(self) -> str:
        """Return the database for SQLAlchemy, password and all."""
        if self.dagster_storage_url is not None:
            return self.dagster_storage_url.get_secret_value()
        return dagster_storage_url(self.database_url.get_secret_value())


def dagster_storage_url(database_url: str) -> str:
    """Return the same database for SQLAlchemy, with Dagster's own schema as the search path."""
    parts = urlsplit(database_url)
    query = dict(parse_qsl(parts.query))
    # Dagster keeps moments without a time zone and reads them as UTC.
    own = f"-csearch_path={_DAGSTER_SCHEMA} -ctimezone=UTC"
    query["options"] = f"{query['options']} {own}" if "options" in query else own
    # The driver is named because SQLAlchemy's default one changes with its version.
    return urlunsplit(
        parts._replace(
            scheme="postgresql+psycopg2", query=urlencode(query, quote_via=quote, safe="/")
        )
    )
