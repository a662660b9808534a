"""How a run ends early in Dagster: the one place that tells it whether to try again."""

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


def interrupted(context: dg.AssetExecutionContext, reason: Exception) -> BaseException:
    """Return what to raise for work that was set aside or taken over: the run did not fail."""
    context.log.info(str(reason))
    run = context.instance.get_run_by_id(context.run.run_id)
    if run is not None and not run.is_finished:
        context.instance.report_run_canceling(context.run)
    return dg.DagsterExecutionInterruptedError()


def is_being_terminated(context: dg.AssetExecutionContext) -> bool:
    """Tell a termination asked for in Dagster from a worker that is shut down with its machine."""
    run = context.instance.get_run_by_id(context.run.run_id)
    # Forced, Dagster calls the run canceled at once and interrupts its worker all the same.
    terminated = {dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED}
    return run is not None and run.status in terminated


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
