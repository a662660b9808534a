"""Asks HubSpot through processes of their own: this one knows nothing of it.

The token goes there by standard input and is kept nowhere.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from pydantic import SecretStr

from api.errors import (
    HubSpotRefusedError,
    HubSpotUnreachableError,
    PlanningBusyError,
    PlanningFailedError,
)
from api.plans.schemas import Plan, TokenReport
from api.processes import run_module
from hubspot_deals.contract import ScanConfig
from hubspot_deals.planning.order import Fault, Finding, Inquiry

logger = logging.getLogger(__name__)

_PROCESSES: Final = 4
_TURN_SECONDS: Final = 10
"""Longest wait until one of the processes is free."""
_ANSWER_SECONDS: Final = 90
"""Longest time for an answer; archived deals are counted for half a minute of it."""


class Planner:
    """Runs planning processes, a few at a time."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_PROCESSES)

    async def plan(self, config: ScanConfig, token: SecretStr) -> Plan:
        """Return what a scan will take; raises RequestValidationError for a rejected token."""
        finding = await self._ask(Inquiry(token, config))
        if finding.fault is Fault.TOKEN:
            place = ("body", "config", "auth", "accessToken")
            raise RequestValidationError([{"type": "form", "loc": place, "msg": finding.reason}])
        return Plan.model_validate(_document(finding))

    async def check_token(self, token: SecretStr) -> TokenReport:
        """Return what a token opens, which is nothing if HubSpot rejects it."""
        finding = await self._ask(Inquiry(token))
        if finding.fault is Fault.TOKEN:
            return TokenReport(valid=False, can_scan=False, reason=finding.reason)
        return TokenReport.model_validate(_document(finding))

    async def _ask(self, inquiry: Inquiry) -> Finding:
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise PlanningBusyError(_TURN_SECONDS) from None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await _run(inquiry)
        except TimeoutError:
            msg = f"HubSpot did not answer everything within {_ANSWER_SECONDS} s"
            raise HubSpotUnreachableError(msg) from None
        finally:
            self._free.release()


async def _run(inquiry: Inquiry) -> Finding:
    async with run_module("hubspot_deals.planning", inquiry.to_json()) as child:
        output = await child.output.read()
        code = await child.wait()
    if code != 0:
        logger.error("A planning process ended with code %s", code)
        raise PlanningFailedError
    return Finding.from_json(output)


def _document(finding: Finding) -> dict[str, Any]:
    if finding.document is not None:
        return finding.document
    if finding.fault is Fault.BUSY:
        wait = (finding.free_at - datetime.now(UTC)).total_seconds() if finding.free_at else 0.0
        raise HubSpotUnreachableError(finding.reason, retry_after=max(0, round(wait)))
    raise HubSpotRefusedError(finding.reason)
