"""Every process of the service starts with its secrets in files, and none in its environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.conftest import TEST_KEYS
from tests.integration.test_migrate import empty_database_url  # noqa: F401

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path, empty_database_url):  # noqa: F811
    """An environment that names a folder of secrets, as a container's does."""
    secrets, home = tmp_path / "secrets", tmp_path / "dagster_home"
    secrets.mkdir()
    home.mkdir()
    (secrets / "hubspot_deals_database_url").write_text(f"{empty_database_url}\n")
    (secrets / "hubspot_deals_encryption_keys").write_text(f"{TEST_KEYS.get_secret_value()}\n")
    shutil.copy(CHECKOUT / "dagster_home" / "dagster.yaml", home)
    return {
        "PATH": os.defpath,
        "HOME": str(tmp_path),
        "DAGSTER_HOME": str(home),
        "HUBSPOT_DEALS_SECRETS_DIR": str(secrets),
        # As docker-compose.yml has it: empty is as if it were not there.
        "HUBSPOT_DEALS_DATABASE_URL": "",
    }


def run(environment, *arguments):
    result = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_the_database_is_made_and_the_pipeline_loads(environment, empty_database_url):  # noqa: F811
    said = run(environment, "-m", "hubspot_deals.warehouse.migrate")
    assert "0001_scans.sql" in said
    said += run(environment, "-m", "dagster", "instance", "migrate")
    said += run(
        environment, "-m", "dagster", "definitions", "validate", "-m", "hubspot_deals.definitions"
    )
    said += run(environment, "-c", "from api.main import create_app; create_app()")
    with psycopg.connect(empty_database_url) as connection:
        found = connection.execute("SELECT count(*) FROM dagster.runs").fetchone()
    assert found == (0,)
    assert TEST_KEYS.get_secret_value() not in said
    assert empty_database_url not in said
