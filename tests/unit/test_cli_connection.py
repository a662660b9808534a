"""The `connection` commands: what they send, and what they print."""

import json
from typing import Any

import httpx
import pytest

from tests.unit.cli_service import run

pytestmark = pytest.mark.usefixtures("no_settings")

TOKEN = "pat-na1-canary-0123456789"
SETTINGS = {
    "cadence": "hourly",
    "timeZone": "UTC",
    "startDate": "2024-01-01",
    "objects": ["owners", "pipelines"],
    "properties": ["amount"],
    "refreshHours": 24,
    "reconcileHours": 168,
    "quotaShare": 0.5,
}
CONNECTION = {
    "connectionId": "acme",
    "organizationId": "o",
    "name": "ACME",
    "portalId": 7,
    "status": "failing",
    "errorMessage": "no scope",
    "enabled": True,
    "freshAsOf": "2026-01-02T00:00:00.000Z",
    "syncing": True,
    "settings": SETTINGS,
    "warnings": ["The token lacks the scope crm.objects.owners.read"],
}
RUN = {
    "runNo": 3,
    "kind": "changes",
    "outcome": "completed",
    "startedAt": "2026-01-02T00:00:00.000Z",
    "duration": 1.2345,
    "readUntil": None,
    "errorMessage": None,
}


class Service:
    """An API that answers every request alike."""

    def __init__(self, data: Any, status: int = 200, message: str = "Done") -> None:
        self.answer = httpx.Response(
            status, json={"success": status < 400, "message": message, "data": data}
        )
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer

    @property
    def sent(self) -> Any:
        (request,) = self.requests
        return json.loads(request.content)


def page(name: str, entry: Any, cursor: str | None = "next") -> dict[str, Any]:
    return {name: [entry], "pagination": {"total": 9, "nextCursor": cursor}}


