"""What is sent, how it is signed, and what follows from the answer."""

import json
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from api.webhooks.deliverer import PAUSES, decide
from api.webhooks.sender import Attempt, build_body, sign


def attempt(status, retry_after=0.0):
    return Attempt(at=datetime.now(UTC), milliseconds=1, status=status, retry_after=retry_after)


@pytest.mark.parametrize(
    ("status", "tries", "wish", "decided", "least", "most"),
    [
        (200, 0, 0, "delivered", 0, 0),
        (299, 9, 0, "delivered", 0, 0),
        (410, 0, 0, "dead", 0, 0),
        (500, 9, 0, "dead", 0, 0),
        (None, 9, 0, "dead", 0, 0),
        (None, 0, 0, "pending", 4, 6),
        (404, 1, 0, "pending", 48, 72),
        (302, 8, 0, "pending", 34_560, 51_840),
        (429, 0, 30, "pending", 30, 30),
        (503, 0, 2, "pending", 4, 6),
        (429, 0, 9_999_999, "pending", 43_200, 43_200),
    ],
)
def test_what_follows_from_an_attempt(status, tries, wish, decided, least, most):
    result, pause = decide(attempt(status, wish), tries, PAUSES)

    assert result == decided
    assert least <= pause <= most


def test_the_signature_is_that_of_the_specification():
    """The example of the standard's own documents."""
    moment = datetime.fromtimestamp(1_614_265_330, UTC)
    headers = sign(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        moment,
        b'{"test": 2432232314}',
        [SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
    )

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_the_body_names_type_moment_and_links():
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
    body = json.loads(build_body("scan.completed", moment, {"scanId": "s-1", "n": None}))

    assert body == {
        "type": "scan.completed",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "data": {
            "scanId": "s-1",
            "n": None,
            "links": {"status": "/api/v1/scan/s-1/status", "results": "/api/v1/results/s-1/tables"},
        },
    }
    removed = json.loads(build_body("scan.removed", moment, {"scanId": "s-1"}))
    assert "links" not in removed["data"]
