"""A client of the REST API."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import Any, Final, Literal
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from hubspot_deals.errors import (
    HubSpotDealsError,
    PermanentError,
    TransientError,
)
from hubspot_deals.local.ports import is_loopback

PAGE_ROWS: Final = 500
_TIMEOUT_SECONDS: Final = 60.0
_PLAN_SECONDS: Final = 120.0
"""A plan waits for its turn, and for HubSpot."""
_AUDIT_SECONDS: Final = 600.0
"""Every row is read for it, and few audits go on at a time."""

_ADDRESS: Final = "HUBSPOT_DEALS_API_URL names another one."
_KEY: Final = "Put one into HUBSPOT_DEALS_API_KEY; `hubspot-deals keys create` makes one."

Params = dict[str, str | int]
Verb = Literal["pause", "resume", "cancel"]
SyncVerb = Literal["sync", "pause", "resume"]


class ServiceUnreachableError(TransientError):
    """The REST API does not answer."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"The API at {url} cannot be reached ({reason}). Start it with `hubspot-deals up`. "
            f"{_ADDRESS}"
        )


class ServiceFailedError(TransientError):
    """The REST API answered with a failure of its own, or not with what it documents."""

    def __init__(self, url: str, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"The API at {url} failed (HTTP {status}): {message}")


class RequestRefusedError(PermanentError):
    """The REST API refused a request; `faults` names each one at its path."""

    def __init__(self, status: int, message: str, faults: list[str]) -> None:
        self.status = status
        self.faults = faults
        super().__init__("\n".join([message, *(f"  {fault}" for fault in faults)]))


class ResultReplacedError(RequestRefusedError):
    """A rerun replaced the result while its pages were read."""

    def __init__(self, scan_id: str) -> None:
        super().__init__(
            HTTPStatus.CONFLICT,
            f"A rerun of scan {scan_id} replaced its result while it was being read: discard what "
            "was written and start over.",
            [],
        )


