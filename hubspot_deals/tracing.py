"""OpenTelemetry traces of requests and runs: off, and not even imported, without an address.

Spans carry ids, routes and statuses; never a body, a header or the text of an error.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from hubspot_deals.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_EXPORT_SECONDS: Final = 2
"""A collector that is down delays the end of a run by no more."""
_HEADER: Final = "traceparent"

_providers: Final[list["TracerProvider"]] = []
"""None or one: that of this process."""


def configure(traces_endpoint: str, service: str) -> None:
    """Send this process's spans to an OTLP/HTTP address such as `http://collector:4318/v1/traces`.

    Does nothing without an address. Raises ConfigurationError where the extra `otel` is missing.
    """
    if not traces_endpoint or _providers:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as error:
        msg = "Traces need the extra: pip install 'hubspot-deals[otel]'."
        raise ConfigurationError(msg) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    exporter = OTLPSpanExporter(endpoint=traces_endpoint, timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _providers.append(provider)


def close() -> None:
    """Send what is left, for two seconds at most, and collect nothing more."""
    while _providers:
        _providers.pop().shutdown()


@contextmanager
def span(
    name: str, *, parent: str | None = None, attributes: Mapping[str, str | int] | None = None
) -> Iterator["Span | None"]:
    """Record the block as a span, below a `traceparent` that came from elsewhere if there is one.

    Yields None while traces are off. An error marks the span with its kind, not with its text.
    """
    if not _providers:
        yield None
        return
    from opentelemetry.trace import StatusCode  # noqa: PLC0415

    tracer = _providers[0].get_tracer("hubspot_deals")
    with tracer.start_as_current_span(
        name,
        context=_context_of(parent),
        attributes=dict(attributes or {}),
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def trace_parent() -> str | None:
    """Return the current span as W3C's `traceparent`, None while traces are off."""
    if not _providers:
        return None
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(_HEADER)


def _context_of(parent: str | None) -> Any:
    if parent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    return TraceContextTextMapPropagator().extract({_HEADER: parent})
