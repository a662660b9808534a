"""The destination of packages: what its clients share, and what they must not."""

from collections.abc import Iterator

import psycopg
import pytest
from pydantic import SecretStr

from hubspot_deals.contract import DATASET_NAME
from hubspot_deals.local.postgres import EmbeddedPostgres
from hubspot_deals.warehouse.destination import ThriftyPostgres
from hubspot_deals.warehouse.pipeline import build_schema, configure_dlt, dlt_credentials

SESSION = "test_destination"


@pytest.fixture
def destination(postgres: EmbeddedPostgres) -> Iterator[ThriftyPostgres]:
    configure_dlt()
    found = ThriftyPostgres(dlt_credentials(SecretStr(postgres.url), SESSION))
    yield found
    found.close()


def _session(destination: ThriftyPostgres, statement: str = "SELECT 1") -> int:
    """Do a job as dlt does, and return whose session it was."""
    config = destination.configuration(destination.spec()._bind_dataset_name(DATASET_NAME))
    with destination.client(build_schema(), config) as client:
        client.sql_client.execute_sql(statement)
        return int(client.sql_client.native_connection.info.backend_pid)


def _sessions(postgres: EmbeddedPostgres) -> list[int]:
    with psycopg.connect(postgres.url) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s", [SESSION]
        )
        return [pid for (pid,) in found]


def test_jobs_of_a_package_share_a_session(
    destination: ThriftyPostgres, postgres: EmbeddedPostgres
) -> None:
    first = _session(destination)
    assert _session(destination) == first
    assert _sessions(postgres) == [first]


def test_a_failed_statement_leaves_a_usable_session(destination: ThriftyPostgres) -> None:
    with pytest.raises(Exception, match="division by zero"):
        _session(destination, "SELECT 1 / 0")
    assert _session(destination) == _session(destination)


def test_no_session_is_left_after_a_package(
    destination: ThriftyPostgres, postgres: EmbeddedPostgres
) -> None:
    first = _session(destination)
    destination.close()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        # The server takes note of it a moment later.
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    assert _sessions(postgres) == []
    assert _session(destination) != first


def test_what_is_in_a_transaction_is_not_handed_on(destination: ThriftyPostgres) -> None:
    first = _session(destination, "BEGIN")
    assert _session(destination) != first
