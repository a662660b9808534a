"""The embedded stack: which processes there are, and in which order they start."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from os import getpid
from pathlib import Path
from typing import Any

from hubspot_deals.launcher.channel import is_ready
from hubspot_deals.launcher.folder import LauncherFolder
from hubspot_deals.local.commands import (
    checkout_folder,
    code_server_command,
    door_commands,
    migrate_commands,
    needs_run_host,
    run_host_command,
    sandbox_command,
    sync_server_command,
)
from hubspot_deals.local.environment import (
    ENCRYPTION_KEYS,
    StackAddresses,
    caller_environment,
    child_environment,
    connection_environment,
    libpq_url,
    plain_environment,
)
from hubspot_deals.local.folder import DataFolder
from hubspot_deals.local.guard import Guard
from hubspot_deals.local.ports import (
    DEFAULT_API_PORT,
    DEFAULT_DAGSTER_PORT,
    LOOPBACK,
    choose_ports,
    free_ports,
    is_listening,
)
from hubspot_deals.local.postgres import EmbeddedPostgres, check_database
from hubspot_deals.local.processes import Child
from hubspot_deals.local.readiness import answers, check_hubspot_url, pipeline_is_loaded
from hubspot_deals.local.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """The HubSpot account that the sandbox plays."""

    deals: int = 25_000
    seed: int = 7
    latency_ms: int = 0


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What the caller of `up` decides. Port 0 is any free one."""

    data_dir: Path
    api_port: int = DEFAULT_API_PORT
    dagster_port: int = DEFAULT_DAGSTER_PORT
    database_url: str | None = None
    hubspot_url: str | None = None
    sandbox: SandboxOptions = field(default_factory=SandboxOptions)
    dagster_yaml: Path | None = None
    """Dagster's configuration in place of the project's."""


