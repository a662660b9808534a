"""What each route asks of its callers, by the name of its function.

A route that is missing here keeps the application from starting. Path parameters with ids are
checked before the route is entered (`owners`): what a caller may not see does not exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hubspot_deals.contract import AccessLevel


@dataclass(frozen=True, slots=True)
class Need:
    """What a caller needs, and how the audit log is kept of it."""

    level: AccessLevel | None
    """None: anybody may call it, and nobody writes it down."""
    changes: bool = False
    """It is written down before it is done, and how it ended before that is answered."""
    names_itself: bool = False
    """What it changes is not in its path: the route says it by `Caller.act_for` before it acts."""
    everywhere: bool = False
    """It is about all organizations, so only for callers who may see all of them."""
    is_noted: bool = True
    """It tells or changes data, so that the audit log has it."""
    tells_itself: bool = False
    """The route itself treats scans that the caller may not see like those that do not exist."""


_OPEN: Final = Need(None)
_READ: Final = Need(AccessLevel.READ)
_ASK: Final = Need(AccessLevel.RUN)
_RUN: Final = Need(AccessLevel.RUN, changes=True)
_START: Final = Need(AccessLevel.RUN, changes=True, names_itself=True)
_ARRANGE: Final = Need(AccessLevel.ADMIN, changes=True)
"""Of the organization: what goes on after its caller, to accounts and receivers they have named."""
_FOUND: Final = Need(AccessLevel.ADMIN, changes=True, names_itself=True)
_MAINTAIN: Final = Need(AccessLevel.ADMIN, changes=True, everywhere=True)

NEEDS: Final[Mapping[str, Need]] = {
    # Whether it works, and how to use it.
    "get_health": _OPEN,
    "get_liveness": _OPEN,
    "get_readiness": _OPEN,
    "show_openapi": _OPEN,
    "show_redoc": _OPEN,
    "show_swagger": _OPEN,
    "/docs-assets": _OPEN,
    # Scans.
    "list_scans": _READ,
    "get_scan_status": _READ,
    "get_extraction_status": Need(AccessLevel.READ, tells_itself=True),
    "start_scan": _START,
    "start_extraction": _START,
    "pause_scan": _RUN,
    "resume_scan": _RUN,
    "cancel_scan": _RUN,
    "cancel_extraction": _RUN,
    "remove_scan": _RUN,
    "remove_extraction": _RUN,
    # Connections.
    "list_connections": _READ,
    "get_connection": _READ,
    "list_sync_runs": _READ,
    "create_connection": _FOUND,
    "change_connection": _ARRANGE,
    "remove_connection": _ARRANGE,
    "sync_connection": _RUN,
    "pause_connection": _RUN,
    "resume_connection": _RUN,
    # Webhooks.
    "list_webhooks": _READ,
    "get_webhook": _READ,
    "list_deliveries": _READ,
    "create_webhook": _FOUND,
    "change_webhook": _ARRANGE,
    "delete_webhook": _ARRANGE,
    "rotate_secret": _ARRANGE,
    "test_webhook": _RUN,
    "replay_delivery": _RUN,
    # What they extracted.
    "get_result_tables": _READ,
    "get_result_page": _READ,
    "get_extraction_page": _READ,
    "download_table": _READ,
    "download_extraction": _READ,
    "get_download_manifest": _READ,
    "get_certificate": _READ,
    "get_diff": _READ,
    # Nothing is stored, but HubSpot is asked.
    "plan_scan": _ASK,
    "validate_token": _ASK,
    # The service.
    "get_metrics": Need(AccessLevel.READ, everywhere=True, is_noted=False),
    "get_pipeline_info": Need(AccessLevel.READ, is_noted=False),
    "get_statistics": _READ,
    "clean_up": _MAINTAIN,
    "detect_crashed": _MAINTAIN,
}
