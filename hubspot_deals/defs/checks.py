"""What must hold for a scan before it is served, shown as asset checks."""

from collections.abc import Iterator, Sequence

import dagster as dg

from hubspot_deals.tables import DEALS, TABLES
from hubspot_deals.warehouse.chunks import TableCount

COMPLETE_CHECK = "stored_is_what_was_read"
FITTING_CHECK = "values_fit_their_types"


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
    return [*complete, fitting]


def check_results(
    counts: Sequence[TableCount], unfit_values: dict[str, int]
) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the checks for what a run stored."""
    for count in counts:
        yield dg.AssetCheckResult(
            asset_key=count.table_name,
            check_name=COMPLETE_CHECK,
            passed=count.is_exact,
            metadata={
                "committed": count.committed,
                "stored": count.stored,
                "distinct": count.distinct_rows,
            },
        )
    yield dg.AssetCheckResult(
        asset_key=DEALS.name,
        check_name=FITTING_CHECK,
        passed=not unfit_values,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"unfit_values": dg.MetadataValue.json(unfit_values)},
    )
