"""The commands that tell existing scans what to do, and following a scan that rests."""

import json
from typing import Any

import httpx
import pytest

from tests.unit.cli_service import run

pytestmark = pytest.mark.usefixtures("no_settings")


class Service:
    """An API that answers every request with the next of its answers."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def confirm(message: str, **data: Any) -> httpx.Response:
    return httpx.Response(200, json={"success": True, "message": message, "data": data})


def shown(status: str, **more: Any) -> httpx.Response:
    scan = {"scanId": "s1", "status": status, "recordsExtracted": 7, "resumeAt": None}
    scan |= {"checkpointInfo": {"progress": 45.5}}
    return httpx.Response(200, json={"success": True, "data": scan | more})


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
def test_a_scan_is_told_what_to_do_and_the_apis_words_are_printed(verb: str) -> None:
    service = Service(confirm("Done", scanId="s1", status="paused"))

    plain = run(service, "scan", verb, "s1")
    for_programs = run(service, "scan", verb, "s1", "--json")

    assert (plain.exit_code, plain.stdout) == (0, "s1: Done\n")
    assert json.loads(for_programs.stdout) == {"scanId": "s1", "status": "paused"}
    for request in service.requests:
        assert (request.method, request.url.path) == ("POST", f"/api/v1/scan/s1/{verb}")


@pytest.mark.parametrize(
    ("status", "code"), [(400, 2), (404, 4), (500, 3)], ids=["refused", "unknown", "failing"]
)
@pytest.mark.parametrize("command", ["pause", "resume", "cancel", "remove"])
def test_a_scan_that_cannot_be_told_that_has_its_exit_code(
    command: str, status: int, code: int
) -> None:
    service = Service(httpx.Response(status, json={"message": "its status is completed"}))
    yes = ["--yes"] if command == "remove" else []

    result = run(service, "scan", command, "s1", *yes)

    assert result.exit_code == code
    assert "its status is completed" in result.stderr


def test_a_removal_is_asked_for_and_a_no_removes_nothing() -> None:
    service = Service(confirm("Removed", scanId="s1", recordsDeleted=7))

    refused = run(service, "scan", "remove", "s1", input="n\n")
    assert (refused.exit_code, service.requests) == (1, [])

    granted = run(service, "scan", "remove", "s1", "--json", input="y\n")
    assert json.loads(granted.stdout) == {"scanId": "s1", "recordsDeleted": 7}
    (request,) = service.requests
    assert (request.method, request.url.path) == ("DELETE", "/api/v1/scan/s1/remove")


def test_a_removal_without_a_terminal_needs_a_yes() -> None:
    service = Service(confirm("Removed"))

    assert run(service, "scan", "remove", "s1").exit_code == 1
    assert service.requests == []
    assert run(service, "scan", "remove", "s1", "--yes").exit_code == 0


@pytest.mark.parametrize("purge", [False, True])
def test_a_cleanup_says_how_old(*, purge: bool) -> None:
    service = Service(confirm("Cleaned up 3", cleanedCount=3, daysOld=30))
    options = ["--purge"] if purge else []

    result = run(service, "maintenance", "cleanup", "--days-old", "30", *options)

    assert (result.exit_code, result.stdout) == (0, "Cleaned up 3\n")
    (request,) = service.requests
    assert json.loads(request.content) == {"daysOld": 30}
    assert dict(request.url.params) == ({"purge": "true"} if purge else {})


@pytest.mark.parametrize("arguments", [(), ("--days-old", "0"), ("--days-old", "366")])
def test_a_cleanup_without_a_possible_age_sends_nothing(arguments: tuple[str, ...]) -> None:
    service = Service(confirm("Cleaned up"))

    assert run(service, "maintenance", "cleanup", *arguments).exit_code == 2
    assert service.requests == []


def test_crashed_scans_are_named_one_a_line() -> None:
    data = {"crashedJobIds": ["a", "b"], "crashedCount": 2, "timeoutMinutes": 30}
    service = Service(confirm("Detected 2", **data))

    plain = run(service, "maintenance", "detect-crashed", "--timeout-minutes", "30")
    for_programs = run(service, "maintenance", "detect-crashed", "--json")

    assert plain.stdout == "Detected 2\na\nb\n"
    assert json.loads(for_programs.stdout) == data
    asked = [request.url.params["timeoutMinutes"] for request in service.requests]
    assert asked == ["30", "10"]


def test_watch_follows_through_a_pause_and_says_once_until_when() -> None:
    paused = shown("paused", resumeAt="2026-01-02T00:00:00.000Z")
    service = Service(shown("running"), paused, paused, shown("resuming"), shown("completed"))

    result = run(service, "scan", "watch", "s1")

    assert result.exit_code == 0
    assert result.stderr.count("paused until 2026-01-02T00:00:00.000Z") == 1
    assert len(service.requests) == 5


def test_watch_of_a_scan_that_somebody_paused_says_how_it_goes_on() -> None:
    service = Service(shown("paused"), shown("paused"), shown("cancelled"))

    result = run(service, "scan", "watch", "s1")

    assert result.exit_code == 1
    assert result.stderr.count("hubspot-deals scan resume s1") == 1
    assert "Scan s1 cancelled" in result.stderr


def test_status_says_when_a_scan_goes_on() -> None:
    result = run(
        Service(shown("paused", resumeAt="2026-01-02T00:00:00.000Z")), "scan", "status", "s1"
    )

    assert "goes on       2026-01-02T00:00:00.000Z" in result.stdout