def test_a_creation_sends_what_the_options_say_and_shows_the_connection(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    service = Service(CONNECTION, 201)

    result = run(
        service,
        *("connection", "create", "--organization", "o", "--connection-id", "acme"),
        *("--name", "ACME", "--cadence", "daily", "--time-zone", "Europe/Berlin"),
        *("--start-date", "2024-01-01", "--object", "owners", "--object", "pipelines"),
        *("--property", "amount", "--refresh-hours", "6", "--reconcile-hours", "48"),
        *("--quota-share", "0.5", "--disabled", "--no-check", "--idempotency-key", "k"),
        *("--token-file", str(tmp_path / "token")),
    )

    assert result.exit_code == 0, result.output
    assert service.sent == {
        "connectionId": "acme",
        "organizationId": "o",
        "name": "ACME",
        "auth": {"accessToken": TOKEN},
        "settings": {
            "cadence": "daily",
            "timeZone": "Europe/Berlin",
            "startDate": "2024-01-01",
            "objects": ["owners", "pipelines"],
            "properties": ["amount"],
            "refreshHours": 6,
            "reconcileHours": 48,
            "quotaShare": 0.5,
        },
        "enabled": False,
        "check": False,
    }
    (request,) = service.requests
    assert (request.method, request.url.path) == ("POST", "/api/v1/connections")
    assert request.headers["Idempotency-Key"] == "k"
    assert "failing, a run is at work" in result.stdout
    assert "hourly from 2024-01-01, UTC" in result.stdout
    assert "warning: The token lacks" in result.stderr
    assert "hubspot-deals connection show acme" in result.stderr
    assert TOKEN not in result.output


def test_a_creation_without_options_leaves_the_defaults_to_the_api(monkeypatch):
    monkeypatch.setenv("HUBSPOT_DEALS_ACCESS_TOKEN", TOKEN)
    service = Service(CONNECTION, 201)

    shown = run(service, "connection", "create", "--json")

    assert service.sent == {
        "organizationId": "default",
        "enabled": True,
        "auth": {"accessToken": TOKEN},
    }
    assert json.loads(shown.stdout) == CONNECTION


def test_a_creation_takes_the_token_from_standard_input_and_needs_one():
    service = Service(CONNECTION, 201)

    assert run(service, "connection", "create").exit_code == 2
    assert service.requests == []
    given = run(service, "connection", "create", "--token-file", "-", input=TOKEN)
    assert (given.exit_code, service.sent["auth"]) == (0, {"accessToken": TOKEN})


def test_no_command_takes_a_token_as_an_argument():
    for command in ("create", "update"):
        assert "--token " not in run(Service({}), "connection", command, "--help").output


def test_a_change_sends_only_what_is_named(monkeypatch):
    monkeypatch.setenv("HUBSPOT_DEALS_ACCESS_TOKEN", TOKEN)

    named, renewed, nothing = Service(CONNECTION), Service(CONNECTION), Service(CONNECTION)
    assert run(named, "connection", "update", "acme", "--quota-share", "1").exit_code == 0
    assert run(renewed, "connection", "update", "acme", "--new-token").exit_code == 0
    refused = run(nothing, "connection", "update", "acme")

    assert named.sent == {"settings": {"quotaShare": 1.0}}
    assert renewed.sent == {"auth": {"accessToken": TOKEN}}
    assert (refused.exit_code, nothing.requests) == (2, [])
    (request,) = named.requests
    assert (request.method, request.url.path) == ("PATCH", "/api/v1/connections/acme")


def test_a_list_shows_where_connections_stand_and_how_to_go_on():
    service = Service(page("connections", CONNECTION))

    plain = run(service, "connection", "list", "--organization", "o", "--cursor", "c")
    for_programs = run(service, "connection", "list", "--json")

    for text in ("acme", "failing", "2026-01-02", "1 of 9", "more with --cursor next"):
        assert text in plain.stdout
    assert json.loads(for_programs.stdout)["connections"] == [CONNECTION]
    assert dict(service.requests[0].url.params) == {
        "organizationId": "o",
        "limit": "20",
        "cursor": "c",
    }
    assert dict(service.requests[1].url.params) == {"limit": "20"}


def test_runs_are_a_table():
    service = Service(page("runs", RUN, None))

    result = run(service, "connection", "runs", "acme", "--limit", "5")

    for text in ("completed", "2026-01-02 00:00:00", "1.2 ", "1 of 9"):
        assert text in result.stdout
    assert "--cursor" not in result.stdout
    (request,) = service.requests
    assert str(request.url).endswith("/connections/acme/runs?limit=5")


def test_one_connection_is_shown():
    result = run(Service(CONNECTION), "connection", "show", "acme")
    assert "error         no scope" in result.stdout
    assert "account       7" in result.stdout


@pytest.mark.parametrize("verb", ["sync", "pause", "resume"])
def test_a_connection_is_told_what_to_do_and_the_apis_words_are_printed(verb):
    service = Service({"connectionId": "acme", "status": "paused"})

    plain = run(service, "connection", verb, "acme")
    for_programs = run(service, "connection", verb, "acme", "--json")

    assert (plain.exit_code, plain.stdout) == (0, "acme: Done\n")
    assert json.loads(for_programs.stdout)["status"] == "paused"
    for request in service.requests:
        assert (request.method, request.url.path) == ("POST", f"/api/v1/connections/acme/{verb}")


def test_a_removal_is_asked_for_and_a_no_removes_nothing():
    service = Service({"connectionId": "acme"})

    refused = run(service, "connection", "remove", "acme", input="n\n")
    assert (refused.exit_code, service.requests) == (1, [])

    assert run(service, "connection", "remove", "acme", "--yes").stdout == "acme: Done\n"
    (request,) = service.requests
    assert (request.method, request.url.path) == ("DELETE", "/api/v1/connections/acme")


@pytest.mark.parametrize(("status", "code"), [(400, 2), (404, 4), (409, 5), (503, 3)], ids=str)
def test_a_refusal_has_its_exit_code(status, code):
    result = run(Service({}, status, "not like that"), "connection", "sync", "acme")

    assert result.exit_code == code
    assert "not like that" in result.stderr
