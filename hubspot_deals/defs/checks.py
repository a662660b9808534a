"""What must hold for a scan before it is served, shown as asset checks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from hubspot_deals.tables import DEALS, TABLES
from hubspot_deals.warehouse.audits import TableAudit

COMPLETE_CHECK = "stored_is_what_was_read"
FITTING_CHECK = "values_fit_their_types"
AGREEMENT_CHECK = "agrees_with_hubspot"


def build_check_specs() -> list[dg.AssetCheckSpec]:
    """Return the checks of all assets of a scan."""
    complete = [
        dg.AssetCheckSpec(
            COMPLETE_CHECK,
            asset=name,
            description="Every committed row is stored once, under a dense row number.",
        )
        for name in TABLES
    ]
    fitting = dg.AssetCheckSpec(
        FITTING_CHECK,
        asset=DEALS.name,
        description="Typed columns hold every value; what did not fit is only in `properties`.",
    )
    agreement = dg.AssetCheckSpec(
        AGREEMENT_CHECK,
        asset=DEALS.name,
        description="HubSpot's own count of live deals does not say that any is missing.",
    )
    return [*complete, fitting, agreement]


def check_results(
    scan_id: str, counts: Sequence[TableAudit], unfit_values: dict[str, int]
) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the checks for what a run stored.

    Each names its scan: Dagster shows no partitions of checks.
    """
    for count in counts:
        yield dg.AssetCheckResult(
            asset_key=count.table_name,
            check_name=COMPLETE_CHECK,
            passed=count.is_exact,
            metadata={
                "scan_id": scan_id,
                "committed": count.committed,
                "stored": count.stored,
                "distinct": count.distinct_rows,
                "key_hash": count.key_hash or "",
            },
        )
    yield dg.AssetCheckResult(
        asset_key=DEALS.name,
        check_name=FITTING_CHECK,
        passed=not unfit_values,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"scan_id": scan_id, "unfit_values": dg.MetadataValue.json(unfit_values)},
    )


def check_agreement(scan_id: str, certificate: Mapping[str, Any]) -> dg.AssetCheckResult:
    """Return the result of the check for what a scan was certified with."""
    hubspot = certificate["hubspot"]
    return dg.AssetCheckResult(
        asset_key=DEALS.name,
        check_name=AGREEMENT_CHECK,
        passed=certificate["complete"] and hubspot["counted"] is not None,
        severity=dg.AssetCheckSeverity.ERROR if hubspot["missing"] else dg.AssetCheckSeverity.WARN,
        description=" ".join(certificate["statements"]),
        metadata={
            "scan_id": scan_id,
            "agreement": hubspot["agreement"],
            "counted_by_hubspot": hubspot["counted"],
            "stored": hubspot["stored"],
            "missing": hubspot["missing"],
            "certificate": dg.MetadataValue.json(dict(certificate)),
        },
    )
