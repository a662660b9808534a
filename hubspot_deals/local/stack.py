"""The embedded stack: which processes there are, in which order they start and end."""

import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from os import getpid
from pathlib import Path
from typing import Any, Final

import hubspot_deals
from hubspot_deals.contract import CODE_LOCATION
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.local.environment import (
    ENCRYPTION_KEYS,
    StackAddresses,
    caller_environment,
    child_environment,
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
from hubspot_deals.local.processes import (
    Child,
    Command,
    raise_if_ended,
    send,
    stop_together,
    wait_until_ready,
)
from hubspot_deals.local.readiness import (
    answers,
    check_hubspot_url,
    pipeline_is_loaded,
    sandbox_url,
)

_READY_SECONDS: Final = 90.0
_WATCH_SECONDS: Final = 0.2
_CODE_SERVER_STOP_SECONDS: Final = 15.0
# The doors first, so that nothing new comes in; then what they stand on.
_DOORS: Final = ("api", "daemon", "webserver")
_FOUNDATIONS: Final = ("code_server", "sandbox", "postgres")

Tell = Callable[[str], None]
Checkpoint = Callable[[], None]


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


@dataclass(slots=True)
class Stack:
    """The running processes and where they listen."""

    folder: DataFolder
    tell: Tell
    checkpoint: Checkpoint
    guard: Guard
    children: dict[str, Child] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    def start(self, options: StackOptions) -> None:
        """Start every process and return when the stack can be used."""
        caller = caller_environment()
        postgres = self._start_postgres(options)
        if options.hubspot_url is None:
            self._spawn(_sandbox_command(options.sandbox, plain_environment(caller)))
        if postgres is not None:
            self._wait({"postgres": postgres.is_ready})
            postgres.ensure_database()
        addresses = StackAddresses(
            database_url=postgres.url if postgres else libpq_url(options.database_url or ""),
            hubspot_url=options.hubspot_url or self._sandbox_url(),
            code_server_port=free_ports(1)[0],
            dagster_port=options.dagster_port,
            api_port=options.api_port,
        )
        keys = caller.get(ENCRYPTION_KEYS) or self.folder.encryption_keys()
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
        """Raise if a process has ended or somebody wants to stop; else wait a moment."""
        self.checkpoint()
        raise_if_ended(self.children.values())
        time.sleep(_WATCH_SECONDS)

    def stop(self) -> None:
        """End every process and what descends from it, within a bounded time."""
        self._stop_parts(_DOORS)
        if "code_server" in self.children:
            # The runs; the code server waits for them to end.
            send(self.children["code_server"].descendants(), signal.SIGINT)
        for name in _FOUNDATIONS:
            self._stop_parts((name,))
        # A one-shot that was cut short.
        self._stop_parts(tuple(self.children))
        self.guard.dismiss()

    def facts(self) -> dict[str, Any]:
        """Return what `stack.json` says."""
        pids = {name: child.process.pid for name, child in self.children.items()}
        return {
            "urls": self.urls,
            "pids": {"supervisor": getpid(), **pids},
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "data_dir": str(self.folder.path),
            "logs": str(self.folder.logs),
        }

    def _start_postgres(self, options: StackOptions) -> EmbeddedPostgres | None:
        if options.database_url is not None:
            return None
        self.tell("Starting PostgreSQL")
        postgres = EmbeddedPostgres.prepare(self.folder)
        if not postgres.cluster.is_relative_to(self.folder.path):
            self.tell(f"PostgreSQL's files are in {postgres.cluster}")
        self._spawn(postgres.command())
        return postgres

    def _sandbox_url(self) -> str:
        sandbox = self.children["sandbox"]
        self._wait({"sandbox": lambda: sandbox_url(sandbox) is not None})
        return sandbox_url(sandbox) or ""

    def _start_services(self, addresses: StackAddresses, environment: Mapping[str, str]) -> None:
        self.tell("Preparing the database")
        checkout = checkout_folder()
        shutil.copy(checkout / "dagster_home" / "dagster.yaml", self.folder.dagster_home)
        self._run_to_end(_python("migrate", ["hubspot_deals.warehouse.migrate"], environment))
        # Not beside the code server, which opens Dagster's tables too: at a first start, both
        # would create them.
        self._run_to_end(
            _python("dagster_migrate", ["dagster", "instance", "migrate"], environment)
        )
        self.tell("Starting Dagster and the API")
        self._spawn(_code_server_command(addresses.code_server_port, environment))
        self._wait({"code_server": lambda: is_listening(addresses.code_server_port)})
        for command in _door_commands(addresses, environment):
            self._spawn(command)
        self._wait(
            {
                "webserver": pipeline_is_loaded(addresses.dagster_url),
                "api": answers(f"{addresses.api_url}/api/v1/health"),
            }
        )

    def _spawn(self, command: Command) -> Child:
        self.checkpoint()
        child = Child(command, self.folder.logs / f"{command.name}.log")
        self.children[command.name] = child
        self.guard.note(self.children.values())
        return child

    def _wait(self, checks: Mapping[str, Callable[[], bool]]) -> None:
        pending = {self.children[name]: check for name, check in checks.items()}
        wait_until_ready(pending, self.children.values(), _READY_SECONDS, self.checkpoint)

    def _run_to_end(self, command: Command) -> None:
        """Run a one-shot; raises ChildEndedError when it fails."""
        child = self._spawn(command)
        running = [other for other in self.children.values() if other is not child]
        ended = {child: lambda: child.exit_code is not None}
        wait_until_ready(ended, running, _READY_SECONDS, self.checkpoint)
        if child.exit_code != 0:
            raise child.ended_error()
        del self.children[command.name]
        self.guard.note(self.children.values())

    def _stop_parts(self, names: tuple[str, ...]) -> None:
        stop_together([self.children.pop(name) for name in names if name in self.children])


@contextmanager
def running_stack(options: StackOptions, tell: Tell, checkpoint: Checkpoint) -> Iterator[Stack]:
    """Start the stack, hand it over when it is ready, and leave nothing of it behind."""
    checkout_folder()
    api_port, dagster_port = choose_ports(
        {"--api-port": options.api_port, "--dagster-port": options.dagster_port}
    )
    options = replace(options, api_port=api_port, dagster_port=dagster_port)
    if options.database_url is not None:
        check_database(libpq_url(options.database_url))
    if options.hubspot_url is not None:
        options = replace(options, hubspot_url=check_hubspot_url(options.hubspot_url))
    folder = DataFolder(options.data_dir.absolute())
    folder.create()
    with folder.locked():
        folder.withdraw()
        guard = Guard.start(folder.stack_file, checkout_folder())
        stack = Stack(folder, tell, checkpoint, guard)
        try:
            stack.start(options)
            folder.publish(stack.facts())
            yield stack
        finally:
            stack.stop()
            folder.withdraw()


def checkout_folder() -> Path:
    """Return the folder of `workspace.yaml`; raises ConfigurationError when there is none."""
    folder = Path(hubspot_deals.__file__).parents[1]
    for needed in ("workspace.yaml", "dagster_home/dagster.yaml"):
        if not (folder / needed).exists():
            msg = f"{folder / needed} is missing: the stack starts from a checkout of the project."
            raise ConfigurationError(msg)
    return folder


def _python(name: str, arguments: list[str], environment: Mapping[str, str]) -> Command:
    return Command(
        name=name,
        arguments=[sys.executable, "-m", *arguments],
        environment=environment,
        working_folder=checkout_folder(),
    )


def _sandbox_command(options: SandboxOptions, environment: Mapping[str, str]) -> Command:
    arguments = ["hubspot_sandbox", "--port", "0", "--deals", str(options.deals)]
    arguments += ["--seed", str(options.seed), "--latency-ms", str(options.latency_ms)]
    return _python("sandbox", arguments, environment)


def _code_server_command(port: int, environment: Mapping[str, str]) -> Command:
    arguments = ["dagster", "api", "grpc", "-m", "hubspot_deals.definitions"]
    arguments += ["-h", LOOPBACK, "-p", str(port), "--location-name", CODE_LOCATION]
    command = _python("code_server", arguments, environment)
    return replace(command, stop_seconds=_CODE_SERVER_STOP_SECONDS)


def _door_commands(addresses: StackAddresses, environment: Mapping[str, str]) -> list[Command]:
    workspace = ["-w", "workspace.yaml"]
    webserver = ["dagster_webserver", "-h", LOOPBACK, "-p", str(addresses.dagster_port), *workspace]
    api = ["uvicorn", "api.main:create_app", "--factory", "--host", LOOPBACK]
    api += ["--port", str(addresses.api_port), "--timeout-graceful-shutdown", "3"]
    return [
        _python("daemon", ["dagster._daemon", "run", *workspace], environment),
        _python("webserver", webserver, environment),
        _python("api", api, environment),
    ]
