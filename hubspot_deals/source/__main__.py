"""Reads a HubSpot account into Parquet files with dlt alone, without Dagster.

HUBSPOT_DEALS_ACCESS_TOKEN=… python -m hubspot_deals.source --output ./deals
"""

import re
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Final

import click
import dlt
from pydantic import Field, HttpUrl, SecretStr

from hubspot_deals import redaction
from hubspot_deals.contract import (
    ALL_PROPERTIES,
    DATASET_NAME,
    DATE_FIELDS,
    SOURCE_NAME,
    DateRange,
    ScanFilters,
)
from hubspot_deals.dlt_runtime import configure_dlt_runtime
from hubspot_deals.errors import HubSpotDealsError
from hubspot_deals.settings import API_VERSION_PATTERN, Settings, load_settings
from hubspot_deals.source import hubspot_deals_source
from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.client import ConnectionOptions

_PROPERTY: Final = re.compile(r"[a-z0-9_]{1,100}", re.ASCII)


class SourceSettings(Settings):
    """What the source needs when it runs alone."""

    access_token: SecretStr
    hubspot_url: HttpUrl = HttpUrl("https://api.hubapi.com")
    hubspot_api_version: str = Field(default="2026-03", pattern=API_VERSION_PATTERN)


@click.command()
@click.option("--hubspot-url", help="Base URL of the API, instead of HUBSPOT_DEALS_HUBSPOT_URL.")
@click.option("--property", "properties", multiple=True, help="A deal property; repeat. `*`: all.")
@click.option("--include-archived", is_flag=True, help="Read archived deals too.")
@click.option("--start-date", type=click.DateTime(["%Y-%m-%d"]), help="First UTC day.")
@click.option("--end-date", type=click.DateTime(["%Y-%m-%d"]), help="Last UTC day, included.")
@click.option("--date-field", type=click.Choice(DATE_FIELDS), default=DATE_FIELDS[0])
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("hubspot-deals"),
    help="Folder for Parquet files; an earlier reading in it is replaced.",
)
def main(  # noqa: PLR0913 - one argument an option
    *,
    hubspot_url: str | None,
    properties: tuple[str, ...],
    include_archived: bool,
    start_date: datetime | None,
    end_date: datetime | None,
    date_field: str,
    output: Path,
) -> None:
    """Read deals, owners, pipelines, stages and property definitions into Parquet files."""
    redaction.install()
    filters = ScanFilters(
        properties=_properties(properties),
        include_archived=include_archived,
        date_range=_date_range(start_date, end_date, date_field),
    )
    try:
        settings = load_settings(SourceSettings)
        options = ConnectionOptions(
            base_url=hubspot_url or str(settings.hubspot_url),
            api_version=settings.hubspot_api_version,
        )
        with HubSpotAccount(settings.access_token, options) as account:
            account.check_access()
            counts = _run(account, filters, output)
    except HubSpotDealsError as error:
        raise click.ClickException(str(error)) from error
    for table, rows in counts.items():
        click.echo(f"{table:20} {rows:>12,} rows")
    click.echo(f"in {output}/{DATASET_NAME}")


def _properties(names: tuple[str, ...]) -> tuple[str, ...] | None:
    if names != (ALL_PROPERTIES,):
        for name in names:
            if not _PROPERTY.fullmatch(name):
                msg = f"{name!r} is no property name; `*` stands alone"
                raise click.BadParameter(msg, param_hint="--property")
    return tuple(dict.fromkeys(names)) or None


def _date_range(start: datetime | None, end: datetime | None, field: str) -> DateRange | None:
    if start is None and end is None:
        return None
    if start and end and start > end:
        msg = "the first day is after the last one"
        raise click.BadParameter(msg, param_hint="--start-date")
    return DateRange(start and start.date(), end and end.date(), field)


def _run(account: HubSpotAccount, filters: ScanFilters, output: Path) -> dict[str, int]:
    configure_dlt_runtime()
    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline(
            pipeline_name=SOURCE_NAME,
            pipelines_dir=folder,
            destination=dlt.destinations.filesystem(output.resolve().as_uri()),
            dataset_name=DATASET_NAME,
        )
        pipeline.run(
            hubspot_deals_source(account, filters),
            loader_file_format="parquet",
            write_disposition="replace",
        )
        trace = pipeline.last_trace
    counts = trace.last_normalize_info.row_counts if trace and trace.last_normalize_info else {}
    return {table: rows for table, rows in counts.items() if not table.startswith("_dlt")}


if __name__ == "__main__":
    main()
