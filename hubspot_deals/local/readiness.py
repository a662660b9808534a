"""How the stack knows that a process is ready to be used."""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from hubspot_deals.contract import CODE_LOCATION
from hubspot_deals.errors import ConfigurationError, PermanentError
from hubspot_deals.local.ports import is_loopback
from hubspot_deals.sync_contract import SYNC_LOCATION

_HTTP_OK: Final = 200
_HTTP_TOO_MANY: Final = 429
_LOCATIONS: Final = """
{ workspaceOrError { __typename
    ... on PythonError { message }
    ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename
      ... on PythonError { message } } } } } }
"""


class PipelineNotLoadedError(PermanentError):
    """Dagster cannot load the pipeline's definitions."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Dagster cannot load the pipeline: {reason.strip()}")


def answers(url: str) -> Callable[[], bool]:
    """Return a check that this URL answers 200, or that it was asked too often to say more."""

    def check() -> bool:
        try:
            answer = httpx.get(url, timeout=5, trust_env=False)
        except httpx.TransportError:
            return False
        return answer.status_code in {_HTTP_OK, _HTTP_TOO_MANY}

    return check


def pipeline_is_loaded(dagster_url: str) -> Callable[[], bool]:
    """Return a check that Dagster's webserver has both code locations loaded."""

    def check() -> bool:
        try:
            answer = httpx.post(
                f"{dagster_url}/graphql", json={"query": _LOCATIONS}, timeout=10, trust_env=False
            )
        except httpx.TransportError:
            return False
        return answer.status_code == _HTTP_OK and _is_loaded(answer.json())

    return check


def check_hubspot_url(url: str) -> str:
    """Return the URL without a trailing slash; raises ConfigurationError unless it answers."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = f"--hubspot-url must look like https://api.hubapi.com, not {url!r}"
        raise ConfigurationError(msg)
    try:
        # Any answer will do: without a token, HubSpot says 401 or 404.
        httpx.get(url, timeout=10, trust_env=not is_loopback(url))
    except (httpx.TransportError, httpx.InvalidURL) as error:
        msg = f"Nothing answers at --hubspot-url {url} ({str(error) or type(error).__name__})."
        raise ConfigurationError(msg) from None
    return url.rstrip("/")


def _is_loaded(answer: dict[str, Any]) -> bool:
    workspace = answer["data"]["workspaceOrError"]
    if workspace["__typename"] == "PythonError":
        raise PipelineNotLoadedError(workspace["message"])
    loaded = set()
    for entry in workspace["locationEntries"]:
        location = entry["locationOrLoadError"]
        if entry["loadStatus"] != "LOADED" or not location:
            continue
        if location["__typename"] == "PythonError":
            raise PipelineNotLoadedError(location["message"])
        loaded.add(entry["name"])
    return loaded >= {CODE_LOCATION, SYNC_LOCATION}
