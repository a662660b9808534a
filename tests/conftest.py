"""Real parts for every suite: a PostgreSQL cluster, a fresh migrated database, and the sandbox."""

import base64
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from pydantic import HttpUrl, SecretStr

from hubspot_deals.local.postgres import EmbeddedPostgres
from hubspot_deals.local.throwaway import throwaway_postgres
from hubspot_deals.settings import PipelineSettings
from hubspot_deals.warehouse.migrate import migrate
from hubspot_sandbox.testing import GOOD_TOKEN, SandboxProcess

TEST_KEYS = SecretStr("k1:" + base64.b64encode(bytes(range(32))).decode())
TEST_TOKEN = SecretStr(GOOD_TOKEN)
# Budgets are reported but out of reach, so that tests need not wait for them.
FAST = {"burst": 1_000_000, "search_per_second": 1_000, "search_lag_seconds": 0}
_TEMPLATE = "template_migrated"


@pytest.fixture(scope="session", autouse=True)
def open_mode() -> Iterator[None]:
    """Let tests call the REST facade without a key, unless they say otherwise."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HUBSPOT_DEALS_AUTH_MODE", "open")
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A cluster of its own for the session, with one migrated database to copy from."""
    with throwaway_postgres() as server:
        with psycopg.connect(server.admin_url, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {_TEMPLATE} OWNER hubspot_deals")
        migrate(SecretStr(_url_of(server, _TEMPLATE)))
        yield server


@pytest.fixture
def database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A freshly migrated database."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER hubspot_deals").format(
                sql.Identifier(name), sql.Identifier(_TEMPLATE)
            )
        )
        yield _url_of(postgres, name)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _url_of(server: EmbeddedPostgres, database: str) -> str:
    return server.url.replace("/hubspot_deals?", f"/{database}?")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[SandboxProcess]:
    """An account of 1,000 live and 100 archived deals that no test changes."""
    with SandboxProcess(deals=1_000, **FAST) as running:
        yield running


@pytest.fixture
def settings(database_url: str, sandbox: SandboxProcess) -> PipelineSettings:
    """Pipeline settings for the test's database and the shared sandbox."""
    return PipelineSettings(
        database_url=SecretStr(database_url),
        encryption_keys=TEST_KEYS,
        hubspot_url=HttpUrl(sandbox.url),
        searches_per_second=1_000,
        request_timeout_seconds=10,
        retry_seconds=20,
    )
