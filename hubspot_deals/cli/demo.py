"""The demo: one scan of a sandbox account, from the request to the rows."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import click
from pydantic import SecretStr

from hubspot_deals.cli.client import ServiceClient
from hubspot_deals.cli.output import echo_table, follow
from hubspot_deals.cli.scan import ScanNotCompletedError, new_scan_id
from hubspot_deals.cli.settings import DEFAULT_API_URL
from hubspot_deals.contract import SCAN_TYPES, ScanStatus
from hubspot_deals.local.ports import DEFAULT_DAGSTER_PORT, LOOPBACK, is_free
from hubspot_deals.local.processes import raise_if_ended
from hubspot_deals.local.stack import SandboxOptions, Stack, StackOptions, running_stack
from hubspot_deals.local.stopping import StopRequestedError, StopSwitch

_SAMPLE_ROWS: Final = 8
_BAR_WIDTH: Final = 18
# Two of these and the numbers fit into the 80 columns of a plain terminal.
_CELL_WIDTH: Final = 26
_SAMPLE_COLUMNS: Final = {
    "id": "id",
    "deal": "dealname",
    "amount": "amount",
    "in": "deal_currency_code",
    "stage": "dealstage",
}
_INTERRUPTED: Final = 130


@dataclass(slots=True)
class StageTotal:
    """The deals of one stage."""

    count: int = 0
    amount: Decimal = field(default_factory=Decimal)
    unreadable: int = 0


def run_demo(data_dir: Path, deals: int) -> None:
    """Start the stack, scan the sandbox, show the rows, and end everything."""
    options = _with_free_ports(StackOptions(data_dir=data_dir, sandbox=SandboxOptions(deals=deals)))
    with StopSwitch() as switch:
        try:
            with running_stack(options, click.echo, switch.check) as stack:
                _scan_and_show(stack, deals)
                click.echo("Ending the demo; the rows stay in the data folder.")
        except StopRequestedError:
            click.echo("Stopped", err=True)
            raise SystemExit(_INTERRUPTED) from None


def totals_by_stage(records: Iterable[dict[str, Any]]) -> dict[tuple[str, str], StageTotal]:
    """Add up deals by pipeline and stage, in the account's home currency."""
    totals: dict[tuple[str, str], StageTotal] = defaultdict(StageTotal)
    for record in records:
        total = totals[record.get("pipeline") or "", record.get("dealstage") or ""]
        amount = _amount(record)
        total.count += 1
        total.amount += amount or 0
        total.unreadable += amount is None
    return totals


def _amount(record: dict[str, Any]) -> Decimal | None:
    """Return the amount, or None when HubSpot's text is not a number, which it does not check."""
    try:
        amount = Decimal(record.get("amount_in_home_currency") or record.get("amount") or "0")
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None


def _with_free_ports(options: StackOptions) -> StackOptions:
    if not is_free(options.api_port):
        click.echo(f"Port {options.api_port} is in use: the API takes another one.")
        options = replace(options, api_port=0)
    if not is_free(options.dagster_port):
        click.echo(f"Port {options.dagster_port} is in use: Dagster takes another one.")
        options = replace(options, dagster_port=0)
    return options


def _scan_and_show(stack: Stack, deals: int) -> None:
    def checkpoint() -> None:
        stack.checkpoint()
        raise_if_ended(stack.children.values())

    service = ServiceClient(stack.urls["api"])
    scan_id = new_scan_id("demo")
    click.echo(f"\nScan {scan_id} of {deals:,} deals: POST {service.url}/api/v1/scan/start")
    config = {
        "scanId": scan_id,
        "organizationId": "demo",
        "type": list(SCAN_TYPES),
        "filters": {"includeArchived": False},
    }
    # The sandbox takes any token that looks like one.
    service.start_scan(config, SecretStr("any-sandbox-token"))
    ended = follow(lambda: service.get_scan(scan_id), checkpoint, quiet=False)
    if ended["status"] != ScanStatus.COMPLETED:
        raise ScanNotCompletedError(ended)
    _show_sample(service, scan_id)
    _show_totals(service, scan_id, checkpoint)
    _show_next_steps(stack, scan_id)


def _show_sample(service: ServiceClient, scan_id: str) -> None:
    page = service.page_of_rows(scan_id, "deals", _SAMPLE_ROWS, 0)
    records = page["records"]
    rows = ([record.get(name) for name in _SAMPLE_COLUMNS.values()] for record in records)
    title = f"\n{len(records)} of {page['pagination']['total']:,} deals"
    echo_table(list(_SAMPLE_COLUMNS), rows, title, _CELL_WIDTH)


def _show_totals(service: ServiceClient, scan_id: str, checkpoint: Callable[[], None]) -> None:
    def records() -> Iterable[dict[str, Any]]:
        for page in service.pages(scan_id, "deals"):
            checkpoint()
            yield from page["records"]

    totals = totals_by_stage(records())
    names = _stage_names(service, scan_id)
    highest = max((total.amount for total in totals.values()), default=Decimal(0))
    rows = (
        (
            names.get(stage, " / ".join(stage)),
            f"{total.count:>6,}",
            f"{total.amount:>14,.0f}",
            "█" * round(_BAR_WIDTH * total.amount / highest) if highest > 0 else "",
        )
        for stage, total in sorted(totals.items(), key=lambda item: -item[1].amount)
    )
    title = "Totals by stage, in the home currency"
    echo_table(("stage", "deals", "amount", ""), rows, title, _CELL_WIDTH)
    if unreadable := sum(total.unreadable for total in totals.values()):
        click.echo(f"{unreadable:,} deals have an amount that is no number; it is kept as sent.")


def _stage_names(service: ServiceClient, scan_id: str) -> dict[tuple[str, str], str]:
    pipelines = {
        record["id"]: record["label"]
        for page in service.pages(scan_id, "pipelines")
        for record in page["records"]
    }
    return {
        (record["pipeline_id"], record["id"]): record["label"]
        if len(pipelines) == 1
        else f"{pipelines.get(record['pipeline_id'])}: {record['label']}"
        for page in service.pages(scan_id, "pipeline_stages")
        for record in page["records"]
    }


def _show_next_steps(stack: Stack, scan_id: str) -> None:
    program = _program()
    click.echo(
        f"""
The rows are in PostgreSQL, one snapshot per scan_id: hubspot_deals.deals, .users, .pipelines,
.pipeline_stages and .deal_properties. The files are in {stack.folder.path}.

Go on:
  make up        starts the same stack, with these rows, and leaves it running
                 (API: {DEFAULT_API_URL}/api/v1/docs, Dagster: http://{LOOPBACK}:{DEFAULT_DAGSTER_PORT})
  and then, in another terminal:
  {program} scan start --watch
  {program} results {scan_id} --table deals
  {program} sql          opens psql; paste:

    SELECT dealstage, count(*), sum(amount_in_home_currency)
    FROM hubspot_deals.deals WHERE scan_id = '{scan_id}'
    GROUP BY dealstage ORDER BY 3 DESC NULLS LAST;
"""  # noqa: S608 - for a person to paste
    )


def _program() -> str:
    """Return this command as it can be typed from here."""
    program = Path(sys.argv[0]).absolute()
    if program.is_relative_to(Path.cwd()):
        return str(program.relative_to(Path.cwd()))
    return "hubspot-deals"
