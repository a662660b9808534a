"""What `hubspot-deals up` shows while the stack starts, runs and ends."""

import click

from hubspot_deals.local.environment import without_password
from hubspot_deals.local.stack import Stack, StackOptions, running_stack
from hubspot_deals.local.stopping import StopRequestedError, StopSwitch


def run_up(options: StackOptions) -> None:
    """Run the stack until somebody asks it to stop."""
    with StopSwitch() as switch:
        try:
            with running_stack(options, click.echo, switch.check) as stack:
                try:
                    _echo_addresses(stack)
                    while True:
                        stack.watch_once()
                finally:
                    click.echo("Stopping")
        except StopRequestedError:
            click.echo("Stopped")


def _echo_addresses(stack: Stack) -> None:
    lines = {
        "API": f"{stack.urls['api']}/api/v1/docs",
        "Dagster": stack.urls["dagster"],
        "HubSpot": stack.urls["hubspot"]
        + (" (sandbox, any token)" if "sandbox" in stack.children else ""),
        "Database": without_password(stack.urls["database"]),
        "Data": str(stack.folder.path),
        "Logs": str(stack.folder.logs),
    }
    click.echo("\nReady:")
    for name, value in lines.items():
        click.echo(f"  {name:<9} {value}")
    click.echo("\nCtrl-C ends it; scans and rows are kept.")
