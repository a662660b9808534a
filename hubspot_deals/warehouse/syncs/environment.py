"""The one connection of an installation for a single account, described by the environment.

`python -m hubspot_deals.warehouse.migrate` keeps it, which runs at every start of the stack; the
code location of the syncs may do so too. Where the token is not in the environment nothing is done.
"""

import asyncio
import logging
from datetime import UTC, date, datetime
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from pydantic import Field, SecretStr, field_validator

from hubspot_deals.errors import ConfigurationError
from hubspot_deals.settings import PREFIX, PipelineSettings, Settings, load_settings
from hubspot_deals.sync_contract import Cadence, SyncSettings
from hubspot_deals.sync_errors import ConnectionExistsError
from hubspot_deals.warehouse.connections import server_options
from hubspot_deals.warehouse.credentials import KeyRing, SealedToken
from hubspot_deals.warehouse.syncs.acceptance import (
    ConnectionChange,
    NewConnection,
    change_connection,
    create_connection,
)
from hubspot_deals.warehouse.syncs.connections import WITH_CREDENTIALS, bound_to

DEFAULT_CONNECTION: Final = "default"

_logger = logging.getLogger(__name__)

Outcome = Literal["created", "changed", "unchanged", "being removed"]


class ConnectionEnvironment(Settings):
    """What describes the connection; it takes the token and the organization."""

    access_token: SecretStr | None = Field(
        default=None, description="HubSpot private-app token of the account to keep current."
    )
    organization_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="Organization of that account; without it nothing is kept current.",
    )
    sync_cadence: Cadence | None = Field(default=None, description="`hourly` or `daily`.")
    sync_time_zone: str | None = Field(default=None, description="IANA name of a time zone.")
    sync_start_date: date | None = Field(default=None, description="Day of the first partition.")

    @field_validator("sync_time_zone")
    @classmethod
    def _exists(cls, name: str | None) -> str | None:
        try:
            return name and ZoneInfo(name).key
        except (OSError, ValueError, KeyError):
            msg = "must be a name of the IANA database, such as Europe/Berlin"
            raise ValueError(msg) from None

    def settings(self) -> dict[str, Any]:
        """Return the settings that are given, in the spelling of `SyncSettings.to_json`."""
        given = {
            "cadence": self.sync_cadence and self.sync_cadence.value,
            "timeZone": self.sync_time_zone,
            "startDate": self.sync_start_date and self.sync_start_date.isoformat(),
        }
        return {name: value for name, value in given.items() if value is not None}


def ensure_connection_from_environment(settings: PipelineSettings | None = None) -> Outcome | None:
    """Create or change connection `default` as the environment says; None where it says nothing.

    What the environment leaves open stays as it is, a pause included. Raises ConfigurationError,
    or ConnectionPartitionsError when its partitions can no longer change like that.
    """
    wanted = load_settings(ConnectionEnvironment)
    if wanted.access_token is None or wanted.organization_id is None:
        return None
    used = settings or load_settings(PipelineSettings)
    keys = KeyRing.parse(used.encryption_keys)
    token = keys.seal(wanted.access_token, bound_to=bound_to(DEFAULT_CONNECTION))
    try:
        outcome = asyncio.run(
            _ensure(used.database_url, wanted.organization_id, wanted.settings(), token)
        )
    except psycopg.Error as error:
        msg = f"The connection of the environment was not stored: {' '.join(str(error).split())}"
        raise ConfigurationError(msg) from error
    _logger.info("connection of the environment: %s", outcome)
    return outcome


async def _ensure(
    database_url: SecretStr, organization_id: str, given: dict[str, Any], token: SealedToken
) -> Outcome:
    async with await AsyncConnection.connect(
        database_url.get_secret_value(),
        autocommit=True,
        options=server_options(database_url, ""),
        connect_timeout=10,
    ) as connection:
        stored = await _find(connection)
        if stored is None:
            return await _create(connection, organization_id, given, token)
        if stored["organization_id"] != organization_id:
            msg = (
                f"Connection {DEFAULT_CONNECTION} is of organization {stored['organization_id']}, "
                f"not of the one in {PREFIX}ORGANIZATION_ID; remove it first."
            )
            raise ConfigurationError(msg)
        is_same_token = (stored["key_id"], stored["account"]) == (token.key_id, token.account)
        if is_same_token and stored["settings"] == {**stored["settings"], **given}:
            return "unchanged"
        change = ConnectionChange(settings=given, token=None if is_same_token else token)
        await change_connection(connection, DEFAULT_CONNECTION, change)
        return "changed"


async def _create(
    connection: AsyncConnection[Any],
    organization_id: str,
    given: dict[str, Any],
    token: SealedToken,
) -> Outcome:
    settings = SyncSettings.initial(given, datetime.now(UTC).date())
    new = NewConnection(
        connection_id=DEFAULT_CONNECTION,
        organization_id=organization_id,
        name="",
        portal_id=None,
        settings=settings,
    )
    try:
        await create_connection(connection, new, token)
    except ConnectionExistsError:
        # Or another process has just created it.
        return "unchanged" if await _find(connection) else "being removed"
    return "created"


async def _find(connection: AsyncConnection[Any]) -> dict[str, Any] | None:
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(
        f"SELECT c.organization_id, c.settings, k.key_id, k.account FROM {WITH_CREDENTIALS}"
        " WHERE c.connection_id = %s AND c.removed_at IS NULL",
        (DEFAULT_CONNECTION,),
    )
    return await cursor.fetchone()
