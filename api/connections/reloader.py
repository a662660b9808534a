"""Has Dagster's code location of the syncs built anew when connections come, go or change.

Its assets and schedules are those of the connections that there are when it loads. Nothing depends
on this process: a Dagster that does not answer is asked again for a while, and one that starts
builds them from what is stored.
"""

import asyncio
import logging
from typing import Final

from api.dagster.gateway import DagsterGateway
from api.errors import DagsterRefusedError, DagsterUnavailableError
from api.scans.background import Background
from hubspot_deals.sync_contract import SYNC_LOCATION

logger = logging.getLogger(__name__)

_GATHER_SECONDS: Final = 1.0
"""How long further changes are waited for: one load is good for all of them."""
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_ATTEMPTS: Final = 15
"""Some ten minutes."""


class LocationReloader:
    """Asks for reloads, one at a time."""

    def __init__(
        self, gateway: DagsterGateway, background: Background, *, pace: float = 1.0
    ) -> None:
        """Shorten all waiting by a pace below 1."""
        self._gateway = gateway
        self._background = background
        self._pace = pace
        self._is_wanted = False
        self._is_working = False

    def reload(self) -> None:
        """Have the definitions loaded soon; returns at once."""
        self._is_wanted = True
        if not self._is_working:
            self._is_working = True
            self._background.start(self._work())

    async def _work(self) -> None:
        try:
            while self._is_wanted:
                await asyncio.sleep(_GATHER_SECONDS * self._pace)
                await self._load()
        finally:
            self._is_working = False

    async def _load(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(1, _ATTEMPTS + 1):
            # What is wanted from here on, the load may miss.
            self._is_wanted = False
            try:
                await self._gateway.reload_location(SYNC_LOCATION)
            except (DagsterUnavailableError, DagsterRefusedError) as error:
                logger.warning("Reload %d of the syncs' definitions: %s", attempt, error)
            else:
                logger.info("The syncs' definitions are loaded anew")
                return
            await asyncio.sleep(pause * self._pace)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        logger.error("Dagster does not load the syncs' definitions; reload them in its UI")
