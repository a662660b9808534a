"""Answers one inquiry: reads it from standard input, writes the finding to standard output.

A process of its own, for the API knows nothing of HubSpot. The token comes by standard input, since
arguments and environments can be looked at, and is gone with the process.
"""

import sys

from hubspot_deals.errors import (
    HubSpotAuthenticationError,
    HubSpotBusyError,
    HubSpotDealsError,
    TransientError,
)
from hubspot_deals.planning.access import examine_token
from hubspot_deals.planning.order import Fault, Finding, Inquiry
from hubspot_deals.planning.plan import plan_scan
from hubspot_deals.redaction import install, redact
from hubspot_deals.settings import HubSpotSettings, load_settings


def main() -> None:
    """Answer the inquiry; a fault of ours ends in a traceback and exit code 1."""
    install()
    finding = answer(Inquiry.from_json(sys.stdin.buffer.read()), load_settings(HubSpotSettings))
    print(finding.to_json(), flush=True)  # noqa: T201 - the line is the message


def answer(inquiry: Inquiry, settings: HubSpotSettings) -> Finding:
    """Ask HubSpot what the inquiry needs to know."""
    try:
        if inquiry.config is None:
            return Finding(examine_token(inquiry.token, settings))
        return Finding(plan_scan(inquiry.token, inquiry.config.filters, settings))
    except HubSpotAuthenticationError as error:
        return Finding(fault=Fault.TOKEN, reason=redact(str(error)))
    except TransientError as error:
        free_at = error.free_at if isinstance(error, HubSpotBusyError) else None
        return Finding(fault=Fault.BUSY, reason=redact(str(error)), free_at=free_at)
    except HubSpotDealsError as error:
        return Finding(fault=Fault.REFUSED, reason=redact(str(error)))


if __name__ == "__main__":
    main()
