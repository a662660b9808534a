"""The `hubspot-deals` command group and the one place where an error becomes an exit code."""

from http import HTTPStatus
from typing import Final

import click

from hubspot_deals.cli.api_keys import keys
from hubspot_deals.cli.audit import audit
from hubspot_deals.cli.certificate import certificate
from hubspot_deals.cli.client import (
    RequestRefusedError,
    ServiceFailedError,
    ServiceUnreachableError,
)
from hubspot_deals.cli.connection import connection
from hubspot_deals.cli.control import cancel, pause, remove, resume
from hubspot_deals.cli.diff import diff
from hubspot_deals.cli.download import download
from hubspot_deals.cli.maintenance import maintenance
from hubspot_deals.cli.plan import plan
from hubspot_deals.cli.results import results
from hubspot_deals.cli.rotate import rotate_keys
from hubspot_deals.cli.scan import scan
from hubspot_deals.cli.settings import CommandLine
from hubspot_deals.cli.stack import demo, sandbox, sql, up
from hubspot_deals.cli.webhook import webhook
from hubspot_deals.errors import ConfigurationError, HubSpotDealsError
from hubspot_deals.redaction import install

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_FOUND: Final = 4
CONFLICT: Final = 5
_INTERRUPTED: Final = 130

_EPILOG: Final = """
\b
Exit codes:
  0  done; a watched scan completed
  1  a scan failed, was cancelled or crashed, or is not complete; a part of the stack failed
  2  wrong usage, configuration or request
  3  the API cannot be reached or is failing
  4  there is no such scan or connection
  5  the id, account or idempotency key is taken; a rerun replaced the result being read; the
     connection is paused, or may not be changed like that
  130  interrupted
"""


class _Group(click.Group):
    """A group whose commands may raise the product's errors."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except HubSpotDealsError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(exit_code(error))
        except KeyboardInterrupt:
            # Before click makes it an exit code of 1, which says that a scan failed.
            ctx.exit(_INTERRUPTED)


@click.group(cls=_Group, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hubspot-deals")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Extract HubSpot deals into PostgreSQL.

    `up` starts the whole service on this machine; `plan`, `scan`, `results`, `diff`, `download`,
    `certificate`, `connection`, `webhook` and `maintenance` talk to a running one; `keys` and
    `audit` to its database.
    """
    ctx.obj = ctx.obj or CommandLine()


for _command in (
    up,
    demo,
    sandbox,
    sql,
    plan,
    scan,
    results,
    diff,
    download,
    certificate,
    connection,
    maintenance,
    keys,
    audit,
    webhook,
):
    cli.add_command(_command)
for _command in (pause, resume, cancel, remove):
    scan.add_command(_command)
keys.add_command(rotate_keys)


def exit_code(error: HubSpotDealsError) -> int:
    """Return the exit code that a script can tell this error by."""
    if isinstance(error, ServiceUnreachableError | ServiceFailedError):
        return UNREACHABLE
    if isinstance(error, RequestRefusedError):
        refusals: dict[int, int] = {HTTPStatus.NOT_FOUND: NOT_FOUND, HTTPStatus.CONFLICT: CONFLICT}
        return refusals.get(error.status, USAGE)
    return USAGE if isinstance(error, ConfigurationError) else FAILED


def main() -> None:
    """Run the command line."""
    install()
    cli(prog_name="hubspot-deals")
