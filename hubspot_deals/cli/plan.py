"""The `plan` command: what a scan would bring and take, before it is started."""

from contextlib import closing
from typing import Any, Final

import click

from hubspot_deals.cli.asking import AskedScan, scan_options
from hubspot_deals.cli.output import echo_json, echo_table, json_option
from hubspot_deals.cli.settings import CommandLine, pass_command_line
from hubspot_deals.errors import PermanentError

_PLANNED: Final = "planned"
"""Stands for the id of a scan that nobody starts."""


class ScanImpossibleError(PermanentError):
    """The token does not allow the scan."""


@click.command()
@scan_options
@json_option
@pass_command_line
def plan(command_line: CommandLine, *, asked: AskedScan, as_json: bool) -> None:
    """Say what a scan would read, ask HubSpot and take. Nothing is stored.

    The HubSpot token comes from HUBSPOT_DEALS_ACCESS_TOKEN, --token-file, or a hidden prompt.
    """
    token = command_line.access_token(asked.token_file)
    config = asked.config(asked.scan_id or _PLANNED)
    with closing(command_line.service()) as service:
        found = service.plan_scan(config, token)
    if as_json:
        echo_json(found)
    else:
        _echo_plan(found)
    if not found["canScan"]:
        raise ScanImpossibleError(found["reason"])


def _echo_plan(found: dict[str, Any]) -> None:
    rows = (
        (table["name"], _rows(table["rows"], table["basis"]), table["consequence"])
        for table in found["tables"]
    )
    columns = ["table", "rows"]
    if any(table["consequence"] for table in found["tables"]):
        columns.append("consequence")
    echo_table(columns, (row[: len(columns)] for row in rows), cell_width=80)
    for name, text in _lines(found).items():
        if text:
            click.echo(f"{name:<14} {text}")
    for note in found["notes"]:
        click.echo(f"note: {note}")


def _lines(found: dict[str, Any]) -> dict[str, str]:
    requests, quota, tier = found["requests"], found["dailyQuota"], found["tier"]
    properties = found["properties"] or {"selected": [], "unknown": []}
    lines = {
        "account": str(found["portalId"] or ""),
        "limits": ", ".join(_limits(tier, quota)),
        "missing scopes": ", ".join(found["scopes"]["missing"]),
        "properties": f"{len(properties['selected']):,}" if properties["selected"] else "",
        "not defined": ", ".join(properties["unknown"]),
    }
    if requests:
        parts = f"list {requests['list']:,}, search {requests['search']:,}, other "
        total = _rows(requests["total"], requests["basis"])
        lines["requests"] = f"{total} ({parts}{requests['other']:,})"
        if found["dailyShare"] is not None:
            lines["requests"] += f", {found['dailyShare']:g} % of a day's"
        lines["minutes"] = f"{found['minutes']:g}"
    return lines


def _limits(tier: dict[str, Any], quota: dict[str, Any] | None) -> list[str]:
    limits = [tier["name"] or ""]
    if tier["requestsPerTenSeconds"]:
        limits.append(f"{tier['requestsPerTenSeconds']} requests in 10 s")
    limits.append(f"{tier['searchesPerSecond']:g} searches a second")
    if quota:
        used = "" if quota["used"] is None else f", {quota['used']:,} of them used"
        limits.append(f"{quota['limit']:,} requests a day{used}")
    if tier["share"] != 1:
        limits.append(f"share {tier['share']:g}")
    return [limit for limit in limits if limit]


def _rows(count: int | None, basis: str) -> str:
    if count is None:
        return "unknown"
    return f"{count:,}" + (" or more" if basis == "atLeast" else "")
