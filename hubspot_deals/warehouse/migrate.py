"""Brings a database up to date: dlt's tables and those of syncs, then numbered SQL, each once.

Run as `python -m hubspot_deals.warehouse.migrate`. Safe to run by several processes at once: they
queue on one advisory lock. Run as a program, it also keeps the connection that the environment
describes, if it describes one.
"""

import logging
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import psycopg
from psycopg.errors import LockNotAvailable
from pydantic import Field, SecretStr
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from hubspot_deals import redaction
from hubspot_deals.errors import ConfigurationError, HubSpotDealsError
from hubspot_deals.settings import PREFIX, Settings, load_settings
from hubspot_deals.warehouse.connections import open_connection
from hubspot_deals.warehouse.pipeline import ScanPipeline
from hubspot_deals.warehouse.syncs.environment import (
    DEFAULT_CONNECTION,
    ensure_connection_from_environment,
)
from hubspot_deals.warehouse.syncs.schema import create_current_tables

_logger = logging.getLogger(__name__)
_LOCK: Final = 4_860
# Dagster keeps its own tables in a schema of its own, which it does not create itself.
_SCHEMAS: Final = ("hubspot_deals", "dagster")
# Whoever waits for a table stands in the way of everybody behind. Workers that cannot write for
# twelve seconds are taken for dead, so a migration gives way long before, and comes back.
_LOCK_TIMEOUT: Final = "2s"
_LONGEST_TRY_SECONDS: Final = 600.0
_LONGEST_PAUSE_SECONDS: Final = 5.0


class MigrationSettings(Settings):
    """What a migration needs."""

    database_url: SecretStr = Field(description="PostgreSQL for scans and rows, as a libpq URL.")


def migrate(database_url: SecretStr) -> list[str]:
    """Create or upgrade everything in the database; return the SQL files that were applied."""
    try:
        with open_connection(database_url) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
            return _migrate(connection, database_url)
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        msg = f"PostgreSQL at {PREFIX}DATABASE_URL could not be brought up to date: {reason}"
        raise ConfigurationError(msg) from error


def _migrate(connection: psycopg.Connection[Any], database_url: SecretStr) -> list[str]:
    for schema in _SCHEMAS:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    name = "hubspot_deals_migrate"
    with ScanPipeline(database_url, name, session_name=name) as pipeline:
        pipeline.create_tables()
    create_current_tables(connection)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS hubspot_deals.migrations ("
        " name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    applied = {name for (name,) in connection.execute("SELECT name FROM hubspot_deals.migrations")}
    pending = [file for file in _migration_files() if file.name not in applied]
    for file in pending:
        for attempt in Retrying(
            retry=retry_if_exception_type(LockNotAvailable),
            stop=stop_after_delay(_LONGEST_TRY_SECONDS),
            wait=wait_random_exponential(max=_LONGEST_PAUSE_SECONDS),
            reraise=True,
        ):
            with attempt:
                _apply(connection, file)
        _logger.info("migration applied", extra={"action": "migrate", "migration": file.name})
    return [file.name for file in pending]


def _apply(connection: psycopg.Connection[Any], file: Traversable) -> None:
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        connection.execute(file.read_bytes())
        connection.execute("INSERT INTO hubspot_deals.migrations (name) VALUES (%s)", (file.name,))


def _migration_files() -> list[Traversable]:
    folder = files("hubspot_deals.warehouse") / "migrations"
    found = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted(found, key=lambda file: file.name)


def main() -> int:
    """Migrate the database of the environment; print what was done."""
    redaction.install()
    try:
        applied = migrate(load_settings(MigrationSettings).database_url)
        connected = ensure_connection_from_environment()
    except HubSpotDealsError as error:
        sys.stderr.write(f"{redaction.redact(str(error))}\n")
        return 2
    sys.stdout.write(f"database is up to date ({', '.join(applied) or 'nothing to do'})\n")
    if connected is not None:
        sys.stdout.write(f"connection {DEFAULT_CONNECTION} of the environment: {connected}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
