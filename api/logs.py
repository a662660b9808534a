"""Log lines of the REST facade: one per request, plain or JSON, each with the request's id.

No line carries a body, a header or a query string, so none can carry a token.
"""

import logging
from contextvars import ContextVar
from typing import Final

from hubspot_deals import logs, redaction

request_id: Final[ContextVar[str]] = logs.request_id


def configure_logging(log_format: logs.LogFormat) -> None:
    """Send every logger's lines to one handler, and let our request line replace uvicorn's.

    uvicorn's access log prints query strings; ours does not.
    """
    redaction.install()
    handler = logging.StreamHandler()
    handler.setFormatter(logs.build_formatter(log_format))
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for name in ("api", "hubspot_deals", "psycopg", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(max(logging.INFO, logger.level))
