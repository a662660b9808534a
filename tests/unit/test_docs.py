"""What the documents promise is what the code has."""

import re
import tomllib
from pathlib import Path

import click
import pytest

from api.settings import ApiSettings
from hubspot_deals import contract, sync_contract
from hubspot_deals.cli.main import cli
from hubspot_deals.cli.rotate import RotationSettings
from hubspot_deals.cli.settings import CommandLineSettings
from hubspot_deals.launcher.storage_settings import StorageSettings
from hubspot_deals.settings import PREFIX, PipelineSettings, SecretsFolder, load_settings
from hubspot_deals.source.__main__ import SourceSettings
from hubspot_deals.warehouse.migrate import MigrationSettings
from hubspot_deals.warehouse.syncs.environment import ConnectionEnvironment

ROOT = Path(__file__).parents[2]
TAGS = {
    text for name, text in (vars(contract) | vars(sync_contract)).items() if name.endswith("_TAG")
}
SETTINGS = (
    ApiSettings,
    CommandLineSettings,
    ConnectionEnvironment,
    MigrationSettings,
    PipelineSettings,
    RotationSettings,
    SecretsFolder,
    SourceSettings,
    StorageSettings,
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
    for cls in (PipelineSettings, ApiSettings, SecretsFolder):
        for name, field in cls.model_fields.items():
            if not field.is_required():
                shown = documented[f"{PREFIX}{name}".upper()]
                assert (
                    shown.rstrip("/") == f"{field.default:g}".rstrip("/")
                    if isinstance(field.default, float)
                    else shown.rstrip("/") == str(field.default).replace(",", "").rstrip("/")
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


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_copy_of_the_example_environment_is_accepted(settings, monkeypatch):
    text = (ROOT / ".env.example").read_text()
    for name, value in re.findall(rf"^({PREFIX}\w+)=(.*)$", text, re.MULTILINE):
        monkeypatch.setenv(name, value)
    # A copy has to fill these in.
    monkeypatch.setenv(f"{PREFIX}ENCRYPTION_KEYS", "k1:key")
    monkeypatch.setenv(f"{PREFIX}ACCESS_TOKEN", "token")

    load_settings(settings)


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def test_every_page_is_in_the_index():
    text = (ROOT / "README.md").read_text()
    pages = {page.name for page in ROOT.glob("docs/*.md")}
    assert {page for page in pages if f"](docs/{page})" not in text} == set()


def test_pages_name_settings_files_and_commands_that_exist():
    wrong = []
    for page in PAGES:
        text = page.read_text()
        named = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", text))
        wrong += [(page.name, name) for name in named - variables_of_the_code()]
        files = re.findall(r"`((?:tests|deploy|benchmarks|hubspot_deals|api)/[\w./]+)`", text)
        # Tags of runs look like files, too.
        wrong += [(page.name, name) for name in set(files) - TAGS if not (ROOT / name).exists()]
        targets = re.findall(r"`make ([a-z-]+)", text)
        made = (ROOT / "Makefile").read_text()
        wrong += [(page.name, name) for name in targets if f"\n{name}: " not in made]
        spoken = re.findall(r"(?:^|`|bin/)hubspot-deals ([a-z-]+(?: [a-z-]+)?)", text, re.MULTILINE)
        wrong += [(page.name, words) for words in spoken if not is_command(words)]
    assert wrong == []


def is_command(words):
    """Tell whether there is such a command; a word behind one without others is its argument."""
    command = cli
    for word in words.split():
        if not isinstance(command, click.Group):
            return True
        if (command := command.commands.get(word)) is None:
            return False
    return True


def test_nothing_names_a_path_of_this_machine():
    home = str(Path.home())
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*.yaml")]
    assert [page.name for page in pages if f"{home}/" in page.read_text()] == []
