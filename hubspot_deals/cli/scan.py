"""The `scan` commands: start one, follow it, list them."""

import json
import secrets
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

import click

from hubspot_deals.cli.asking import AskedScan, scan_options
from hubspot_deals.cli.output import (
    echo_json,
    echo_scan,
    echo_table,
    follow,
    json_option,
    readable_moment,
)
from hubspot_deals.cli.settings import CommandLine, pass_command_line
from hubspot_deals.contract import ScanStatus
from hubspot_deals.errors import PermanentError

# Never to be changed: a start that is repeated after an upgrade is still the same start.
_IDS_OF_KEYS: Final = UUID("6f0b3f0e-5a0c-4d0a-9a57-1d9f4f6f3c21")


class ScanNotCompletedError(PermanentError):
    """A watched scan ended without completing."""

    def __init__(self, scan: dict[str, Any]) -> None:
        reason = scan.get("errorMessage")
        super().__init__(
            f"Scan {scan['scanId']} {scan['status']}" + (f": {reason}" if reason else "")
        )


@click.group()
def scan() -> None:
    """Start scans, follow them, tell them what to do."""


@scan.command()
@scan_options
@click.option("--idempotency-key", metavar="KEY", help="Makes a repeated start the same start.")
@click.option("--watch", is_flag=True, help="Follow the scan to its end.")
@json_option
@pass_command_line
def start(
    command_line: CommandLine,
    *,
    asked: AskedScan,
    idempotency_key: str | None,
    watch: bool,
    as_json: bool,
) -> None:
    """Start a scan.

    The HubSpot token comes from HUBSPOT_DEALS_ACCESS_TOKEN, --token-file, or a hidden prompt.
    """
    scan_id = asked.scan_id
    if scan_id is None and idempotency_key:
        scan_id = scan_id_of_key(asked.organization, idempotency_key)
    scan_id = scan_id or new_scan_id("scan")
    token = command_line.access_token(asked.token_file)
    message = command_line.service().start_scan(asked.config(scan_id), token, idempotency_key)
    if as_json and not watch:
        echo_json({"scanId": scan_id, "message": message})
    elif not as_json:
        click.echo(f"{scan_id}: {message}", err=watch)
    if watch:
        _watch(command_line, scan_id, as_json=as_json)


@scan.command()
@click.argument("scan_id")
@json_option
@pass_command_line
def status(command_line: CommandLine, *, scan_id: str, as_json: bool) -> None:
    """Show one scan."""
    found = command_line.service().get_scan(scan_id)
    (echo_json if as_json else echo_scan)(found)


@scan.command()
@click.argument("scan_id")
@json_option
@pass_command_line
def watch(command_line: CommandLine, *, scan_id: str, as_json: bool) -> None:
    """Follow a scan to its end; exit code 1 unless it completes."""
    _watch(command_line, scan_id, as_json=as_json)


@scan.command(name="list")
@click.option("--organization", help="Only this organization's scans.")
@click.option("--limit", default=20, show_default=True, help="Scans on the page.")
@click.option("--offset", default=0, show_default=True, help="Scans to skip.")
@json_option
@pass_command_line
def list_scans(
    command_line: CommandLine, *, organization: str | None, limit: int, offset: int, as_json: bool
) -> None:
    """List scans."""
    page = command_line.service().page_of_scans(organization, limit, offset)
    if as_json:
        echo_json(page)
        return
    rows = (
        (
            found["scanId"],
            found["organizationId"],
            found["status"],
            f"{found.get('recordsExtracted') or 0:,}",
            readable_moment(found.get("startTime")),
            readable_moment(found.get("endTime")),
        )
        for found in page["scans"]
    )
    echo_table(("scan", "organization", "status", "records", "started, UTC", "ended"), rows)
    click.echo(f"{len(page['scans'])} of {page['pagination']['total']}")


def new_scan_id(prefix: str) -> str:
    """Return an id that says when, and that nobody else has."""
    return f"{prefix}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def scan_id_of_key(organization: str, idempotency_key: str) -> str:
    """Return the id that every start with this key has: the id is part of the request."""
    return f"scan-{uuid5(_IDS_OF_KEYS, json.dumps([organization, idempotency_key]))}"


def _watch(command_line: CommandLine, scan_id: str, *, as_json: bool) -> None:
    service = command_line.service()
    try:
        ended = follow(lambda: service.get_scan(scan_id), lambda: None, quiet=as_json)
    except KeyboardInterrupt:
        click.echo(
            f"\nScan {scan_id} goes on: hubspot-deals scan watch {scan_id} follows it, "
            f"hubspot-deals scan cancel {scan_id} ends it.",
            err=True,
        )
        raise
    if as_json:
        echo_json(ended)
    else:
        # The reason of a failure follows as this command's own error.
        echo_scan(ended | {"errorMessage": None})
    if ended["status"] != ScanStatus.COMPLETED:
        raise ScanNotCompletedError(ended)
