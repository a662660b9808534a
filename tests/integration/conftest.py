"""Accepts scans the way the REST facade does, and carries them out with real Dagster."""

import asyncio
from collections.abc import Callable

import dagster as dg
import psycopg
import pytest
from pydantic import HttpUrl

from hubspot_deals.contract import ScanConfig, ScanFilters
from hubspot_deals.definitions import build_definitions
from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.settings import PipelineSettings
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.scans import ScanRecord, create_scan, get_scan
from tests.conftest import TEST_TOKEN


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
