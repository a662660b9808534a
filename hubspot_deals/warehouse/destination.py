"""dlt's PostgreSQL destination, at a lower price for each package."""

from collections import deque
from typing import Any

from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.normalizers.naming import NamingConvention
from dlt.common.schema import Schema
from dlt.destinations.impl.postgres.configuration import (
    PostgresClientConfiguration,
    PostgresCredentials,
)
from dlt.destinations.impl.postgres.factory import postgres
from dlt.destinations.impl.postgres.postgres import PostgresClient
from dlt.destinations.impl.postgres.sql_client import Psycopg2SqlClient
from psycopg2.extensions import TRANSACTION_STATUS_IDLE  # type: ignore[import-untyped]
from psycopg2.extensions import connection as PostgresConnection  # noqa: N812 - it is a class


class ThriftyPostgres(postgres):
    """dlt's own, with its settings looked up once, and one connection for all jobs of a package.

    dlt asks a dozen times for the settings, and connects anew for each job.
    """

    def __init__(self, credentials: PostgresCredentials) -> None:
        super().__init__(credentials, destination_name="postgres")
        self._capabilities: dict[object, DestinationCapabilitiesContext] = {}
        self._idle: deque[PostgresConnection] = deque()

    def client(self, schema: Schema, initial_config: Any = None) -> PostgresClient:
        """Return a client that takes the connection which the one before has left."""
        client: PostgresClient = super().client(schema, initial_config)
        client.sql_client = _HandingOn(client.sql_client, self._idle)
        return client

    def close(self) -> None:
        """Close what the last job has left; the next one connects again."""
        while self._idle:
            self._idle.pop().close()

    def configuration(
        self,
        initial_config: PostgresClientConfiguration,
        accept_partial: bool = False,  # noqa: FBT001, FBT002 - dlt's signature
    ) -> PostgresClientConfiguration:
        """Return what was resolved before, as it is."""
        if initial_config and initial_config.is_resolved():
            return initial_config
        return super().configuration(initial_config, accept_partial)

    def capabilities(
        self,
        config: PostgresClientConfiguration | None = None,
        naming: NamingConvention | None = None,
    ) -> DestinationCapabilitiesContext:
        """Return a copy that the caller may change; they depend on the naming alone."""
        key = type(naming)
        if key not in self._capabilities:
            self._capabilities[key] = super().capabilities(config, naming)
        return self._capabilities[key].copy()


class _HandingOn(Psycopg2SqlClient):
    """Leaves its connection to the next client instead of closing it."""

    def __init__(self, usual: Psycopg2SqlClient, idle: deque[PostgresConnection]) -> None:
        super().__init__(
            usual.dataset_name, usual.staging_dataset_name, usual.credentials, usual.capabilities
        )
        self._idle = idle

    def open_connection(self) -> PostgresConnection:
        """Take a connection that is there, or make one."""
        if not self._idle:
            return super().open_connection()
        self._conn = self._idle.pop()
        return self._conn

    def close_connection(self) -> None:
        """Leave the connection, unless it is broken or in the middle of something."""
        if self._conn and self._conn.info.transaction_status == TRANSACTION_STATUS_IDLE:
            self._idle.append(self._conn)
            self._conn = None
        super().close_connection()
