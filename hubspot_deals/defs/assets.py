"""The tables of a scan as assets, and the HubSpot account that they come from."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import dagster as dg
from dagster_dlt import DagsterDltTranslator
from dagster_dlt.translator import DltResourceTranslatorData
from pydantic import SecretStr

from hubspot_deals import tracing
from hubspot_deals.contract import (
    DATASET_NAME,
    LAUNCH_EPOCH_TAG,
    REQUEST_ID_TAG,
    SERVICE_NAME,
    TRACE_PARENT_TAG,
)
from hubspot_deals.defs.checks import build_check_specs, check_agreement, check_results
from hubspot_deals.defs.failures import (
    build_failure,
    interrupted,
    is_being_terminated,
    secrets_kept,
)
from hubspot_deals.defs.markdown import as_markdown
from hubspot_deals.defs.partitions import scans_partitions
from hubspot_deals.defs.resources import PipelineSettingsResource
from hubspot_deals.errors import (
    DealsMissingError,
    HubSpotDealsError,
    LeaseLostError,
    ScanPausedError,
    ScanSupersededError,
)
from hubspot_deals.logs import run_logged
from hubspot_deals.scan import Launch, ScanReport, run_scan
from hubspot_deals.settings import PipelineSettings
from hubspot_deals.source import hubspot_deals_source
from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.client import ConnectionOptions
from hubspot_deals.tables import DEALS, TABLES

GROUP = "hubspot_deals"
_ORIGINAL_RUN_TAGS = ("dagster/parent_run_id", "dagster/root_run_id")

hubspot_account = dg.AssetSpec(
    "hubspot_account",
    deps=["hubspot"],
    group_name=GROUP,
    description="The HubSpot account that a scan's access token opens.",
    kinds={"hubspot"},
)

_DESCRIPTIONS: Mapping[str, str] = {
    "deals": "Deals as of the scan: typed standard properties, and every requested one as sent.",
    "users": "Owners, active and archived; every owner id on a deal has a row.",
    "pipelines": "Deal pipelines.",
    "pipeline_stages": "Stages of the deal pipelines with order, probability and whether closed.",
    "deal_properties": "The account's deal property definitions at the time of the scan.",
}


class _Translator(DagsterDltTranslator):
    """Gives each dlt resource an asset of its own name, downstream of the account."""

    def get_asset_spec(self, data: DltResourceTranslatorData) -> dg.AssetSpec:
        return dg.AssetSpec(
            data.resource.name,
            deps=[hubspot_account],
            group_name=GROUP,
            description=_DESCRIPTIONS[data.resource.name],
            kinds={"dlt", "postgres"},
            metadata={
                "dagster/table_name": f"{DATASET_NAME}.{data.resource.name}",
                "dagster/column_schema": dg.TableSchema(
                    [
                        dg.TableColumn(name, kind.value)
                        for name, kind in TABLES[data.resource.name].columns.items()
                    ]
                ),
            },
        )


def _build_specs() -> list[dg.AssetSpec]:
    """Describe the resources of our dlt source; the account stays closed, so nothing is read."""
    account = HubSpotAccount(SecretStr("unused"), ConnectionOptions())
    translator = _Translator()
    return [
        translator.get_asset_spec(DltResourceTranslatorData(resource=resource, pipeline=None))
        for resource in hubspot_deals_source(account).resources.values()
    ]


@dg.multi_asset(
    name="read_account",
    specs=_build_specs(),
    check_specs=build_check_specs(),
    partitions_def=scans_partitions,
)
def scan_assets(
    context: dg.AssetExecutionContext, pipeline: PipelineSettingsResource
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Read one HubSpot account into PostgreSQL, chunk by chunk.

    Goes on after the last committed chunk of this scan; a rerun of a completed scan replaces its
    rows only when it commits.
    """
    settings, tags = pipeline.resolve(), context.run.tags
    ids = {"scan_id": context.partition_key, "run_id": context.run.run_id}
    tracing.configure(settings.traces_endpoint, f"{SERVICE_NAME}_worker")
    with (
        run_logged(settings.log_format, asked_by=tags.get(REQUEST_ID_TAG), ids=ids),
        closing(tracing),
        tracing.span("scan run", parent=tags.get(TRACE_PARENT_TAG), attributes=ids),
        secrets_kept(),
    ):
        yield from _scan(context, settings)


def _scan(
    context: dg.AssetExecutionContext, settings: PipelineSettings
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    try:
        report = run_scan(
            settings,
            Launch(context.partition_key, context.run.run_id, _launch_epoch(context.run.tags)),
            log=context.log,
            is_cancelled=lambda: is_being_terminated(context),
        )
    except (LeaseLostError, ScanPausedError, ScanSupersededError) as error:
        # Nothing failed: the scan was set aside, ended or taken over.
        raise interrupted(context, error) from error
    except HubSpotDealsError as error:
        if isinstance(error, DealsMissingError):
            yield check_agreement(context.partition_key, error.certificate)
        raise build_failure(error) from error
    for count in report.counts:
        yield dg.MaterializeResult(
            asset_key=count.table_name, metadata=_metadata(report, count.table_name, count.stored)
        )
    yield from check_results(context.partition_key, report.counts, report.unfit_values)
    if report.certificate is not None:
        yield check_agreement(context.partition_key, report.certificate.to_json())


def _launch_epoch(tags: Mapping[str, str]) -> int | None:
    """A re-execution copies the tags of its original, but is a new wish for the same scan."""
    if LAUNCH_EPOCH_TAG not in tags or any(tag in tags for tag in _ORIGINAL_RUN_TAGS):
        return None
    return int(tags[LAUNCH_EPOCH_TAG])


def _metadata(report: ScanReport, table_name: str, rows: int) -> dict[str, dg.MetadataValue[Any]]:
    metadata: dict[str, dg.MetadataValue[Any]] = {"dagster/row_count": dg.MetadataValue.int(rows)}
    if table_name != DEALS.name:
        return metadata
    return metadata | {
        "seconds": dg.MetadataValue.float(round(report.seconds, 3)),
        "rows_per_second": dg.MetadataValue.float(round(rows / max(report.seconds, 0.001), 1)),
        "requests": dg.MetadataValue.int(report.requests),
        "retries": dg.MetadataValue.int(report.retries),
        "throttled_seconds": dg.MetadataValue.float(round(report.throttled_seconds, 3)),
        "unfit_values": dg.MetadataValue.json(report.unfit_values),
        "unknown_properties": dg.MetadataValue.json(list(report.unknown_properties)),
        "notes": dg.MetadataValue.json(report.notes),
        "preview": dg.MetadataValue.md(as_markdown(report.preview, if_empty="no deals")),
    }
