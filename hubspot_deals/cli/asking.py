"""The options that say what a scan is to read: `scan start` and `plan` have the same."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

import click

from hubspot_deals.contract import SCAN_TYPES


@dataclass(frozen=True, slots=True)
class AskedScan:
    """What the options say; `scan_id` is None where one is to be generated."""

    scan_id: str | None
    organization: str
    properties: tuple[str, ...]
    include_archived: bool
    start_date: str | None
    end_date: str | None
    date_field: str | None
    token_file: str | None

    def config(self, scan_id: str) -> dict[str, Any]:
        """Return the `config` of a request, without its credential."""
        filters: dict[str, Any] = {"includeArchived": self.include_archived}
        if self.properties:
            filters["properties"] = list(self.properties)
        span = {"startDate": self.start_date, "endDate": self.end_date, "field": self.date_field}
        if given := {name: value for name, value in span.items() if value is not None}:
            filters["dateRange"] = given
        return {
            "scanId": scan_id,
            "organizationId": self.organization,
            "type": list(SCAN_TYPES),
            "filters": filters,
        }


_OPTIONS: Final = (
    click.option("--scan-id", help="Id of the scan; else generated."),
    click.option("--organization", default="default", show_default=True, help="Organization id."),
    click.option(
        "--property",
        "properties",
        multiple=True,
        metavar="NAME",
        help="A deal property to read; repeat for more. '*' reads all. Default: the standard ones.",
    ),
    click.option("--include-archived", is_flag=True, help="Read archived deals too."),
    click.option("--start-date", metavar="YYYY-MM-DD", help="First day of the date range, UTC."),
    click.option(
        "--end-date", metavar="YYYY-MM-DD", help="Last day of the date range, UTC, included."
    ),
    click.option("--date-field", metavar="NAME", help="Date property of the range [createdate]."),
    click.option("--token-file", metavar="PATH", help="Read the HubSpot token there; - is stdin."),
)


def scan_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command those options, as its one argument `asked`."""

    @wraps(command)
    def collecting(*arguments: Any, **options: Any) -> None:
        asked = AskedScan(**{name: options.pop(name) for name in AskedScan.__dataclass_fields__})
        command(*arguments, asked=asked, **options)

    decorated: Callable[..., None] = collecting
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
