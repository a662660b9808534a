"""The command line of each process of the stack, PostgreSQL's excepted."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import yaml

import hubspot_deals
from hubspot_deals.contract import CODE_LOCATION
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.local.environment import StackAddresses
from hubspot_deals.local.ports import LOOPBACK
from hubspot_deals.local.processes import Command
from hubspot_deals.sync_contract import SYNC_LOCATION

_RUNS_STOP_SECONDS: Final = 15.0


def checkout_folder() -> Path:
    """Return the folder of `workspace.yaml`; raises ConfigurationError when there is none."""
    folder = Path(hubspot_deals.__file__).parents[1]
    for needed in ("workspace.yaml", "dagster_home/dagster.yaml"):
        if not (folder / needed).exists():
            msg = f"{folder / needed} is missing: the stack starts from a checkout of the project."
            raise ConfigurationError(msg)
    return folder


def migrate_commands(environment: Mapping[str, str]) -> list[Command]:
    """Return what prepares the database, to be run to its end one after the other.

    Not beside the code server, which opens Dagster's tables too: at a first start, both would
    create them.
    """
    return [
        _python("migrate", ["hubspot_deals.warehouse.migrate"], environment),
        _python("dagster_migrate", ["dagster", "instance", "migrate"], environment),
    ]


def sandbox_command(port: int, options: list[str], environment: Mapping[str, str]) -> Command:
    """Return the HubSpot account on localhost."""
    return _python("sandbox", ["hubspot_sandbox", "--port", str(port), *options], environment)


def code_server_command(addresses: StackAddresses, environment: Mapping[str, str]) -> Command:
    """Return the code server; runs that it had to start itself are waited for when it stops."""
    arguments = ["dagster", "api", "grpc", "-m", "hubspot_deals.definitions"]
    arguments += ["-h", LOOPBACK, "-p", str(addresses.code_server_port)]
    arguments += ["--location-name", CODE_LOCATION]
    command = _python("code_server", arguments, environment)
    return replace(command, stop_seconds=_RUNS_STOP_SECONDS)


def sync_server_command(addresses: StackAddresses, environment: Mapping[str, str]) -> Command:
    """Return the code server of the connections, which loads them anew when it is asked to."""
    arguments = ["dagster", "code-server", "start", "-m", "hubspot_deals.sync_definitions"]
    arguments += ["-h", LOOPBACK, "-p", str(addresses.sync_server_port)]
    arguments += ["--location-name", SYNC_LOCATION]
    command = _python("sync_server", arguments, environment)
    return replace(command, stop_seconds=_RUNS_STOP_SECONDS)


def needs_run_host(dagster_home: Path) -> bool:
    """Tell whether Dagster is configured to have runs forked."""
    configuration = yaml.safe_load((dagster_home / "dagster.yaml").read_text(encoding="utf-8"))
    launcher = configuration.get("run_launcher", {}).get("module", "")
    return bool(launcher.startswith("hubspot_deals.launcher."))


def run_host_command(environment: Mapping[str, str]) -> Command:
    """Return the host that forks the runs, and interrupts them when it is asked to stop."""
    command = _python("run_host", ["hubspot_deals.launcher"], environment)
    return replace(command, stop_seconds=_RUNS_STOP_SECONDS)


def door_commands(addresses: StackAddresses, environment: Mapping[str, str]) -> list[Command]:
    """Return the processes through which new work comes in."""
    workspace = ["-w", str(checkout_folder() / "workspace.yaml")]
    webserver = ["dagster_webserver", "-h", LOOPBACK, "-p", str(addresses.dagster_port), *workspace]
    api = ["uvicorn", "api.main:create_app", "--factory", "--host", LOOPBACK]
    api += ["--http", "api.edge.protocol:BoundedProtocol", "--no-server-header"]
    api += ["--port", str(addresses.api_port), "--timeout-graceful-shutdown", "3"]
    return [
        _python("daemon", ["dagster._daemon", "run", *workspace], environment),
        _python("webserver", webserver, environment),
        _python("api", api, environment),
    ]


def _python(name: str, arguments: list[str], environment: Mapping[str, str]) -> Command:
    checkout = checkout_folder()
    # Dagster's commands take an `.env` of the folder that they start in for their environment, and
    # the checkout has one as soon as somebody uses docker-compose.yml.
    folder = Path(environment.get("DAGSTER_HOME", checkout))
    found = os.pathsep.join(filter(None, (str(checkout), environment.get("PYTHONPATH"))))
    return Command(
        name=name,
        arguments=[sys.executable, "-m", *arguments],
        environment={**environment, "PYTHONPATH": found},
        working_folder=folder,
    )