@dataclass(slots=True)
class Stack:
    """The running processes and where they listen."""

    folder: DataFolder
    supervisor: Supervisor
    urls: dict[str, str] = field(default_factory=dict)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def children(self) -> Mapping[str, Child]:
        """The processes by name."""
        return self.supervisor.children

    def checkpoint(self) -> None:
        """Raise when somebody wants the stack to stop."""
        self.supervisor.checkpoint()

    def start(self, options: StackOptions) -> None:
        """Start every process and return when the stack can be used."""
        caller = caller_environment()
        postgres = self._start_postgres(options)
        hubspot_url = options.hubspot_url or self._start_sandbox(options.sandbox, caller)
        if postgres is not None:
            self.supervisor.wait({"postgres": postgres.is_ready})
            postgres.ensure_database()
        code_server_port, sync_server_port = free_ports(2)
        addresses = StackAddresses(
            database_url=postgres.url if postgres else libpq_url(options.database_url or ""),
            hubspot_url=hubspot_url,
            code_server_port=code_server_port,
            sync_server_port=sync_server_port,
            dagster_port=options.dagster_port,
            api_port=options.api_port,
        )
        keys = caller.get(ENCRYPTION_KEYS) or self.folder.encryption_keys()
        yaml = options.dagster_yaml or checkout_folder() / "dagster_home" / "dagster.yaml"
        shutil.copy(yaml, self.folder.dagster_home / "dagster.yaml")
        self._start_services(
            addresses, child_environment(caller, addresses, self.folder.dagster_home, keys)
        )
        self.urls = {
            "api": addresses.api_url,
            "dagster": addresses.dagster_url,
            "database": addresses.database_url,
            "hubspot": addresses.hubspot_url,
        }

    def watch_once(self) -> None:
        """Start again what has ended, else wait a moment.

        Raises if somebody wants to stop, or if a process ends again and again.
        """
        if self.supervisor.watch_once():
            self.folder.publish(self.facts())

    def stop(self) -> None:
        """End every process and what descends from it, within a bounded time."""
        self.supervisor.stop()

    def facts(self) -> dict[str, Any]:
        """Return what `stack.json` says."""
        pids = {name: child.process.pid for name, child in self.children.items()}
        return {
            "urls": self.urls,
            "pids": {"supervisor": getpid(), **pids},
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "data_dir": str(self.folder.path),
            "logs": str(self.folder.logs),
        }

    def _start_postgres(self, options: StackOptions) -> EmbeddedPostgres | None:
        if options.database_url is not None:
            return None
        self.supervisor.tell("Starting PostgreSQL")
        postgres = EmbeddedPostgres.prepare(self.folder)
        if not postgres.cluster.is_relative_to(self.folder.path):
            self.supervisor.tell(f"PostgreSQL's files are in {postgres.cluster}")
        self.supervisor.recoveries["postgres"] = (postgres.end_leftovers, postgres.is_ready)
        self.supervisor.spawn(postgres.command())
        return postgres

    def _start_sandbox(self, options: SandboxOptions, caller: Mapping[str, str]) -> str:
        port = free_ports(1)[0]
        arguments = ["--deals", str(options.deals), "--seed", str(options.seed)]
        arguments += ["--latency-ms", str(options.latency_ms)]
        self.supervisor.spawn(sandbox_command(port, arguments, plain_environment(caller)))
        self.supervisor.wait({"sandbox": lambda: is_listening(port)})
        return f"http://{LOOPBACK}:{port}"

    def _start_services(self, addresses: StackAddresses, environment: Mapping[str, str]) -> None:
        supervisor = self.supervisor
        supervisor.tell("Preparing the database")
        of_connection = connection_environment(caller_environment())
        for command in migrate_commands({**environment, **of_connection}):
            supervisor.run_to_end(command)
        supervisor.tell("Starting Dagster and the API")
        ready = {
            "code_server": lambda: is_listening(addresses.code_server_port),
            "sync_server": lambda: is_listening(addresses.sync_server_port),
        }
        supervisor.spawn(code_server_command(addresses, environment))
        supervisor.spawn(sync_server_command(addresses, environment))
        if needs_run_host(self.folder.dagster_home):
            folder = LauncherFolder.below(self.folder.dagster_home)
            ready["run_host"] = lambda: is_ready(folder)
            supervisor.spawn(run_host_command(environment))
        supervisor.wait(ready)
        for command in door_commands(addresses, environment):
            supervisor.spawn(command)
        supervisor.wait(
            {
                "webserver": pipeline_is_loaded(addresses.dagster_url),
                "api": answers(f"{addresses.api_url}/api/v1/health"),
            }
        )


@contextmanager
def running_stack(
    options: StackOptions, tell: Callable[[str], None], checkpoint: Callable[[], None]
) -> Iterator[Stack]:
    """Start the stack, hand it over when it is ready, and leave nothing of it behind."""
    checkout_folder()
    folder = DataFolder(options.data_dir.absolute())
    folder.create()
    # First of all: who starts a second stack should hear of the first one, not of its ports.
    with folder.locked():
        options = _checked(options)
        folder.withdraw()
        guard = Guard.start(folder.stack_file, checkout_folder())
        stack = Stack(folder, Supervisor(folder, tell, checkpoint, guard))
        try:
            stack.start(options)
            folder.publish(stack.facts())
            yield stack
        finally:
            stack.stop()
            folder.withdraw()


def _checked(options: StackOptions) -> StackOptions:
    """Return the options with ports chosen; raises ConfigurationError where one cannot be met."""
    api_port, dagster_port = choose_ports(
        {"--api-port": options.api_port, "--dagster-port": options.dagster_port}
    )
    if options.database_url is not None:
        check_database(libpq_url(options.database_url))
    if options.hubspot_url is not None:
        options = replace(options, hubspot_url=check_hubspot_url(options.hubspot_url))
    return replace(options, api_port=api_port, dagster_port=dagster_port)
