"""Our errors as Dagster failures: the one place that tells Dagster whether to try again."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from hubspot_deals.errors import HubSpotDealsError, TransientError
from hubspot_deals.redaction import format_error, has_secret, redact


def build_failure(error: HubSpotDealsError) -> dg.Failure:
    """Return the failure to raise for one of our errors; raise it `from` the error."""
    return dg.Failure(
        description=redact(str(error)),
        metadata={"error": type(error).__name__},
        allow_retries=isinstance(error, TransientError),
    )


@contextmanager
def secrets_kept() -> Iterator[None]:
    """Let no error through whose text, or that of a cause, holds a secret: Dagster stores both."""
    try:
        yield
    except Exception as error:
        if not has_secret(error):
            raise
        raise dg.Failure(
            description=format_error(error),
            metadata={"error": type(error).__name__},
            allow_retries=isinstance(error, dg.Failure) and error.allow_retries,
        ) from None
