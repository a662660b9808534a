"""The webhook commands against an API of their own."""

import json

import httpx
import pytest

from tests.unit.cli_service import run

WEBHOOK = {
    "webhookId": "wh_1",
    "organizationId": "org-1",
    "enabled": True,
    "events": ["scan.completed", "scan.failed"],
    "url": "https://receiver.example/hook",
}
DELIVERY = {
    "deliveryId": "dlv_1",
    "type": "scan.completed",
    "status": "pending",
    "attempts": [{"httpStatus": 500, "error": None}, {"httpStatus": None, "error": "No answer"}],
    "nextAttemptAt": "2026-01-01T00:00:00.000Z",
}
ANSWERS = {
    ("POST", "/webhooks"): WEBHOOK | {"secret": "whsec_new"},
    ("GET", "/webhooks"): {"webhooks": [WEBHOOK]},
    ("PATCH", "/webhooks/wh_1"): WEBHOOK,
    ("DELETE", "/webhooks/wh_1"): {"webhookId": "wh_1"},
    ("POST", "/webhooks/wh_1/rotate-secret"): WEBHOOK | {"secret": "whsec_rotated"},
    ("POST", "/webhooks/wh_1/test"): DELIVERY,
    ("GET", "/webhooks/wh_1/deliveries"): {"deliveries": [DELIVERY]},
    ("POST", "/webhooks/wh_1/deliveries/dlv_1/replay"): DELIVERY,
}


@pytest.mark.parametrize(
    ("arguments", "sent", "shown"),
    [
        (
            ["create", "https://r.example/", "--organization", "o", "--event", "scan.*"],
            {"organizationId": "o", "url": "https://r.example/", "events": ["scan.*"]},
            ["wh_1", "whsec_new"],
        ),
        (["list"], None, ["wh_1", "scan.completed, scan.failed", "https://receiver.example/hook"]),
        (["update", "wh_1", "--disable"], {"enabled": False}, ["wh_1: changed"]),
        (["update", "wh_1", "--url", "https://x/"], {"url": "https://x/"}, ["wh_1: changed"]),
        (["remove", "wh_1"], None, ["wh_1: gone"]),
        (
            ["rotate-secret", "wh_1", "--overlap-hours", "3"],
            {"overlapHours": 3},
            ["whsec_rotated"],
        ),
        (["test", "wh_1"], None, ["wh_1: test event on its way"]),
        (["deliveries", "wh_1"], None, ["dlv_1", "scan.completed", "pending", "No answer"]),
        (["replay", "wh_1", "dlv_1"], None, ["dlv_1: on its way again"]),
    ],
)
def test_each_command_asks_the_api_and_shows_its_answer(arguments, sent, shown):
    requests = []

    def service(request):
        requests.append(request)
        path = request.url.path.removeprefix("/api/v1")
        answer = {"success": True, "message": "gone", "data": ANSWERS[request.method, path]}
        return httpx.Response(200, json=answer)

    result = run(service, "webhook", *arguments)

    assert result.exit_code == 0, result.output
    assert all(text in result.output for text in shown)
    (request,) = requests
    assert (json.loads(request.content) if request.content else None) == sent
    as_json = json.loads(run(service, "webhook", *arguments, "--json").output)
    assert as_json == ANSWERS[request.method, request.url.path.removeprefix("/api/v1")]


def test_a_secret_is_told_from_what_is_said_about_it():
    def service(request):
        return httpx.Response(201, json={"success": True, "data": ANSWERS["POST", "/webhooks"]})

    result = run(service, "webhook", "create", "https://r.example/")

    assert result.stdout == "wh_1\nwhsec_new\n"
    assert "not shown again" in result.stderr


def test_a_change_of_nothing_is_wrong_usage():
    result = run(lambda _: httpx.Response(500), "webhook", "update", "wh_1")

    assert result.exit_code == 2
    assert "Say what to change" in result.stderr


def test_an_id_cannot_lead_to_another_path():
    requests = []

    def service(request):
        requests.append(request)
        return httpx.Response(404, json={"success": False, "message": "No webhook found"})

    result = run(service, "webhook", "test", "../scan?x=y")

    assert result.exit_code == 4
    assert requests[0].url.raw_path == b"/api/v1/webhooks/%2E%2E/scan%3Fx%3Dy/test"
