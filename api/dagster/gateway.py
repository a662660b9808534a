"""Our view of Dagster: the few things the REST facade asks of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from api.dagster import documents
from api.errors import DagsterRefusedError, DagsterUnavailableError, shorten
from hubspot_deals.contract import (
    ACCOUNT_TAG,
    CODE_LOCATION,
    JOB_NAME,
    LAUNCH_EPOCH_TAG,
    ORGANIZATION_TAG,
    SCAN_ID_TAG,
    SCANS_PARTITIONS,
)
from hubspot_deals.sync_contract import SYNC_LOCATION

ENDED_EARLY: Final = frozenset({"FAILURE", "CANCELED"})
"""Run statuses that say: this run is over and did not succeed."""

NOWHERE: Final[Mapping[str, str]] = {}

_REPOSITORY: Final = {"repositoryName": "__repository__", "repositoryLocationName": CODE_LOCATION}
_PARTITION_TAG: Final = "dagster/partition"
_OVER: Final = ENDED_EARLY | {"SUCCESS", "CANCELING"}
_LOADED: Final = "RepositoryLocation"
_LONGEST_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class DagsterState:
    """How Dagster's parts do; errors are None where there is none."""

    version: str
    daemon_error: str | None = None
    location_error: str | None = None
    sync_location_error: str | None = None
    """Of the code location of connections; scans do without it."""


class DagsterGateway(ABC):
    """Dagster, as the REST facade needs it.

    Every method raises DagsterUnavailableError when asking again later can help, and
    DagsterRefusedError when it cannot.
    """

    @abstractmethod
    async def add_partition(self, scan_id: str) -> None:
        """Make the scan a partition; one that exists already is fine."""

    @abstractmethod
    async def launch_run(
        self,
        scan_id: str,
        organization_id: str,
        *,
        epoch: int,
        account: str | None = None,
        origin: Mapping[str, str] = NOWHERE,
    ) -> str:
        """Launch the run of the scan's partition and return the run's id.

        `origin` are further tags, of the request that led to it.
        """

    @abstractmethod
    async def find_run_status(self, run_id: str) -> str | None:
        """Return Dagster's status of a run, or None when it has no such run."""

    @abstractmethod
    async def terminate_run(self, run_id: str) -> None:
        """Ask a run to end, a queued one at once; one that has ended or never was is fine.

        A run whose worker is just starting cannot be asked yet, which is a DagsterRefusedError.
        """

    @abstractmethod
    async def reload_location(self, name: str) -> None:
        """Have a code location build its definitions anew; returns when they are loaded."""

    @abstractmethod
    async def get_state(self) -> DagsterState:
        """Return how Dagster's parts do, which it is asked for when the service's health is."""


class GraphQLGateway(DagsterGateway):
    """Dagster behind its webserver's GraphQL endpoint."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        """Use a client whose base URL is the webserver's."""
        self._client = client

    async def add_partition(self, scan_id: str) -> None:
        """Make the scan a partition; one that exists already is fine."""
        variables = {"key": scan_id, "partitions": SCANS_PARTITIONS, "repository": _REPOSITORY}
        answer = await self._ask(documents.ADD_PARTITION, variables)
        _expect(answer["result"], "AddDynamicPartitionSuccess", "DuplicateDynamicPartitionError")

    async def launch_run(
        self,
        scan_id: str,
        organization_id: str,
        *,
        epoch: int,
        account: str | None = None,
        origin: Mapping[str, str] = NOWHERE,
    ) -> str:
        """Launch the run of the scan's partition and return the run's id.

        `origin` are further tags, of the request that led to it.
        """
        tags = {
            _PARTITION_TAG: scan_id,
            SCAN_ID_TAG: scan_id,
            ORGANIZATION_TAG: organization_id,
            LAUNCH_EPOCH_TAG: str(epoch),
            **origin,
        }
        if account is not None:
            tags[ACCOUNT_TAG] = account
        params = {
            "selector": {**_REPOSITORY, "jobName": JOB_NAME},
            "mode": "default",
            "runConfigData": {},
            "executionMetadata": {
                "tags": [{"key": key, "value": value} for key, value in tags.items()]
            },
        }
        result = (await self._ask(documents.LAUNCH_RUN, {"params": params}))["result"]
        _expect(result, "LaunchRunSuccess")
        return str(result["run"]["runId"])

    async def find_run_status(self, run_id: str) -> str | None:
        """Return Dagster's status of a run, or None when it has no such run."""
        result = (await self._ask(documents.RUN_STATUS, {"run": run_id}))["result"]
        _expect(result, "Run", "RunNotFoundError")
        return str(result["status"]) if "status" in result else None

    async def terminate_run(self, run_id: str) -> None:
        """Ask a run to end, a queued one at once; one that has ended or never was is fine."""
        result = (await self._ask(documents.TERMINATE_RUN, {"run": run_id}))["result"]
        if result.get("run", {}).get("status") not in _OVER:
            _expect(result, "TerminateRunSuccess", "RunNotFoundError")

    async def reload_location(self, name: str) -> None:
        """Have a code location build its definitions anew; returns when they are loaded."""
        result = (await self._ask(documents.RELOAD_LOCATION, {"location": name}))["result"]
        _expect(result, "WorkspaceLocationEntry")
        _expect(result.get("locationOrLoadError") or {"__typename": "nothing"}, _LOADED)

    async def get_state(self) -> DagsterState:
        """Return how Dagster's parts do: daemons by their heartbeats, and our code locations."""
        answer = await self._ask(
            documents.STATE, {"location": CODE_LOCATION, "syncs": SYNC_LOCATION}
        )
        silent = [
            daemon["daemonType"].lower()
            for daemon in answer["instance"]["daemonHealth"]["allDaemonStatuses"]
            if daemon["required"] and not daemon["healthy"]
        ]
        return DagsterState(
            version=str(answer["result"]),
            daemon_error=f"no heartbeat of {', '.join(silent)}" if silent else None,
            location_error=_location_error(answer["location"], CODE_LOCATION),
            sync_location_error=_location_error(answer["syncs"], SYNC_LOCATION),
        )

    async def _ask(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = await self._client.post(
                "/graphql", json={"query": document, "variables": variables}
            )
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            msg = f"Dagster gave no usable answer: {type(error).__name__} {error}".rstrip()
            raise DagsterUnavailableError(msg) from error
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, dict) or data.get("result") is None:
            text = shorten(str(answer), _LONGEST_TEXT)
            msg = f"Dagster answered HTTP {response.status_code} without data: {text}"
            raise DagsterUnavailableError(msg)
        return data


def _location_error(answer: Mapping[str, Any] | None, name: str) -> str | None:
    found = (answer or {}).get("locationOrLoadError") or {"__typename": "nothing"}
    return None if found["__typename"] == _LOADED else f"{name} is not loaded"


def _expect(result: Mapping[str, Any], *kinds: str) -> None:
    kind = result["__typename"]
    if kind in kinds:
        return
    reasons = [result, *result.get("errors", [])]
    text = "; ".join(str(reason["message"]) for reason in reasons if "message" in reason)
    msg = f"Dagster answered {kind}: {shorten(text, _LONGEST_TEXT)}"
    raise DagsterRefusedError(msg)