class ServiceClient:
    """The endpoints that the command line uses."""

    def __init__(
        self,
        url: str,
        transport: httpx.BaseTransport | None = None,
        *,
        key: SecretStr | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1/",
            timeout=_TIMEOUT_SECONDS,
            transport=transport,
            headers={"Authorization": f"Bearer {key.get_secret_value().strip()}"} if key else {},
            # A proxy's loopback is not this machine's.
            trust_env=not is_loopback(self.url),
        )

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def start_scan(
        self, config: Mapping[str, Any], token: SecretStr, idempotency_key: str | None = None
    ) -> str:
        """Ask for a scan and return the API's confirmation."""
        body = _with_token(config, token)
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        request = self._http.build_request("POST", "scan/start", json=body, headers=headers)
        answer = self._answer(request)
        return str(answer.get("message", ""))

    def plan_scan(self, config: Mapping[str, Any], token: SecretStr) -> dict[str, Any]:
        """Ask what a scan would take and return the plan."""
        request = self._http.build_request(
            "POST", "scan/plan", json=_with_token(config, token), timeout=_PLAN_SECONDS
        )
        plan: dict[str, Any] = self._answer(request)["data"]
        return plan

    def get_scan(self, scan_id: str) -> dict[str, Any]:
        """Return the status document of a scan."""
        return self._data(f"scan/{_segment(scan_id)}/status")

    def change_scan(self, scan_id: str, verb: Verb) -> dict[str, Any]:
        """Tell a scan what to do and return the API's confirmation."""
        return self._answer(self._http.build_request("POST", f"scan/{_segment(scan_id)}/{verb}"))

    def remove_scan(self, scan_id: str) -> dict[str, Any]:
        """Remove a scan and return the API's confirmation."""
        path = f"scan/{_segment(scan_id)}/remove"
        return self._answer(self._http.build_request("DELETE", path))

    def clean_up(self, days_old: int, *, purge: bool) -> dict[str, Any]:
        """Remove old results and return the API's confirmation."""
        params: Params = {"purge": "true"} if purge else {}
        path, body = "maintenance/cleanup", {"daysOld": days_old}
        return self._answer(self._http.build_request("POST", path, params=params, json=body))

    def detect_crashed(self, timeout_minutes: int) -> dict[str, Any]:
        """Look for scans without worker and return the API's confirmation."""
        params: Params = {"timeoutMinutes": timeout_minutes}
        path = "maintenance/detect-crashed"
        return self._answer(self._http.build_request("POST", path, params=params))

    def page_of_scans(self, organization: str | None, limit: int, offset: int) -> dict[str, Any]:
        """Return one page of scans."""
        params: Params = {"limit": limit, "offset": offset}
        if organization is not None:
            params["organizationId"] = organization
        return self._data("scan/list", params)

    def get_tables(self, scan_id: str) -> dict[str, Any]:
        """Return the tables of a completed scan."""
        return self._data(f"results/{_segment(scan_id)}/tables")

    def get_certificate(self, scan_id: str) -> dict[str, Any]:
        """Return the proof of a completed scan, its tables audited anew."""
        path = f"results/{_segment(scan_id)}/certificate"
        request = self._http.build_request("GET", path, timeout=_AUDIT_SECONDS)
        data: dict[str, Any] = self._answer(request)["data"]
        return data

    def page_of_rows(  # noqa: PLR0913 - what a page is asked for by
        self,
        scan_id: str,
        table: str,
        limit: int,
        offset: int,
        *,
        snapshot: int | None = None,
        more: Params | None = None,
    ) -> dict[str, Any]:
        """Return one page of a table's rows, of this snapshot if one is named.

        `more` are filters, sorting and what else the endpoint takes.
        """
        params: Params = {"tableName": table, "limit": limit, "offset": offset, **(more or {})}
        if snapshot is not None:
            params["snapshot"] = snapshot
        return self._data(f"results/{_segment(scan_id)}/result", params)

    def pages(
        self, scan_id: str, table: str, offset: int = 0, more: Params | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield every page of one snapshot of a table, from a row on.

        Raises ResultReplacedError when a rerun replaces that snapshot meanwhile.
        """
        snapshot: int | None = None
        while True:
            try:
                page = self.page_of_rows(
                    scan_id, table, PAGE_ROWS, offset, snapshot=snapshot, more=more
                )
            except RequestRefusedError as error:
                if error.status == HTTPStatus.CONFLICT:
                    raise ResultReplacedError(scan_id) from error
                raise
            yield page
            snapshot = page.get("snapshot")
            offset += len(page["records"])
            if not page["pagination"]["hasMore"] or not page["records"]:
                return

    def page_of_diff(self, old: str, new: str, limit: int, cursor: str | None) -> dict[str, Any]:
        """Return one page of what changed from one scan to another."""
        params: Params = {"limit": limit}
        if cursor is not None:
            params["cursor"] = cursor
        return self._data(f"results/{_segment(old)}/diff/{_segment(new)}", params)

    def get_diff_summary(self, old: str, new: str) -> dict[str, Any]:
        """Return how many deals changed from one scan to another."""
        return self._data(f"results/{_segment(old)}/diff/{_segment(new)}", {"summary": "true"})

    def get_manifest(self, scan_id: str, form: str, params: Params) -> dict[str, Any]:
        """Return what is known of a file; asking for it begins to write it."""
        return self._data(f"results/{_segment(scan_id)}/download/{form}/manifest", params)

    @contextmanager
    def stream_download(
        self, scan_id: str, form: str, params: Params, headers: Mapping[str, str]
    ) -> Iterator[httpx.Response]:
        """Yield the answer with a file or a range of it (200, 206 or 416), its body unread."""
        path = f"results/{_segment(scan_id)}/download/{form}"
        request = self._http.build_request("GET", path, params=params, headers=headers)
        try:
            answer = self._http.send(request, stream=True)
        except httpx.TransportError as error:
            raise ServiceUnreachableError(self.url, str(error) or type(error).__name__) from None
        with closing(answer):
            if answer.is_error and answer.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                answer.read()
                raise self._refusal(answer.status_code, _json_object(answer))
            yield answer

    def create_connection(
        self, body: Mapping[str, Any], token: SecretStr, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Connect an account and return the connection."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        request = self._http.build_request(
            "POST",
            "connections",
            json={**body, **_auth(token)},
            headers=headers,
            timeout=_PLAN_SECONDS,
        )
        created: dict[str, Any] = self._answer(request)["data"]
        return created

    def change_connection(
        self, connection_id: str, body: Mapping[str, Any], token: SecretStr | None = None
    ) -> dict[str, Any]:
        """Change a connection and return it."""
        request = self._http.build_request(
            "PATCH",
            f"connections/{_segment(connection_id)}",
            json={**body, **(_auth(token) if token else {})},
            timeout=_PLAN_SECONDS,
        )
        changed: dict[str, Any] = self._answer(request)["data"]
        return changed

    def get_connection(self, connection_id: str) -> dict[str, Any]:
        """Return a connection and where it stands."""
        return self._data(f"connections/{_segment(connection_id)}")

    def page_of_connections(
        self, organization: str | None, limit: int, cursor: str | None
    ) -> dict[str, Any]:
        """Return one page of connections."""
        given = {"organizationId": organization, "limit": limit, "cursor": cursor}
        return self._data("connections", _without_none(given))

    def page_of_sync_runs(
        self, connection_id: str, limit: int, cursor: str | None
    ) -> dict[str, Any]:
        """Return one page of a connection's runs."""
        path = f"connections/{_segment(connection_id)}/runs"
        return self._data(path, _without_none({"limit": limit, "cursor": cursor}))

    def tell_connection(self, connection_id: str, verb: SyncVerb) -> dict[str, Any]:
        """Tell a connection what to do and return the API's confirmation."""
        path = f"connections/{_segment(connection_id)}/{verb}"
        return self._answer(self._http.build_request("POST", path))

    def remove_connection(self, connection_id: str) -> dict[str, Any]:
        """Remove a connection and return the API's confirmation."""
        path = f"connections/{_segment(connection_id)}"
        return self._answer(self._http.build_request("DELETE", path))

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Params | None = None,
    ) -> dict[str, Any]:
        """Return the answer of an endpoint; the segments of its path are callers' words."""
        path = "/".join(_segment(part) for part in path.split("/"))
        return self._answer(self._http.build_request(method, path, json=body, params=params))

    def _data(self, path: str, params: Params | None = None) -> dict[str, Any]:
        answer = self._answer(self._http.build_request("GET", path, params=params))
        data: dict[str, Any] = answer["data"]
        return data

    def _answer(self, request: httpx.Request) -> dict[str, Any]:
        try:
            answer = self._http.send(request)
        except httpx.TransportError as error:
            raise ServiceUnreachableError(self.url, str(error) or type(error).__name__) from None
        body = _json_object(answer)
        if answer.is_success and body is not None:
            return body
        raise self._refusal(answer.status_code, body)

    def _refusal(self, status: int, body: dict[str, Any] | None) -> HubSpotDealsError:
        if body is None:
            reason = "the answer is not JSON. Is this the address of the REST API?"
            return ServiceFailedError(self.url, status, f"{reason} {_ADDRESS}")
        # FastAPI's own errors, of a path that is not this API's, say `detail`.
        message = str(body.get("message") or body.get("error") or body.get("detail") or status)
        if httpx.codes.is_server_error(status):
            return ServiceFailedError(self.url, status, message)
        if status == HTTPStatus.UNAUTHORIZED:
            message = f"{message}. {_KEY}"
        faults = list(_faults(body.get("validation_errors")))
        # The message repeats the faults as one line of nested text; they get lines of their own.
        return RequestRefusedError(
            status, message.partition(": {")[0] if faults else message, faults
        )


def _with_token(config: Mapping[str, Any], token: SecretStr) -> dict[str, Any]:
    return {"config": {**config, **_auth(token)}}


def _auth(token: SecretStr) -> dict[str, Any]:
    return {"auth": {"accessToken": token.get_secret_value()}}


def _without_none(given: Mapping[str, str | int | None]) -> Params:
    return {name: value for name, value in given.items() if value is not None}


def _json_object(answer: httpx.Response) -> dict[str, Any] | None:
    try:
        body = answer.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _faults(errors: object, path: str = "") -> Iterator[str]:
    """Yield `path: text` for each fault of a nested error document."""
    if isinstance(errors, Mapping):
        for name, below in errors.items():
            yield from _faults(below, f"{path}.{name}" if path else str(name))
    elif isinstance(errors, list):
        for below in errors:
            yield from _faults(below, path)
    elif errors is not None:
        yield f"{path}: {errors}" if path else str(errors)


def _segment(text: str) -> str:
    # "." and ".." are not escaped by quoting and would change the path.
    return quote(text, safe="").replace(".", "%2E")
