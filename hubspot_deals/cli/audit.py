"""The `audit` command: who changed and read what."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from hubspot_deals.cli.output import echo_json, echo_table, json_option
from hubspot_deals.cli.settings import CommandLine, pass_command_line
from hubspot_deals.warehouse.audit_log import AuditEntry, AuditFilter, find_entries

_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


@click.command(short_help="Show the newest entries of the audit log.")
@click.option("--actor", help="key:ID, jwt:SUBJECT, open or operator.")
@click.option("--action", help="Such as start_scan, get_result_page, download_table, create_key.")
@click.option("--organization", "organization_id", help="Whose scan it was.")
@click.option("--scan", "object_id", help="Id of a scan, or of another object.")
@click.option("--outcome", type=click.Choice(["begun", "done", "refused", "failed", "cut off"]))
@click.option("--since", type=_MOMENT, help="UTC.")
@click.option("--until", type=_MOMENT, help="UTC; not included.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@json_option
@pass_command_line
def audit(  # noqa: PLR0913 - one parameter per option
    command_line: CommandLine,
    *,
    actor: str | None,
    action: str | None,
    organization_id: str | None,
    object_id: str | None,
    outcome: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show the newest entries of the audit log, newest first; all conditions have to be met."""
    wanted = AuditFilter(
        actor=actor,
        action=action,
        organization_id=organization_id,
        object_id=object_id,
        outcome=outcome,
        since=since and since.replace(tzinfo=UTC),
        until=until and until.replace(tzinfo=UTC),
    )
    with command_line.database() as connection:
        found = find_entries(connection, wanted, limit=limit)
    if as_json:
        echo_json([_document(entry) for entry in found])
        return
    columns = ("at", "actor", "action", "organization", "object", "outcome", "status", "request")
    rows = (
        (
            _moment(entry),
            entry.actor,
            entry.action,
            entry.organization_id,
            entry.object_id,
            entry.outcome,
            entry.status,
            entry.request_id,
        )
        for entry in found
    )
    echo_table(columns, rows)


def _document(entry: AuditEntry) -> dict[str, Any]:
    known = asdict(entry) | {"at": _moment(entry)}
    del known["object_kind"]
    return known


def _moment(entry: AuditEntry) -> str:
    return entry.at.astimezone(UTC).isoformat(timespec="milliseconds")
