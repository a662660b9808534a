"""The code location loads in the installed Dagster, and says what it lacks."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from hubspot_deals.contract import JOB_NAME, SCANS_PARTITIONS, TABLE_NAMES
from hubspot_deals.definitions import build_definitions
from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.sync_contract import SyncSettings
from hubspot_deals.sync_definitions import build_sync_definitions
from hubspot_deals.tables import TABLES
from hubspot_deals.warehouse.syncs.connections import StoredConnection

REQUIRED = {
    "HUBSPOT_DEALS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
    "HUBSPOT_DEALS_ENCRYPTION_KEYS": "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
}


def validate(environment, tmp_path, module="hubspot_deals.definitions"):
    """Run `dagster definitions validate` as an operator does."""
    kept = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 - to start a program with
        if not name.startswith(("HUBSPOT_DEALS_", "DAGSTER_"))
    }
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "dagster",
            "definitions",
            "validate",
            "-m",
            module,
        ],
        env=kept | {"DAGSTER_HOME": str(tmp_path)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_definitions_are_valid(tmp_path):
    result = validate(REQUIRED, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_without_postgresql_the_connections_wait_for_it(tmp_path):
    result = validate(REQUIRED, tmp_path, "hubspot_deals.sync_definitions")
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert "The connections are not known yet" in said


@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_a_missing_setting_is_named_at_start(tmp_path, missing):
    given = {name: value for name, value in REQUIRED.items() if name != missing}
    result = validate(given, tmp_path)
    assert result.returncode != 0
    assert f"{missing}: Field required" in result.stdout + result.stderr


def test_every_table_is_an_asset_of_the_scan_partitions():
    repository = build_definitions(_resource()).get_repository_def()
    graph = repository.asset_graph
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == set(TABLES)
    assert set(TABLES) == set(TABLE_NAMES)
    for key in graph.materializable_asset_keys:
        assert graph.get(key).partitions_def.name == SCANS_PARTITIONS
    assert JOB_NAME in {job.name for job in repository.get_all_jobs()}


def _resource():
    return PipelineSettingsResource(
        database_url="postgresql://nobody@127.0.0.1:1/nothing",
        encryption_keys=REQUIRED["HUBSPOT_DEALS_ENCRYPTION_KEYS"],
        hubspot_url="http://127.0.0.1:1",
        hubspot_api_version="2026-03",
        chunk_rows=100,
        retention_days=0,
        audit_days=0,
        credential_hours=24,
        log_format="plain",
        traces_endpoint="",
        chunk_seconds=1,
        searches_per_second=5,
        hubspot_share=1,
        request_timeout_seconds=1,
        retry_seconds=1,
    )


def test_every_sensor_says_what_it_does_in_the_ui():
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    settings = SyncSettings(start_date=moment.date())
    connection = StoredConnection(
        seq=1,
        connection_id="acme",
        organization_id="o",
        name="",
        portal_id=None,
        settings=settings,
        is_enabled=True,
        created_at=moment,
        updated_at=moment,
        fresh_as_of=None,
        account=None,
    )
    scans = build_definitions(_resource()).get_repository_def().sensor_defs
    syncs = build_sync_definitions(_resource(), [connection]).get_repository_def().sensor_defs

    said = {sensor.name: sensor.description for sensor in [*scans, *syncs]}
    assert len(said) == 8
    assert all(said.values()), said
