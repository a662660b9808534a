"""The commands that run things on this machine: `up`, `demo`, `sandbox` and `sql`."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
from click.core import ParameterSource

from hubspot_deals.cli.settings import CommandLine, pass_command_line
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.local.environment import caller_environment, split_password
from hubspot_deals.local.ports import DEFAULT_API_PORT, DEFAULT_DAGSTER_PORT

_PORT = click.IntRange(0, 65535)
_COUNT = click.IntRange(0)
_DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the stack's data [HUBSPOT_DEALS_DATA_DIR, or .hubspot-deals here].",
)


@click.command(short_help="Start the whole service on this machine.")
@click.option(
    "--api-port", type=_PORT, default=DEFAULT_API_PORT, show_default=True, help="0: any free one."
)
@click.option(
    "--dagster-port",
    type=_PORT,
    default=DEFAULT_DAGSTER_PORT,
    show_default=True,
    help="0: any free one.",
)
@_DATA_DIR
@click.option(
    "--database-url",
    envvar="HUBSPOT_DEALS_DATABASE_URL",
    show_envvar=True,
    help="An existing PostgreSQL instead of the embedded one. A password is safer in the variable.",
)
@click.option(
    "--hubspot-url",
    envvar="HUBSPOT_DEALS_HUBSPOT_URL",
    show_envvar=True,
    help="The HubSpot API to read, for example https://api.hubapi.com.",
)
@click.option("--sandbox", is_flag=True, help="Start a sandbox HubSpot; default without a URL.")
@click.option(
    "--sandbox-deals", type=_COUNT, default=25_000, show_default=True, help="Deals in the sandbox."
)
@click.option("--sandbox-seed", default=7, show_default=True, help="The same seed, same deals.")
@click.option(
    "--sandbox-latency-ms", type=_COUNT, default=0, show_default=True, help="Delay of each answer."
)
@click.option(
    "--dagster-yaml",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Dagster's configuration in place of dagster_home/dagster.yaml.",
)
@pass_command_line
def up(  # noqa: PLR0913 - one parameter per option
    command_line: CommandLine,
    *,
    api_port: int,
    dagster_port: int,
    data_dir: Path | None,
    database_url: str | None,
    hubspot_url: str | None,
    sandbox: bool,
    sandbox_deals: int,
    sandbox_seed: int,
    sandbox_latency_ms: int,
    dagster_yaml: Path | None,
) -> None:
    """Start the whole service on this machine and keep it running until Ctrl-C.

    PostgreSQL, Dagster, the REST API and, without --hubspot-url, a sandbox HubSpot. All listen on
    127.0.0.1 only. While it runs, stack.json in the data folder names its URLs and processes.
    """
    with _local_extra():
        from hubspot_deals.cli.up import run_up  # noqa: PLC0415
        from hubspot_deals.local.stack import SandboxOptions, StackOptions  # noqa: PLC0415

    context = click.get_current_context()
    if sandbox and context.get_parameter_source("hubspot_url") is ParameterSource.COMMANDLINE:
        msg = "--sandbox and --hubspot-url exclude each other."
        raise click.UsageError(msg)
    run_up(
        StackOptions(
            data_dir=data_dir or command_line.settings.data_dir,
            api_port=api_port,
            dagster_port=dagster_port,
            database_url=database_url or None,
            hubspot_url=None if sandbox else hubspot_url or None,
            sandbox=SandboxOptions(sandbox_deals, sandbox_seed, sandbox_latency_ms),
            dagster_yaml=dagster_yaml,
        )
    )


@click.command(short_help="Show a whole scan on this machine, then end.")
@_DATA_DIR
@click.option(
    "--deals", type=_COUNT, default=25_000, show_default=True, help="Deals in the sandbox."
)
@pass_command_line
def demo(command_line: CommandLine, *, data_dir: Path | None, deals: int) -> None:
    """Show a whole scan on this machine: start everything, extract, look at the rows, end."""
    with _local_extra():
        from hubspot_deals.cli.demo import run_demo  # noqa: PLC0415

    run_demo(data_dir or command_line.settings.data_dir, deals)


@click.command(
    add_help_option=False,
    short_help="Run the sandbox HubSpot alone.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def sandbox(*, arguments: tuple[str, ...]) -> None:
    """Run the sandbox HubSpot alone; `sandbox --help` lists its options."""
    command = [sys.executable, "-m", "hubspot_sandbox", *arguments]
    os.execv(sys.executable, command)  # noqa: S606 - becomes the sandbox, signals included


@click.command(
    short_help="Run SQL on the running stack, or open psql.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("statement", required=False)
@pass_command_line
def sql(command_line: CommandLine, *, statement: str | None) -> None:
    """Run SQL on the database of the running stack, or open psql without a STATEMENT."""
    with _local_extra():
        from hubspot_deals.local.server_files import psql_program  # noqa: PLC0415

    url = command_line.stack_urls().get("database")
    if url is None:
        msg = f"No stack runs on {command_line.settings.data_dir}: start one with hubspot-deals up."
        raise ConfigurationError(msg)
    command, environment = psql_call(psql_program(), url, statement, caller_environment())
    os.execve(command[0], command, environment)  # noqa: S606 - becomes psql, terminal included


def psql_call(
    program: Path, url: str, statement: str | None, caller: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return psql's arguments, which every user can read, and its environment."""
    address, password = split_password(url)
    environment = dict(caller) | ({} if password is None else {"PGPASSWORD": password})
    # An answer that was asked for in one line is not to wait for a key in a pager.
    once = ["--pset", "pager=off", "--command", statement] if statement else []
    return [str(program), address, *once], environment


@contextmanager
def _local_extra() -> Iterator[None]:
    """Wrap the imports of the stack, which only some commands and only one extra need."""
    try:
        yield
    except ModuleNotFoundError as error:
        msg = (
            f"{error.name} is not installed: run `make install`, or "
            "`pip install 'hubspot-deals[local]'`."
        )
        raise ConfigurationError(msg) from error
