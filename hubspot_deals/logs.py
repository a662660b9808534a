"""Log lines of the API and of runs: plain or JSON, each with the ids that it belongs to.

A request's id is on the lines of the API and, as a tag of the run that it led to, on those of the
run. Nothing that has the form of a secret gets through (`redaction.py`).
"""

import logging
import os
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import orjson

from hubspot_deals.redaction import format_error, redact, redact_values

_PRODUCT: Final = "hubspot_deals"
_console: Final[list[TextIO]] = []
"""None or one: the stream that standard error was."""

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what is not seen: controls, formats, half characters, separators."""

LogFormat = Literal["plain", "json"]

request_id: ContextVar[str] = ContextVar("request_id", default="")
run_ids: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("run_ids", default=())
"""Names and values that each line of a run carries, such as `scan_id`."""

_FACTS: Final = (
    "method",
    "path",
    "status",
    "milliseconds",
    "scan_id",
    "connection_id",
    "run_id",
    "incident_id",
    "outcome",
    "seconds",
    "deals",
    "requests",
    "trace_id",
)
"""What callers of a logger may put in `extra`."""


class PlainFormatter(logging.Formatter):
    """`time level [request id] logger: message key=value …`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, followed by the traceback if there is one."""
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items())
        line = f"{_time(record)} {record.levelname} [{request_id.get() or '-'}] {record.name}: "
        text = redact(one_line(record.getMessage() + facts))
        return line + text + (f"\n{trace}" if (trace := _trace(record)) else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; a traceback is a field of it."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "request_id": request_id.get() or "-",
            "message": redact(record.getMessage()),
            **redact_values(_facts(record)),
        }
        if trace := _trace(record):
            entry["traceback"] = trace
        return orjson.dumps(entry, default=str).decode()


def keep_console() -> None:
    """Keep where standard error leads now, for lines that go there whatever is redirected later."""
    _console[:] = [os.fdopen(os.dup(2), "w", buffering=1)]


@contextmanager
def run_logged(
    log_format: LogFormat, *, asked_by: str | None, ids: Mapping[str, str]
) -> Iterator[None]:
    """Let the product's lines inside the block go to the console, with the ids of a run.

    Dagster keeps what a run prints in files of its own; these lines are for the log of the process.
    """
    handler = logging.StreamHandler(_console[0] if _console else None)
    handler.setFormatter(build_formatter(log_format))
    logger = logging.getLogger(_PRODUCT)
    request, run = request_id.set(asked_by or ""), run_ids.set(tuple(ids.items()))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        run_ids.reset(run)
        request_id.reset(request)


def build_formatter(log_format: LogFormat) -> logging.Formatter:
    """Return the formatter of this name."""
    return JsonFormatter() if log_format == "json" else PlainFormatter()


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    here = dict(run_ids.get())
    return here | {name: record.__dict__[name] for name in _FACTS if name in record.__dict__}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _trace(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    return format_error(error) if error else ""


def one_line(text: str) -> str:
    """Return a text without what ends a line, steers a terminal or turns the text around.

    A caller's path may hold all of it; each becomes what Python's source would have for it.
    """
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _UNSEEN else c
        for c in text
    )
