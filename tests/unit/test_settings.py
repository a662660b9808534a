"""Settings come from the environment, typed, and fail by name without quoting values."""

from pathlib import Path

import pytest

from api.settings import ApiSettings
from hubspot_deals.cli.settings import CommandLineSettings
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.settings import PREFIX, PipelineSettings, load_settings

NEEDED = {"DATABASE_URL": "postgresql://canary@127.0.0.1/x", "ENCRYPTION_KEYS": "canary"}


@pytest.fixture
def environment(monkeypatch):
    """Sets the needed variables and those of the test, and no others of the product."""
    for name in PipelineSettings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)

    def set_variables(**changes):
        for name, value in changes.items():
            monkeypatch.setenv(PREFIX + name, value)

    return set_variables


def test_what_is_needed_is_enough(environment):
    environment(**NEEDED)
    settings = load_settings(PipelineSettings)
    assert str(settings.hubspot_url) == "https://api.hubapi.com/"
    assert "canary" not in repr(settings)


def test_every_missing_variable_is_named(environment):
    with pytest.raises(ConfigurationError) as raised:
        load_settings(PipelineSettings)
    assert all(PREFIX + name in str(raised.value) for name in NEEDED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HUBSPOT_URL", "canary"),
        ("HUBSPOT_URL", "ftp://canary"),
        ("HUBSPOT_API_VERSION", "v1canary"),
        ("HUBSPOT_API_VERSION", "2026-04"),
        ("HUBSPOT_API_VERSION", "2026-03\n"),
        ("CHUNK_ROWS", "99"),
        ("CHUNK_ROWS", "10001"),
        ("CHUNK_ROWS", "canary"),
        ("CHUNK_SECONDS", "0"),
        ("SEARCHES_PER_SECOND", "-1"),
        ("REQUEST_TIMEOUT_SECONDS", "nan"),
        ("RETRY_SECONDS", "canary"),
    ],
)
def test_a_wrong_variable_is_named_and_not_quoted(environment, name, value):
    environment(**NEEDED, **{name: value})
    with pytest.raises(ConfigurationError, match=PREFIX + name) as raised:
        load_settings(PipelineSettings)
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_the_example_environment_is_taken_by_every_process(monkeypatch):
    example = Path(__file__).parents[2] / ".env.example"
    for line in example.read_text().splitlines():
        if line.startswith(PREFIX):
            name, _, value = line.partition("=")
            monkeypatch.setenv(name, value)
    monkeypatch.setenv(f"{PREFIX}ENCRYPTION_KEYS", "canary")
    for settings in (ApiSettings, PipelineSettings, CommandLineSettings):
        assert load_settings(settings)
    assert load_settings(ApiSettings).health_unhealthy_status == 503
