"""Our errors as Dagster failures: the one place that tells Dagster whether to try again."""

import dagster as dg

from hubspot_deals.errors import HubSpotDealsError, TransientError


def build_failure(error: HubSpotDealsError) -> dg.Failure:
    """Return the failure to raise for one of our errors; raise it `from` the error."""
    return dg.Failure(
        description=str(error),
        metadata={"error": type(error).__name__},
        allow_retries=isinstance(error, TransientError),
    )
