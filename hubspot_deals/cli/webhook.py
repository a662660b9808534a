"""The `webhook` commands: subscribe URLs to what becomes of scans, and see what was sent."""

from typing import Any

import click

from hubspot_deals.cli.output import echo_confirmation, echo_json, echo_table, json_option
from hubspot_deals.cli.settings import CommandLine, pass_command_line

_TEST_EVENTS = "scan.completed, scan.*, * and so on; repeat the option for more."


@click.group(short_help="Tell URLs what becomes of scans.")
def webhook() -> None:
    """Tell URLs what becomes of scans; see, test and replay what was sent to them."""


@webhook.command()
@click.argument("url")
@click.option("--organization", default="default", show_default=True, help="Whose scans.")
@click.option("--event", "events", multiple=True, default=("*",), help=_TEST_EVENTS)
@json_option
@pass_command_line
def create(
    command_line: CommandLine,
    *,
    url: str,
    organization: str,
    events: tuple[str, ...],
    as_json: bool,
) -> None:
    """Subscribe a URL and print its secret, this once."""
    body = {"organizationId": organization, "url": url, "events": list(events)}
    _echo_secret(command_line.service().call("POST", "webhooks", body), as_json=as_json)


@webhook.command("list")
@click.option("--organization", help="Only this organization's.")
@json_option
@pass_command_line
def list_webhooks(command_line: CommandLine, *, organization: str | None, as_json: bool) -> None:
    """List webhooks, newest first."""
    params: dict[str, str | int] = {"limit": 1_000}
    if organization is not None:
        params["organizationId"] = organization
    page = command_line.service().call("GET", "webhooks", params=params)["data"]
    if as_json:
        return echo_json(page)
    names = ("webhookId", "organizationId", "enabled", "events", "url")
    rows = [[_text(entry[name]) for name in names] for entry in page["webhooks"]]
    return echo_table(names, rows, cell_width=60)


@webhook.command()
@click.argument("webhook_id")
@click.option("--url", help="Another URL.")
@click.option("--event", "events", multiple=True, help=_TEST_EVENTS)
@click.option("--enable/--disable", "enabled", default=None, help="Whether it is told anything.")
@json_option
@pass_command_line
def update(  # noqa: PLR0913 - one parameter per option
    command_line: CommandLine,
    *,
    webhook_id: str,
    url: str | None,
    events: tuple[str, ...],
    enabled: bool | None,
    as_json: bool,
) -> None:
    """Change a webhook; what is not named stays."""
    wanted = {"url": url, "events": list(events) or None, "enabled": enabled}
    body = {name: value for name, value in wanted.items() if value is not None}
    if not body:
        msg = "Say what to change."
        raise click.UsageError(msg)
    answer = command_line.service().call("PATCH", f"webhooks/{webhook_id}", body)
    echo_confirmation(answer | {"message": "changed"}, webhook_id, as_json=as_json)


@webhook.command()
@click.argument("webhook_id")
@json_option
@pass_command_line
def remove(command_line: CommandLine, *, webhook_id: str, as_json: bool) -> None:
    """Delete a webhook with its delivery log."""
    answer = command_line.service().call("DELETE", f"webhooks/{webhook_id}")
    echo_confirmation(answer, webhook_id, as_json=as_json)


@webhook.command("rotate-secret")
@click.argument("webhook_id")
@click.option(
    "--overlap-hours",
    default=24,
    show_default=True,
    type=click.IntRange(0, 168),
    help="How long the old secret signs too.",
)
@json_option
@pass_command_line
def rotate_secret(
    command_line: CommandLine, *, webhook_id: str, overlap_hours: int, as_json: bool
) -> None:
    """Replace the secret and print the new one, this once."""
    path, body = f"webhooks/{webhook_id}/rotate-secret", {"overlapHours": overlap_hours}
    _echo_secret(command_line.service().call("POST", path, body), as_json=as_json)


@webhook.command()
@click.argument("webhook_id")
@json_option
@pass_command_line
def test(command_line: CommandLine, *, webhook_id: str, as_json: bool) -> None:
    """Send a test event; `webhook deliveries` tells how it went."""
    answer = command_line.service().call("POST", f"webhooks/{webhook_id}/test")
    echo_confirmation(answer | {"message": "test event on its way"}, webhook_id, as_json=as_json)


@webhook.command()
@click.argument("webhook_id")
@click.option("--status", type=click.Choice(["pending", "delivered", "dead"]), help="Only these.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000))
@json_option
@pass_command_line
def deliveries(
    command_line: CommandLine, *, webhook_id: str, status: str | None, limit: int, as_json: bool
) -> None:
    """List what was sent to a webhook or is to be, newest first."""
    params: dict[str, str | int] = {"limit": limit} | ({"status": status} if status else {})
    page = command_line.service().call("GET", f"webhooks/{webhook_id}/deliveries", params=params)
    if as_json:
        return echo_json(page["data"])
    names = ("delivery", "event", "status", "attempts", "last", "next attempt")
    rows = [
        (
            entry["deliveryId"],
            entry["type"],
            entry["status"],
            len(entry["attempts"]),
            _outcome(entry["attempts"]),
            entry["nextAttemptAt"],
        )
        for entry in page["data"]["deliveries"]
    ]
    return echo_table(names, rows, cell_width=60)


@webhook.command()
@click.argument("webhook_id")
@click.argument("delivery_id")
@json_option
@pass_command_line
def replay(command_line: CommandLine, *, webhook_id: str, delivery_id: str, as_json: bool) -> None:
    """Send an event once more."""
    path = f"webhooks/{webhook_id}/deliveries/{delivery_id}/replay"
    answer = command_line.service().call("POST", path)
    echo_confirmation(answer | {"message": "on its way again"}, delivery_id, as_json=as_json)


def _echo_secret(answer: dict[str, Any], *, as_json: bool) -> None:
    created = answer["data"]
    if as_json:
        echo_json(created)
    else:
        click.echo(f"{created['webhookId']}\n{created['secret']}")
        click.echo("Keep the secret now: it is not shown again.", err=True)


def _text(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _outcome(attempts: list[dict[str, Any]]) -> object:
    """Say what came of the last attempt: an HTTP status, or why there was none."""
    return attempts[-1]["httpStatus"] or attempts[-1]["error"] if attempts else None
