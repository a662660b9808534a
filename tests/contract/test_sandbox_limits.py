"""Budgets as seen from outside: headers, the three 429 bodies, tokens, scopes, page limits."""

import re
from typing import Any

import pytest

from hubspot_sandbox.clock import Clock
from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.direct import DEALS, DirectReply, DirectSandbox

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
WINDOW = {
    "X-HubSpot-RateLimit-Max",
    "X-HubSpot-RateLimit-Remaining",
    "X-HubSpot-RateLimit-Interval-Milliseconds",
    "X-HubSpot-RateLimit-Secondly",
    "X-HubSpot-RateLimit-Secondly-Remaining",
}
DAILY = {"X-HubSpot-RateLimit-Daily", "X-HubSpot-RateLimit-Daily-Remaining"}


@pytest.fixture
def clock() -> Clock:
    return Clock(lambda: 1_790_000_000.0)


def _sandbox(clock: Clock, **options: Any) -> DirectSandbox:
    return DirectSandbox(SandboxConfig(deals=120, latency_ms=(0, 0), **options), clock)


def _limit_headers(reply: DirectReply) -> set[str]:
    return {name for name in reply.headers if "RateLimit" in name}


def _error(reply: DirectReply) -> dict[str, Any]:
    """The body without its correlation id, which must be a fresh UUID named in the header."""
    body: dict[str, Any] = reply.json
    identity = body.pop("correlationId")
    assert UUID7.fullmatch(identity)
    assert reply.headers["X-HubSpot-Correlation-Id"] == identity
    return body


def test_ordinary_answers_carry_all_headers(clock: Clock) -> None:
    reply = _sandbox(clock, tier="free").get(f"{DEALS}?limit=1")
    assert _limit_headers(reply) == WINDOW | DAILY
    assert reply.headers["X-HubSpot-RateLimit-Max"] == "100"
    assert reply.headers["X-HubSpot-RateLimit-Remaining"] == "99"
    assert reply.headers["X-HubSpot-RateLimit-Interval-Milliseconds"] == "10000"
    assert reply.headers["X-HubSpot-RateLimit-Secondly"] == "10"
    assert reply.headers["X-HubSpot-RateLimit-Secondly-Remaining"] == "9"
    assert reply.headers["X-HubSpot-RateLimit-Daily"] == "250000"
    assert reply.headers["X-HubSpot-RateLimit-Daily-Remaining"] == "249999"


def test_searches_carry_only_the_daily_pair(clock: Clock) -> None:
    assert _limit_headers(_sandbox(clock).search(limit=1)) == DAILY


def test_oauth_tokens_have_no_day(clock: Clock) -> None:
    sandbox = _sandbox(clock, tier="oauth")
    reply = sandbox.get(DEALS)
    assert _limit_headers(reply) == WINDOW
    assert reply.headers["X-HubSpot-RateLimit-Max"] == "110"
    assert _limit_headers(sandbox.search()) == set()


def test_without_limits_there_are_no_such_headers(clock: Clock) -> None:
    assert _limit_headers(_sandbox(clock, limits=False).get(DEALS)) == set()


def test_the_burst_refusal(clock: Clock) -> None:
    sandbox = _sandbox(clock, burst=2, portal_id=77)
    sandbox.get(DEALS)
    sandbox.get(DEALS)
    reply = sandbox.get(DEALS)
    assert reply.status == 429
    assert "Retry-After" not in reply.headers
    assert reply.headers["X-HubSpot-RateLimit-Remaining"] == "0"
    assert reply.headers["X-HubSpot-RateLimit-Daily-Remaining"] == "624997"
    assert _error(reply) == {
        "status": "error",
        "message": "You have reached your ten_secondly_rolling limit.",
        "errorType": "RATE_LIMIT",
        "policyName": "TEN_SECONDLY_ROLLING",
        "groupName": "publicapi:private_app-api-calls-ten-secondly:1512050:77",
    }


def test_the_search_refusal(clock: Clock) -> None:
    sandbox = _sandbox(clock)
    replies = [sandbox.search(limit=1) for _ in range(6)]
    assert [reply.status for reply in replies] == [200] * 5 + [429]
    assert _limit_headers(replies[-1]) == DAILY
    assert _error(replies[-1]) == {
        "status": "error",
        "message": "You have reached your secondly limit.",
        "category": "RATE_LIMITS",
    }
    clock.advance(1)
    assert sandbox.search(limit=1).status == 200


def test_the_daily_refusal(clock: Clock) -> None:
    sandbox = _sandbox(clock, daily=1)
    sandbox.get(DEALS)
    body = _error(sandbox.search())
    assert UUID7.fullmatch(body.pop("requestId"))
    assert body == {
        "status": "error",
        "message": "You have reached your daily limit.",
        "errorType": "RATE_LIMIT",
        "policyName": "DAILY",
    }


def test_usage_counts_every_request(clock: Clock) -> None:
    sandbox = _sandbox(clock)
    for _ in range(7):
        sandbox.search()
    [usage] = sandbox.get("/account-info/v3/api-usage/daily/private-apps").json["results"]
    assert usage["name"] == "private-apps-api-calls-daily"
    assert (usage["usageLimit"], usage["currentUsage"]) == (625_000, 8)
    assert usage["fetchStatus"] == "SUCCESS"


@pytest.mark.parametrize("token", [None, "an-invalid-token"])
def test_unknown_tokens_get_401(clock: Clock, token: str | None) -> None:
    reply = _sandbox(clock).get(DEALS, token=token)
    assert reply.status == 401
    assert reply.headers["X-HubSpot-Auth-Failure"] == "401 Unauthorized"
    body = _error(reply)
    assert body["category"] == "INVALID_AUTHENTICATION"
    assert body["message"].startswith("Authentication credentials not found.")


