"""The connection of an installation for one account, as the environment describes it."""

import subprocess
import sys

import pytest

from hubspot_deals.errors import ConfigurationError
from hubspot_deals.sync_errors import ConnectionPartitionsError
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.syncs.connections import get_token, list_connections
from hubspot_deals.warehouse.syncs.environment import (
    ConnectionEnvironment,
    ensure_connection_from_environment,
)
from tests.conftest import TEST_KEYS

PREFIX = "HUBSPOT_DEALS_"
TOKEN = "pat-na1-of-the-environment"
GIVEN = {"ACCESS_TOKEN": TOKEN, "ORGANIZATION_ID": "org-1"}


@pytest.fixture
def ensure(monkeypatch, settings):
    """Ensures the connection of an environment that has these variables."""

    def ensure(**variables):
        for name in ConnectionEnvironment.model_fields:
            monkeypatch.delenv(f"{PREFIX}{name}".upper(), raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(f"{PREFIX}{name}", value)
        return ensure_connection_from_environment(settings)

    return ensure


@pytest.fixture
def stored(settings):
    return lambda: list_connections(settings.database_url)


def test_it_is_created_once_and_changed_when_the_environment_changes(ensure, stored, database):
    assert ensure(**GIVEN) == "created"
    assert ensure(**GIVEN) == "unchanged"
    (first,) = stored()
    assert (first.connection_id, first.organization_id) == ("default", "org-1")
    assert (first.settings.cadence, first.settings.time_zone) == ("hourly", "UTC")

    assert ensure(**GIVEN, SYNC_CADENCE="daily", SYNC_START_DATE="2024-01-01") == "changed"
    assert ensure(**GIVEN | {"ACCESS_TOKEN": "pat-na1-renewed-0001"}) == "changed"
    (changed,) = stored()
    assert (changed.settings.cadence, f"{changed.settings.start_date}") == ("daily", "2024-01-01")
    token = get_token(database, "default", KeyRing.parse(TEST_KEYS))
    assert token.get_secret_value() == "pat-na1-renewed-0001"


@pytest.mark.parametrize("variables", [{}, {"ACCESS_TOKEN": TOKEN}, {"ORGANIZATION_ID": "org-1"}])
def test_without_both_token_and_organization_nothing_is_done(ensure, stored, variables):
    assert ensure(**variables) is None
    assert stored() == []


def test_a_pause_stays(ensure, database, stored):
    ensure(**GIVEN)
    database.execute("UPDATE hubspot_deals.connections SET is_enabled = false")

    assert ensure(**GIVEN | {"ACCESS_TOKEN": "pat-na1-renewed-0001"}) == "changed"
    assert stored()[0].is_enabled is False


def test_one_that_is_still_being_removed_is_left_to_the_next_start(ensure, database, stored):
    ensure(**GIVEN)
    database.execute("UPDATE hubspot_deals.connections SET removed_at = now()")
    assert ensure(**GIVEN) == "being removed"
    database.execute("DELETE FROM hubspot_deals.connections")
    assert ensure(**GIVEN) == "created"
    assert len(stored()) == 1


def test_what_cannot_be_is_said(ensure, database):
    ensure(**GIVEN)
    with pytest.raises(ConfigurationError, match="is of organization org-1"):
        ensure(**GIVEN | {"ORGANIZATION_ID": "org-2"})
    with pytest.raises(ConfigurationError, match="SYNC_CADENCE"):
        ensure(**GIVEN, SYNC_CADENCE="weekly")
    with pytest.raises(ConfigurationError, match="IANA"):
        ensure(**GIVEN, SYNC_TIME_ZONE="Mars/Olympus")
    database.execute(
        "INSERT INTO hubspot_deals.sync_runs (connection_id, run_no, run_id, epoch, kind)"
        " VALUES ('default', 1, 'r', 1, 'first_load')"
    )
    with pytest.raises(ConnectionPartitionsError, match="cadence cannot change"):
        ensure(**GIVEN, SYNC_TIME_ZONE="UTC", SYNC_CADENCE="daily")


def test_a_migration_keeps_it_and_prints_no_token(settings, monkeypatch, stored):
    values = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "ENCRYPTION_KEYS": TEST_KEYS.get_secret_value(),
        **GIVEN,
    }
    for name, value in values.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)

    ended = subprocess.run(
        [sys.executable, "-m", "hubspot_deals.warehouse.migrate"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert "connection default of the environment: created" in ended.stdout
    assert TOKEN not in ended.stdout + ended.stderr
    assert len(stored()) == 1
