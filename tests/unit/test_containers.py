"""The files for Docker: in step with the product, hardened, and without a secret in them."""

import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from api.settings import ApiSettings
from hubspot_deals.launcher import storage
from hubspot_deals.settings import PREFIX, PipelineSettings, load_settings
from hubspot_deals.warehouse.credentials import KeyRing
from tests.unit.test_docs import ROOT, variables_of_the_code

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
TOKEN = f"{PREFIX}ACCESS_TOKEN"
PINNED = re.compile(r"[\w./-]+:\d+\.\d+(\.\d+)?(-[\w-]+)?")


def test_compose_runs_the_same_processes_as_the_embedded_stack():
    processes = {
        "migrate",
        "run-host",
        "code-server",
        "sync-server",
        "daemon",
        "webserver",
        "api",
    }
    assert OURS.keys() == processes
    assert SERVICES.keys() == processes | {"postgres", "proxy"}
    assert SERVICES["proxy"]["profiles"] == ["proxy"]


def test_nothing_is_published_beyond_loopback_unless_somebody_says_so():
    published = {name: port for name in SERVICES for port in SERVICES[name].get("ports", [])}
    assert published == {
        "api": "127.0.0.1:5000:5000",
        "webserver": "127.0.0.1:3000:3000",
        "proxy": "${PROXY_ADDRESS:-127.0.0.1}:8443:8443",
    }
    assert COMPOSE["networks"]["data"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == ["data"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened_and_limited(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert any(mount.startswith("/tmp") for mount in service["tmpfs"])
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    assert ("healthcheck" in service) is (name != "migrate")
    # Only the database's own image starts as root, to become its user.
    assert ("cap_add" in service) is (name == "postgres")


def test_the_proxy_lets_nobody_in_without_tls_and_a_password():
    text = (ROOT / "deploy" / "proxy" / "nginx.conf").read_text()
    words = re.sub(r"#.*", "", text)
    assert re.findall(r"listen (.*);", words) == ["8443 ssl"]
    # One server with one location: the password is asked for before either.
    assert (words.count("server {"), words.count("location ")) == (1, 1)
    assert re.findall(r"auth_basic\w* (.*);", words) == ['"Dagster"', "/run/secrets/proxy_htpasswd"]
    mounted = {f"/run/secrets/{name}" for name in SERVICES["proxy"]["secrets"]}
    assert set(re.findall(r"/run/secrets/\w+", words)) == mounted
    assert "sec_fetch_site" in words
    # On a read-only root it writes below /tmp alone.
    assert all(path.startswith("/tmp/") for path in re.findall(r"_temp_path (.*);", words))


def test_everything_waits_for_the_migration():
    def waits_for(name):
        found = set(SERVICES[name].get("depends_on", ()))
        return found.union(*map(waits_for, found)) if found else found

    for name in OURS.keys() - {"migrate"}:
        assert "migrate" in waits_for(name)
        assert SERVICES[name]["depends_on"].get("migrate", {}).get("condition") in {
            None,
            "service_completed_successfully",
        }


def test_postgresql_has_connections_for_everything_at_its_most():
    instance = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    runs = instance["concurrency"]["runs"]["max_concurrent_runs"]
    api = ApiSettings.model_fields["database_pool_size"].default + 3
    # Two code servers, the webserver and the daemon; three are PostgreSQL's own.
    needed = 3 * runs + api + 4 * (storage._KEPT_CONNECTIONS + storage._MORE_CONNECTIONS) + 3
    assert SERVICES["postgres"]["command"][-2] == "-c"
    assert needed <= int(SERVICES["postgres"]["command"][-1].removeprefix("max_connections="))


def test_images_are_pinned_by_version():
    images = [service["image"] for name, service in SERVICES.items() if name not in OURS]
    dockerfile = (ROOT / "Dockerfile").read_text()
    images += [line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM ")]
    assert len(images) == 4
    assert [image for image in images if not PINNED.fullmatch(image)] == []
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {service["image"] for service in OURS.values()} == {f"hubspot-deals:{version}"}


def test_the_image_is_no_root_and_has_each_folder_that_compose_mounts():
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^USER (.*)", dockerfile, re.MULTILINE) == ["10001"]
    made = re.search(r"RUN mkdir -p (.*) \\\n", dockerfile).group(1).split()
    # A volume is writable for the image's user only where the image has the folder.
    folders = {
        mount.split(":")[1] for service in OURS.values() for mount in service.get("volumes", [])
    }
    assert {f if f.startswith("/") else f"/app/{f}" for f in made} == folders


def test_the_image_brings_nothing_to_install_more_with():
    build, final = (ROOT / "Dockerfile").read_text().split("FROM ")[1:]
    assert "venv --without-pip /opt/venv" in build
    assert "pip uninstall --yes --root-user-action ignore pip setuptools wheel" in final


def test_the_api_bounds_its_clients_and_asks_who_they_are():
    (command,) = re.findall(r"^CMD (.*)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    words = yaml.safe_load(command)
    assert words[words.index("--http") + 1] == "api.edge.protocol:BoundedProtocol"
    assert "--no-server-header" in words
    # The image's command is the API's, here as in Kubernetes.
    assert "command" not in SERVICES["api"]
    assert COMPOSE["x-environment"][f"{PREFIX}ENVIRONMENT"] == "production"


def test_every_setting_of_the_example_environment_reaches_the_containers():
    given = COMPOSE["x-environment"]
    for name, service in OURS.items():
        # It stores the token of the account that is kept current; nobody else is given it.
        own = {TOKEN: f"${{{TOKEN}:-}}"} if name == "migrate" else {}
        assert (service["env_file"], service["environment"]) == (".env", given | own)
    assert set(given) <= variables_of_the_code()
    # What `environment` says wins over .env: addresses inside, secrets from files, and no token.
    fixed = {name for name, value in given.items() if f"${{{name}" not in value}
    emptied = {name for name in fixed if given[name] == ""}
    assert {name.removeprefix(PREFIX) for name in emptied} == {
        "ACCESS_TOKEN",
        "API_KEY",
        "DAGSTER_STORAGE_URL",
        "DATABASE_URL",
        "ENCRYPTION_KEYS",
    }
    assert {name.removeprefix(PREFIX) for name in fixed - emptied} == {
        "CODE_SERVER_HOST",
        "CODE_SERVER_PORT",
        "DAGSTER_URL",
        "DOWNLOAD_DIR",
        "ENVIRONMENT",
        "SECRETS_DIR",
        "SYNC_SERVER_HOST",
        "SYNC_SERVER_PORT",
    }


def test_the_example_environment_names_what_the_compose_file_asks_for():
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    text = (ROOT / ".env.example").read_text()
    assert asked <= set(re.findall(r"^(\w+)=", text, re.MULTILINE))


def test_what_the_image_takes_in_is_there():
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*)", dockerfile, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert [name for name in copied if f"!{name}" not in allowed] == []


@pytest.fixture
def secrets(tmp_path):
    """The folder of secrets as an operator makes it, and what was said meanwhile."""
    folder = tmp_path / "secrets"

    def run(*arguments):
        result = subprocess.run(
            [ROOT / "deploy" / "secrets.sh", *arguments],
            env={"PATH": os.defpath, "SECRETS_FOLDER": str(folder)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stderr == ""
        return result.stdout

    run.folder = folder
    return run


def test_the_secrets_that_compose_mounts_can_be_made(secrets, monkeypatch):
    assert secrets() == ""
    assert "operator" in secrets("proxy")
    mounted = {name: Path(each["file"]).name for name, each in COMPOSE["secrets"].items()}
    assert all(name == file for name, file in mounted.items())
    assert {file.name for file in secrets.folder.iterdir()} == mounted.keys()
    # Containers read them as users of their own, but nobody else gets past the folder.
    assert stat.S_IMODE(secrets.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets.folder.iterdir()} == {0o444}

    for name in ("DATABASE_URL", "ENCRYPTION_KEYS"):
        monkeypatch.delenv(PREFIX + name, raising=False)
    monkeypatch.setenv(f"{PREFIX}SECRETS_DIR", str(secrets.folder))
    settings = load_settings(PipelineSettings)
    KeyRing.parse(settings.encryption_keys)
    password = (secrets.folder / "postgres_password").read_text().strip()
    assert f":{password}@postgres:5432/" in settings.database_url.get_secret_value()


def test_secrets_that_are_there_stay(secrets):
    secrets()
    secrets("proxy")
    before = {file.name: file.read_bytes() for file in secrets.folder.iterdir()}
    secrets()
    assert secrets("proxy") == ""
    assert {file.name: file.read_bytes() for file in secrets.folder.iterdir()} == before
    assert len(set(before.values())) == len(before)
