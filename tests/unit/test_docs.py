"""What the documents promise is what the code has."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from api.settings import ApiSettings
from hubspot_deals.cli.rotate import RotationSettings
from hubspot_deals.cli.settings import CommandLineSettings
from hubspot_deals.settings import PREFIX, PipelineSettings, load_settings
from hubspot_deals.source.__main__ import SourceSettings
from hubspot_deals.warehouse.migrate import MigrationSettings

ROOT = Path(__file__).parents[2]
SETTINGS = (
    ApiSettings,
    CommandLineSettings,
    MigrationSettings,
    PipelineSettings,
    RotationSettings,
    SourceSettings,
)


def variables_of_the_code():
    """Settings classes, and the variables that Dagster's own files name."""
    named = {f"{PREFIX}{name}".upper() for cls in SETTINGS for name in cls.model_fields}
    for file in ("workspace.yaml", "dagster_home/dagster.yaml"):
        named |= set(re.findall(rf"env: ({PREFIX}\w+)", (ROOT / file).read_text()))
    return named


def test_the_configuration_page_lists_every_variable_and_no_other():
    text = (ROOT / "docs/configuration.md").read_text()
    assert set(re.findall(rf"{PREFIX}[A-Z_]+", text)) == variables_of_the_code()


def test_the_example_environment_lists_every_variable_and_no_other():
    text = (ROOT / ".env.example").read_text()
    assert set(re.findall(rf"^({PREFIX}\w+)=", text, re.MULTILINE)) == variables_of_the_code()


def test_documented_defaults_are_the_real_ones():
    text = (ROOT / "docs/configuration.md").read_text()
    rows = re.findall(rf"^\| `({PREFIX}\w+)` \| ([^|]+) \|", text, re.MULTILINE)
    documented = {name: value.strip(" `").replace(",", "") for name, value in rows}
    for cls in (PipelineSettings, ApiSettings):
        for name, field in cls.model_fields.items():
            if not field.is_required():
                shown = documented[f"{PREFIX}{name}".upper()]
                assert (
                    shown.rstrip("/") == f"{field.default:g}".rstrip("/")
                    if isinstance(field.default, float)
                    else shown.rstrip("/") == str(field.default).rstrip("/")
                )


def test_the_newest_change_log_entry_is_the_package_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    released = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released[0] == version


def test_links_between_documents_lead_somewhere():
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_compose_runs_the_same_processes_as_the_embedded_stack():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    assert services.keys() == {
        "postgres",
        "migrate",
        "run-host",
        "code-server",
        "daemon",
        "webserver",
        "api",
    }
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is published beyond loopback"
    given = set(compose["x-environment"])
    needed = {name for name in variables_of_the_code() if name.endswith(("_URL", "_KEYS"))}
    assert needed - {f"{PREFIX}API_URL"} <= given


def test_every_setting_of_the_example_environment_reaches_the_containers():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    ours = [service for service in compose["services"].values() if "build" in service]
    given = compose["x-environment"]
    fixed = {name for name, value in given.items() if f"${{{name}" not in value}

    assert len(ours) == 6
    for service in ours:
        assert (service["env_file"], service["environment"]) == (".env", given)
    # What `environment` says wins over .env: the containers' own addresses, and no token.
    assert fixed == {
        f"{PREFIX}{name}"
        for name in (
            "ACCESS_TOKEN",
            "CODE_SERVER_HOST",
            "CODE_SERVER_PORT",
            "DAGSTER_STORAGE_URL",
            "DAGSTER_URL",
            "DATABASE_URL",
        )
    }


def test_the_example_environment_names_what_the_compose_file_asks_for():
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    text = (ROOT / ".env.example").read_text()
    assert asked <= set(re.findall(r"^(\w+)=", text, re.MULTILINE))


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_copy_of_the_example_environment_is_accepted(settings, monkeypatch):
    text = (ROOT / ".env.example").read_text()
    for name, value in re.findall(rf"^({PREFIX}\w+)=(.*)$", text, re.MULTILINE):
        monkeypatch.setenv(name, value)
    # A copy has to fill this in.
    monkeypatch.setenv(f"{PREFIX}ENCRYPTION_KEYS", "k1:key")

    load_settings(settings)


def test_nothing_names_a_path_of_this_machine():
    home = str(Path.home())
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*.yaml")]
    assert [page.name for page in pages if f"{home}/" in page.read_text()] == []