def test_expired_tokens_say_since_when(clock: Clock) -> None:
    reply = _sandbox(clock).get(DEALS, token="an-expired-token")
    body = _error(reply)
    assert reply.status == 401
    assert body["category"] == "EXPIRED_AUTHENTICATION"
    assert body["message"] == (
        "This oauth-token is expired! expiresAt: 1789999940000, now: 1790000000000"
    )


def test_malformed_tokens_meet_a_proxy_page(clock: Clock) -> None:
    reply = _sandbox(clock).get(DEALS, token="short")
    assert reply.status == 530
    assert reply.content.startswith(b"<html>")


def test_configured_tokens_are_the_only_ones(clock: Clock) -> None:
    tokens = {"first-token": frozenset({"crm.objects.deals.read"}), "second": frozenset[str]()}
    sandbox = _sandbox(clock, tokens=tokens)
    assert sandbox.get(DEALS, token="first-token").status == 200
    assert sandbox.get("/crm/v3/owners", token="first-token").status == 403
    assert sandbox.get(DEALS, token="second").status == 403
    assert sandbox.get(DEALS, token="sandbox-token-0123456789").status == 401


def test_a_missing_scope_names_the_scopes_that_would_do(clock: Clock) -> None:
    sandbox = _sandbox(clock)
    assert sandbox.get(DEALS, token="token-noowners").status == 200
    reply = sandbox.get("/crm/v3/owners", token="token-noowners")
    assert reply.status == 403
    assert _error(reply) == {
        "status": "error",
        "message": "This app hasn't been granted all required scopes to make this call. "
        "Read more about required scopes here: https://developers.hubspot.com/scopes.",
        "errors": [
            {
                "message": "One or more of the following scopes are required.",
                "context": {"requiredGranularScopes": ["automation", "crm.objects.owners.read"]},
            }
        ],
        "links": {"scopes": "https://developers.hubspot.com/scopes"},
        "category": "MISSING_SCOPES",
    }


def test_the_oauth_refusal_has_no_category(clock: Clock) -> None:
    reply = _sandbox(clock, tier="oauth").get(DEALS, token="token-noscope")
    assert reply.status == 403
    assert set(_error(reply)) == {"status", "message"}


def test_tokens_can_be_looked_up(clock: Clock) -> None:
    sandbox = _sandbox(clock, portal_id=99)
    token = "sandbox-token-0123456789"
    private = sandbox.post("/oauth/v2/private-apps/get/access-token-info", {"tokenKey": token})
    assert private.json["hubId"] == 99
    assert "crm.objects.deals.read" in private.json["scopes"]
    info = sandbox.get(f"/oauth/v1/access-tokens/{token}", token=None).json
    assert (info["hub_id"], info["expires_in"]) == (99, 1_800)
    form = f"client_id=a&client_secret=b&access_token={token}".encode()
    assert sandbox.ask("POST", "/oauth/v3/token/introspect", form, token=None).json["active"]
    log = str(sandbox.control("GET", "requests"))
    assert token not in log


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (f"{DEALS}?limit=100", 200),
        (f"{DEALS}?limit=101", 400),
        (f"{DEALS}?limit=0", 400),
        (f"{DEALS}?limit=ten", 400),
        (f"{DEALS}?limit=50&propertiesWithHistory=amount", 200),
        (f"{DEALS}?limit=51&propertiesWithHistory=amount", 400),
        (f"{DEALS}?after=abc", 400),
        ("/crm/v3/owners?limit=500", 200),
        ("/crm/v3/owners?limit=501", 400),
    ],
)
def test_page_limits(clock: Clock, target: str, status: int) -> None:
    assert _sandbox(clock).get(target).status == status


@pytest.mark.parametrize(
    ("inputs", "history", "status"), [(100, [], 207), (101, [], 400), (51, ["amount"], 400)]
)
def test_batch_limits(clock: Clock, inputs: int, history: list[str], status: int) -> None:
    body = {
        "inputs": [{"id": str(place)} for place in range(inputs)],
        "properties": [],
        "propertiesWithHistory": history,
    }
    assert _sandbox(clock).post(f"{DEALS}/batch/read", body).status == status


def test_association_batches_take_a_thousand(clock: Clock) -> None:
    path = "/crm/v4/associations/deals/contacts/batch/read"
    sandbox = _sandbox(clock)
    assert sandbox.post(path, {"inputs": [{"id": "1"}] * 1_000}).status == 207
    assert sandbox.post(path, {"inputs": [{"id": "1"}] * 1_001}).status == 400


def test_unknown_paths_and_methods_get_pages(clock: Clock) -> None:
    sandbox = _sandbox(clock)
    unknown = sandbox.get("/crm/v3/deals")
    assert unknown.status == 404
    assert b"<title>Error 404 Not Found</title>" in unknown.content
    assert sandbox.ask("PUT", DEALS).status == 405


def test_unknown_object_types_are_refused_without_a_category(clock: Clock) -> None:
    sandbox = _sandbox(clock)
    named = sandbox.get("/crm/v3/objects/widgets")
    numbered = sandbox.get("/crm/v3/objects/0-9999")
    assert named.status == numbered.status == 400
    assert _error(named) == {
        "status": "error",
        "message": "Unable to infer object type from: widgets",
    }
    assert _error(numbered)["message"] == "Invalid object or event type id: 0-9999"
