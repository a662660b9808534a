"""Accepts scans the way the REST facade does, and carries them out with real Dagster."""

import asyncio
from collections.abc import Callable, Iterator

import dagster as dg
import httpx
import psycopg
import pytest
from pydantic import HttpUrl, SecretStr

from api.dagster.testing import InMemoryDagsterGateway
from api.main import create_app
from api.settings import ApiSettings
from api.testing import serve
from hubspot_deals.contract import ScanConfig, ScanFilters
from hubspot_deals.definitions import build_definitions
from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.defs.sensors import remove_scans
from hubspot_deals.errors import ScanNotFoundError, ScanStateError
from hubspot_deals.settings import PipelineSettings
from hubspot_deals.warehouse.acceptance import create_scan
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.removal import mark_scan_for_removal
from hubspot_deals.warehouse.scans import ScanRecord, get_scan
from hubspot_deals.warehouse.transitions import cancel_scan, pause_scan, resume_scan
from tests.conftest import TEST_KEYS, TEST_TOKEN

ASKED = {
    "cancel": cancel_scan,
    "pause": pause_scan,
    "resume": resume_scan,
    "remove": mark_scan_for_removal,
}


@pytest.fixture
def api_settings(database_url: str) -> ApiSettings:
    """The REST facade's settings; nothing listens where HubSpot would."""
    return ApiSettings(
        database_url=SecretStr(database_url),
        encryption_keys=TEST_KEYS,
        hubspot_url=HttpUrl("http://127.0.0.1:9"),
        rate_limits="off",
    )


@pytest.fixture
def gateway() -> InMemoryDagsterGateway:
    return InMemoryDagsterGateway()


@pytest.fixture
def client(api_settings: ApiSettings, gateway: InMemoryDagsterGateway) -> Iterator[httpx.Client]:
    """A client of the REST facade on the test's database."""
    with serve(create_app(api_settings, gateway=gateway)) as client:
        yield client


@pytest.fixture
def service(api_settings: ApiSettings, gateway: InMemoryDagsterGateway) -> Iterator[httpx.Client]:
    """A client of the REST facade as it is in production: nobody is let in without a key."""
    settings = api_settings.model_copy(
        update={"auth_mode": "required", "environment": "production"}
    )
    with serve(create_app(settings, gateway=gateway)) as client:
        yield client


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection to the test's database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def accept(settings: PipelineSettings) -> Callable[..., ScanConfig]:
    """Stores a scan and its credential, and returns its configuration."""

    def accept(scan_id="scan-1", filters=None, token=TEST_TOKEN):
        config = ScanConfig(scan_id, "org-1", filters=filters or ScanFilters())
        sealed = KeyRing.parse(settings.encryption_keys).seal(token, bound_to=scan_id)

        async def store() -> None:
            async with await psycopg.AsyncConnection.connect(
                settings.database_url.get_secret_value(), autocommit=True
            ) as connection:
                await create_scan(connection, config, sealed, request_hash="-")

        asyncio.run(store())
        return config

    return accept


@pytest.fixture
def look_up(settings: PipelineSettings) -> Callable[[str], ScanRecord]:
    """Returns a scan row as the REST facade sees it."""

    def look_up(scan_id="scan-1"):
        async def read() -> ScanRecord:
            async with await psycopg.AsyncConnection.connect(
                settings.database_url.get_secret_value(), autocommit=True
            ) as connection:
                return await get_scan(connection, scan_id)

        return asyncio.run(read())

    return look_up


@pytest.fixture
def query(settings: PipelineSettings) -> Callable[..., list]:
    """Runs SQL on the test's database."""

    def query(statement, *values):
        with psycopg.connect(settings.database_url.get_secret_value()) as connection:
            return connection.execute(statement, values).fetchall()

    return query


@pytest.fixture
def change(settings: PipelineSettings) -> Callable[..., None]:
    """Runs SQL that changes the test's database."""

    def change(statement, *values):
        with psycopg.connect(settings.database_url.get_secret_value()) as connection:
            connection.execute(statement, values)

    return change


@pytest.fixture
def ask(settings: PipelineSettings) -> Callable[..., bool]:
    """Asks for a transition on a connection of its own; returns True if it was granted."""

    def ask(wanted, scan_id="scan-1"):
        async def on_connection():
            async with await psycopg.AsyncConnection.connect(
                settings.database_url.get_secret_value(), autocommit=True
            ) as connection:
                await ASKED[wanted](connection, scan_id)

        try:
            asyncio.run(on_connection())
        except (ScanStateError, ScanNotFoundError):
            return False
        return True

    return ask


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def definitions(settings: PipelineSettings) -> dg.Definitions:
    return build_test_definitions(settings)


def build_test_definitions(settings: PipelineSettings) -> dg.Definitions:
    return build_definitions(
        PipelineSettingsResource(
            database_url=settings.database_url.get_secret_value(),
            encryption_keys=settings.encryption_keys.get_secret_value(),
            hubspot_url=str(settings.hubspot_url),
            **settings.model_dump(exclude={"database_url", "encryption_keys", "hubspot_url"}),
        )
    )


@pytest.fixture
def run_job(instance, settings) -> Callable[..., dg.ExecuteInProcessResult]:
    """Runs the job for one scan, as Dagster's run worker does."""

    def run_job(scan_id="scan-1", tags=None, **changes):
        used = settings.model_copy(update=changes)
        if "hubspot_url" in changes:
            used = used.model_copy(update={"hubspot_url": HttpUrl(changes["hubspot_url"])})
        instance.add_dynamic_partitions("scans", [scan_id])
        job = build_test_definitions(used).resolve_job_def("scan_deals")
        return job.execute_in_process(
            instance=instance, partition_key=scan_id, tags=tags, raise_on_error=False
        )

    return run_job


@pytest.fixture
def tick_removal(instance, definitions) -> Callable[..., dg.SkipReason]:
    """Has the sensor look that removes scans, and what they need no longer."""

    def tick_removal(**changes):
        resource = definitions.resources["pipeline"]
        if changes:
            resource = type(resource)(**{**resource.model_dump(), **changes})
        with dg.build_sensor_context(
            instance=instance, resources={"pipeline": resource}
        ) as context:
            return remove_scans(context)

    return tick_removal
