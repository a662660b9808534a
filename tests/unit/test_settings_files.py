"""Settings from files, as Docker and Kubernetes mount secrets."""

import pytest

from api.settings import ApiSettings
from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.launcher.storage_settings import StorageSettings
from hubspot_deals.settings import PREFIX, PipelineSettings, load_settings
from hubspot_deals.warehouse.migrate import MigrationSettings

URL = "postgresql://hubspot_deals:canary@postgres/hubspot_deals"
PROCESSES = (ApiSettings, MigrationSettings, PipelineSettings, StorageSettings)


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    """A folder of secrets, and an environment that has nothing but the way to it."""
    for settings in PROCESSES:
        for name in settings.model_fields:
            monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    monkeypatch.setenv(f"{PREFIX}SECRETS_DIR", str(tmp_path))
    (tmp_path / "hubspot_deals_database_url").write_text(f"{URL}\n")
    (tmp_path / "hubspot_deals_encryption_keys").write_text("k1:canary\n")
    return tmp_path


@pytest.mark.parametrize("settings", PROCESSES)
def test_every_process_finds_its_secrets_in_files(secrets, settings):
    loaded = load_settings(settings)
    assert loaded.database_url.get_secret_value() == URL
    assert "canary" not in repr(loaded)


def test_the_environment_goes_first_unless_it_is_empty(secrets, monkeypatch):
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", "postgresql://other")
    monkeypatch.setenv(f"{PREFIX}ENCRYPTION_KEYS", "")
    loaded = load_settings(PipelineSettings)
    assert loaded.database_url.get_secret_value() == "postgresql://other"
    assert loaded.encryption_keys.get_secret_value() == "k1:canary"


def test_a_volume_of_kubernetes_is_such_a_folder(tmp_path, secrets, monkeypatch):
    # Its files are links into a folder that is replaced as a whole.
    mounted, version = tmp_path / "mounted", tmp_path / "mounted" / "..2026_11_23"
    version.mkdir(parents=True)
    (version / "hubspot_deals_database_url").write_text(URL)
    (mounted / "..data").symlink_to(version.name)
    linked = mounted / "hubspot_deals_database_url"
    linked.symlink_to("..data/hubspot_deals_database_url")
    monkeypatch.setenv(f"{PREFIX}SECRETS_DIR", str(mounted))
    assert load_settings(MigrationSettings).database_url.get_secret_value() == URL


def test_a_folder_that_is_not_there_leaves_the_environment(secrets, monkeypatch):
    monkeypatch.setenv(f"{PREFIX}SECRETS_DIR", str(secrets / "nowhere"))
    with pytest.raises(ConfigurationError, match=f"{PREFIX}DATABASE_URL: Field required"):
        load_settings(MigrationSettings)


def test_a_file_that_is_no_text_is_named_and_not_quoted(secrets):
    (secrets / "hubspot_deals_database_url").write_bytes(b"canary\xff")
    with pytest.raises(ConfigurationError, match="database_url") as raised:
        load_settings(MigrationSettings)
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_dagster_finds_the_same_database_without_a_setting_of_its_own(secrets, monkeypatch):
    assert load_settings(StorageSettings).url == (
        "postgresql+psycopg2://hubspot_deals:canary@postgres/hubspot_deals"
        "?options=-csearch_path%3Ddagster%20-ctimezone%3DUTC"
    )
    monkeypatch.setenv(f"{PREFIX}DAGSTER_STORAGE_URL", "postgresql+psycopg2://elsewhere")
    assert load_settings(StorageSettings).url == "postgresql+psycopg2://elsewhere"


def test_a_run_reads_its_secrets_when_it_uses_them(secrets):
    given = load_settings(PipelineSettings).model_dump(
        mode="json", exclude={"database_url", "encryption_keys"}
    )
    resource = PipelineSettingsResource(**given)
    assert "canary" not in repr(resource)

    (secrets / "hubspot_deals_encryption_keys").write_text("k2:newer,k1:canary")

    assert resource.resolve().encryption_keys.get_secret_value() == "k2:newer,k1:canary"
