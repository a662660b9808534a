"""Log lines of the REST facade: one per request, plain or JSON, each with the request's id.

No line carries a body, a header or a query string, so none can carry a token.
"""

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

request_id: ContextVar[str] = ContextVar("request_id", default="-")

_FACTS: Final = (
    "method",
    "path",
    "status",
    "milliseconds",
    "scan_id",
    "connection_id",
    "run_id",
    "incident_id",
)
"""What callers of a logger may put in `extra`."""


class PlainFormatter(logging.Formatter):
    """`time level [request id] logger: message key=value …`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, followed by the traceback if there is one."""
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items())
        line = f"{_time(record)} {record.levelname} [{request_id.get()}] {record.name}: "
        text = _one_line(record.getMessage() + facts)
        return line + text + (f"\n{trace}" if (trace := _trace(self, record)) else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; a traceback is a field of it."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "request_id": request_id.get(),
            "message": record.getMessage(),
            **_facts(record),
        }
        if trace := _trace(self, record):
            entry["traceback"] = trace
        return orjson.dumps(entry, default=str).decode()


def configure_logging(log_format: Literal["plain", "json"]) -> None:
    """Send every logger's lines to one handler, and let our request line replace uvicorn's.

    uvicorn's access log prints query strings; ours does not.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else PlainFormatter())
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for name in ("api", "psycopg", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(max(logging.INFO, logger.level))


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    return {name: record.__dict__[name] for name in _FACTS if name in record.__dict__}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""


def _one_line(text: str) -> str:
    """A caller's path may hold line breaks; a log line may not."""
    return text.replace("\r", "\\r").replace("\n", "\\n")
