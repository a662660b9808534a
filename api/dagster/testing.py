"""A Dagster that lives in memory, for tests of what stands on the gateway.

It passes the same tests as the real one (`tests/contract/test_dagster_gateway.py`).
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from api.dagster.gateway import ENDED_EARLY, NOWHERE, DagsterGateway, DagsterState
from api.errors import DagsterRefusedError, DagsterUnavailableError
from hubspot_deals.contract import CODE_LOCATION
from hubspot_deals.sync_contract import SYNC_LOCATION


@dataclass(frozen=True, slots=True)
class LaunchedRun:
    """A run that was asked for."""

    run_id: str
    scan_id: str
    organization_id: str
    epoch: int
    account: str | None = None
    origin: Mapping[str, str] = field(default_factory=dict)


@dataclass
class InMemoryDagsterGateway(DagsterGateway):
    """Keeps what it is asked in attributes that tests read and change."""

    partitions: set[str] = field(default_factory=set)
    runs: list[LaunchedRun] = field(default_factory=list)
    run_statuses: dict[str, str] = field(default_factory=dict)
    locations: set[str] = field(default_factory=lambda: {CODE_LOCATION, SYNC_LOCATION})
    reloads: list[str] = field(default_factory=list)
    is_down: bool = False
    state: DagsterState = field(default_factory=lambda: DagsterState("in-memory"))

    async def add_partition(self, scan_id: str) -> None:
        """Make the scan a partition."""
        self._answer()
        self.partitions.add(scan_id)

    async def launch_run(
        self,
        scan_id: str,
        organization_id: str,
        *,
        epoch: int,
        account: str | None = None,
        origin: Mapping[str, str] = NOWHERE,
    ) -> str:
        """Note the run as queued and return its id."""
        self._answer()
        run = LaunchedRun(str(uuid.uuid4()), scan_id, organization_id, epoch, account, origin)
        self.runs.append(run)
        self.run_statuses[run.run_id] = "QUEUED"
        return run.run_id

    async def find_run_status(self, run_id: str) -> str | None:
        """Return the status that the test has set."""
        self._answer()
        return self.run_statuses.get(run_id)

    async def terminate_run(self, run_id: str) -> None:
        """Note the run as canceled unless it has ended: no worker stands in the way."""
        self._answer()
        if self.run_statuses.get(run_id, "SUCCESS") not in ENDED_EARLY | {"SUCCESS"}:
            self.run_statuses[run_id] = "CANCELED"

    async def reload_location(self, name: str) -> None:
        """Note that a location was loaded anew."""
        self._answer()
        if name not in self.locations:
            msg = f"Dagster answered RepositoryLocationNotFound: {name}"
            raise DagsterRefusedError(msg)
        self.reloads.append(name)

    async def get_state(self) -> DagsterState:
        """Return the state that the test has set."""
        self._answer()
        return self.state

    def _answer(self) -> None:
        if self.is_down:
            msg = "Dagster gave no usable answer: it is down"
            raise DagsterUnavailableError(msg)
