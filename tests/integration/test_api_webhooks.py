"""Webhooks over REST, on real PostgreSQL; and a delivering process that is killed."""

import asyncio
import base64
import contextlib
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from api.main import create_app
from api.testing import serve
from api.webhooks.sender import build_body, sign
from hubspot_deals.local.ports import free_ports
from hubspot_deals.warehouse.webhooks import MOST_WEBHOOKS
from tests.conftest import TEST_KEYS
from tests.integration.test_api_process import (  # noqa: F401 - a fixture
    CHECKOUT,
    environment,
    start_api,
    wait_until_it_answers,
)
from tests.integration.webhook_receivers import answering, hanging, receiving

PATH = "/api/v1/webhooks"
LOCAL = {"webhook_allowed_networks": "127.0.0.0/8", "webhook_allow_http": "true"}


@pytest.fixture
def api_settings(api_settings):
    """Settings of a process that delivers nothing and may subscribe to loopback."""
    changes = {**LOCAL, "webhook_allow_http": True, "webhook_concurrency": 0}
    return api_settings.model_copy(update=changes)


@pytest.fixture
def subscribe(client):
    def subscribe(url="http://127.0.0.1:9/hook", organization="org-1", **more):
        body = {"organizationId": organization, "url": url, **more}
        answer = client.post(PATH, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["data"]

    return subscribe


def test_a_webhook_is_created_with_a_secret_that_is_shown_once(client, subscribe, query):
    created = subscribe(events=["scan.completed", "scan.failed", "scan.completed"], description="x")

    secret = created.pop("secret")
    assert secret.startswith("whsec_")
    Webhook(secret)  # it is one that the library takes
    assert created["events"] == ["scan.completed", "scan.failed"]
    assert created["enabled"] is True
    shown = client.get(f"{PATH}/{created['webhookId']}")
    assert shown.json()["data"] == created
    assert secret not in client.get(PATH).text + shown.text
    for row in query("SELECT * FROM hubspot_deals.webhook_secrets"):
        assert secret.removeprefix("whsec_").encode() not in bytes(row[4])
        assert secret not in str(row)


def test_webhooks_are_listed_by_organization_and_by_pages(client, subscribe):
    ids = [subscribe(organization=f"org-{number % 2}")["webhookId"] for number in range(5)]

    own = client.get(PATH, params={"organizationId": "org-1"}).json()["data"]
    assert [webhook["webhookId"] for webhook in own["webhooks"]] == [ids[3], ids[1]]
    assert own["pagination"]["total"] == 2
    seen, cursor = [], None
    while cursor is not None or not seen:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get(PATH, params=params).json()["data"]
        seen += [webhook["webhookId"] for webhook in page["webhooks"]]
        cursor = page["pagination"]["nextCursor"]
    assert seen == ids[::-1]
    wrong = client.get(PATH, params={"limit": 2, "cursor": "nonsense"})
    assert wrong.status_code == 400
    assert wrong.json()["validation_errors"].keys() == {"cursor"}


FAULTY = [
    ({}, "organizationId"),
    ({"organizationId": "org-1"}, "url"),
    ({"organizationId": " ", "url": "http://127.0.0.1:9/"}, "organizationId"),
    ({"organizationId": "o", "url": 7}, "url"),
    ({"organizationId": "o", "url": "http://169.254.169.254/"}, "url"),
    ({"organizationId": "o", "url": "http://10.0.0.1/"}, "url"),
    ({"organizationId": "o", "url": "ftp://127.0.0.1/"}, "url"),
    ({"organizationId": "o", "url": "http://no-such-host.invalid/"}, "url"),
    ({"organizationId": "o", "url": "http://127.0.0.1:9/", "events": []}, "events"),
    ({"organizationId": "o", "url": "http://127.0.0.1:9/", "events": ["sync.done"]}, "events"),
    ({"organizationId": "o", "url": "http://127.0.0.1:9/", "secret": "mine"}, "secret"),
    ({"organizationId": "o", "url": "http://127.0.0.1:9/", "enabled": "yes"}, "enabled"),
    ({"organizationId": "o", "url": "http://127.0.0.1:9/", "description": ""}, "description"),
]


def test_what_cannot_be_subscribed_is_named(client):
    for body, place in FAULTY:
        answer = client.post(PATH, json=body)
        assert answer.status_code == 400, body
        assert place in answer.json()["validation_errors"]


def test_only_https_and_public_addresses_unless_settings_say_otherwise(database_url, gateway):
    from api.settings import ApiSettings  # noqa: PLC0415

    settings = ApiSettings(database_url=database_url, encryption_keys=TEST_KEYS)
    with serve(create_app(settings, gateway=gateway)) as client:
        for url in ("http://93.184.216.34/", "https://127.0.0.1/", "https://93.184.216.34:22/"):
            body = {"organizationId": "org-1", "url": url}
            assert client.post(PATH, json=body).status_code == 400, url
        body["url"] = "https://93.184.216.34/"
        assert client.post(PATH, json=body).status_code == 201


def test_a_webhook_is_changed_disabled_and_enabled(client, subscribe, change):
    webhook_id = subscribe()["webhookId"]
    path = f"{PATH}/{webhook_id}"
    client.post(f"{path}/test")

    changed = client.patch(path, json={"events": ["scan.*"], "description": "told"}).json()["data"]
    assert (changed["events"], changed["description"]) == (["scan.*"], "told")
    assert client.patch(path, json={"url": "http://10.0.0.1/"}).status_code == 400
    assert (
        client.patch(path, json={"url": "http://127.0.0.2:9/"})
        .json()["data"]["url"]
        .endswith("127.0.0.2:9/")
    )
    assert client.patch(path, json={"description": None}).json()["data"]["description"] is None
    assert client.patch(path, json={"enabled": None, "events": None}).json()["data"]["enabled"]
    change("UPDATE hubspot_deals.webhooks SET disabled_reason = 'gone'")
    off = client.patch(path, json={"enabled": False}).json()["data"]
    assert off["enabled"] is False
    (delivery,) = client.get(f"{path}/deliveries").json()["data"]["deliveries"]
    assert (delivery["status"], delivery["nextAttemptAt"]) == ("dead", None)
    for asked in ("test", f"deliveries/{delivery['deliveryId']}/replay"):
        refused = client.post(f"{path}/{asked}")
        assert (refused.status_code, refused.json()["code"]) == (409, "WEBHOOK_DISABLED")
    on = client.patch(path, json={"enabled": True}).json()["data"]
    assert (on["enabled"], on["disabledReason"]) == (True, None)
    replayed = client.post(f"{path}/deliveries/{delivery['deliveryId']}/replay")
    assert (replayed.status_code, replayed.json()["data"]["status"]) == (202, "pending")


def test_a_webhook_is_deleted_with_its_log(client, subscribe, query):
    webhook_id = subscribe()["webhookId"]
    client.post(f"{PATH}/{webhook_id}/test")

    assert client.delete(f"{PATH}/{webhook_id}").json()["data"] == {"webhookId": webhook_id}
    assert client.delete(f"{PATH}/{webhook_id}").status_code == 404
    for table in ("webhooks", "webhook_secrets", "webhook_deliveries"):
        assert query(f"SELECT count(*) FROM hubspot_deals.{table}") == [(0,)]


def test_what_does_not_exist_is_not_found(client):
    for webhook_id in ("wh_" + "0" * 32, "x", "wh_%00", "..%2f", "w" * 500):
        for method, rest in (
            ("GET", ""),
            ("PATCH", ""),
            ("DELETE", ""),
            ("POST", "/rotate-secret"),
            ("POST", "/test"),
            ("GET", "/deliveries"),
            ("POST", "/deliveries/dlv_0/replay"),
            ("POST", f"/deliveries/dlv_{'0' * 32}/replay"),
        ):
            body = {"enabled": True} if method == "PATCH" else None
            answer = client.request(method, f"{PATH}/{webhook_id}{rest}", json=body)
            assert answer.status_code == 404, (method, webhook_id, rest)
            codes = {"WEBHOOK_NOT_FOUND", "DELIVERY_NOT_FOUND", "NOT_FOUND"}
            assert answer.json()["code"] in codes


def test_a_delivery_of_another_webhook_is_not_found(client, subscribe):
    one, two = subscribe()["webhookId"], subscribe()["webhookId"]
    delivery_id = client.post(f"{PATH}/{one}/test").json()["data"]["deliveryId"]

    answer = client.post(f"{PATH}/{two}/deliveries/{delivery_id}/replay")
    assert (answer.status_code, answer.json()["code"]) == (404, "DELIVERY_NOT_FOUND")


def test_an_organization_has_a_bounded_number_of_webhooks(client, subscribe):
    for _ in range(MOST_WEBHOOKS):
        subscribe()
    body = {"organizationId": "org-1", "url": "http://127.0.0.1:9/"}

    refused = client.post(PATH, json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "WEBHOOK_LIMIT")
    assert client.post(PATH, json=body | {"organizationId": "org-2"}).status_code == 201


def test_secrets_are_rotated_with_an_overlap(client, subscribe, query):
    created = subscribe()
    path = f"{PATH}/{created['webhookId']}/rotate-secret"

    rotated = client.post(path).json()["data"]
    assert rotated["secret"] not in {created["secret"], None}
    assert rotated["oldSecretUntil"] is not None
    at_once = client.post(path, json={"overlapHours": 0}).json()["data"]
    assert at_once["oldSecretUntil"] is None
    assert client.post(path, json={"overlapHours": 169}).status_code == 400
    assert query("SELECT count(*) FROM hubspot_deals.webhook_secrets") == [(2,)]


def test_the_delivery_log_is_paged_and_filtered(client, subscribe, change):
    path = f"{PATH}/{subscribe()['webhookId']}"
    ids = [client.post(f"{path}/test").json()["data"]["deliveryId"] for _ in range(5)]
    change(
        "UPDATE hubspot_deals.webhook_deliveries SET status = 'dead', ended_at = now()"
        " WHERE delivery_id = ANY(%s)",
        ids[:2],
    )

    first = client.get(f"{path}/deliveries", params={"limit": 3})
    page = first.json()["data"]
    assert [delivery["deliveryId"] for delivery in page["deliveries"]] == ids[:1:-1]
    assert first.headers["X-Pagination-Total"] == "5"
    following = client.get(httpx.URL(first.headers["Link"].partition("<")[2].partition(">")[0]))
    assert [d["deliveryId"] for d in following.json()["data"]["deliveries"]] == ids[1::-1]
    dead = client.get(f"{path}/deliveries", params={"status": "dead"}).json()["data"]
    assert [d["deliveryId"] for d in dead["deliveries"]] == ids[1::-1]
    assert client.get(f"{path}/deliveries", params={"status": "lost"}).status_code == 400


def test_a_test_event_and_a_scan_arrive_signed(api_settings, gateway, database, subscribe):
    settings = api_settings.model_copy(update={"webhook_concurrency": 4})

    async def receive():
        async with receiving(answering()) as receiver:
            await asyncio.to_thread(run, receiver)
            return receiver.requests

    def run(receiver):
        with serve(create_app(settings, gateway=gateway)) as client:
            body = {"organizationId": "org-1", "url": receiver.url("/hook")}
            created = client.post(PATH, json=body).json()["data"]
            secrets.append(created["secret"])
            client.post(f"{PATH}/{created['webhookId']}/test")
            config = {
                "scanId": "scan-1",
                "organizationId": "org-1",
                "type": ["user"],
                "auth": {"accessToken": "canary-token-0123456789"},
            }
            assert client.post("/api/v1/scan/start", json={"config": config}).status_code == 202
            assert client.post("/api/v1/scan/scan-1/pause").status_code == 200
            wait_until(lambda: len(receiver.requests) == 2)
            replayed = client.get(f"{PATH}/{created['webhookId']}/deliveries").json()["data"]
            delivery_id = replayed["deliveries"][0]["deliveryId"]
            client.post(f"{PATH}/{created['webhookId']}/deliveries/{delivery_id}/replay")
            wait_until(lambda: len(receiver.requests) == 3)

    secrets = []
    requests = asyncio.run(receive())
    bodies = [Webhook(secrets[0]).verify(request.body, request.headers) for request in requests]
    assert Counter(body["type"] for body in bodies) == {"webhook.test": 1, "scan.paused": 2}
    assert requests[2].headers["webhook-id"] in {r.headers["webhook-id"] for r in requests[:2]}
    (paused,) = {body["data"]["status"] for body in bodies if body["type"] == "scan.paused"}
    assert paused == "paused"
    assert all(b"canary" not in request.body for request in requests)


def test_the_documented_receiver_takes_what_is_signed_and_nothing_else(tmp_path):
    """Runs the Python example of docs/webhooks.md as it stands."""
    page = (CHECKOUT / "docs/webhooks.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (port,) = free_ports(1)
    secret = "whsec_" + base64.b64encode(bytes(24)).decode()
    variables = environment() | {"WEBHOOK_SECRET": secret, "PORT": str(port)}
    body = build_body("scan.completed", datetime.now(UTC), {"scanId": "march"})
    signed = sign("msg_1", datetime.now(UTC), body, [SecretStr(secret)])
    other = sign("msg_1", datetime.now(UTC), body, [SecretStr(secret[:-4] + "AAAB")])
    late = sign("msg_1", datetime.now(UTC) - timedelta(minutes=6), body, [SecretStr(secret)])

    with (tmp_path / "out").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", example], env=variables, stdout=output, stderr=output
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

            def post(headers, content=body):
                with contextlib.suppress(httpx.ConnectError):
                    return client.post("/", content=content, headers=headers).status_code

            wait_until(lambda: post({}) == 401)
            assert [post(signed), post(signed)] == [204, 204]
            assert [post(other), post(late), post(signed, body + b" ")] == [401, 401, 401]
    finally:
        process.kill()
        process.wait()
    lines = (tmp_path / "out").read_text().splitlines()
    assert [line for line in lines if "HTTP" not in line] == ["scan.completed march"]


def wait_until(is_met, seconds=20):
    deadline = time.monotonic() + seconds
    while not is_met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_process_loses_nothing(start_api, database_url, query, change):  # noqa: F811
    """Killed while receivers have its requests; another process sends them under the same id."""
    settings = {
        "database_url": database_url,
        "encryption_keys": TEST_KEYS.get_secret_value(),
        **LOCAL,
    }

    async def receive():
        async with receiving(hanging) as receiver:
            await asyncio.to_thread(kill_in_delivery, receiver)
            killed = list(receiver.requests)
            receiver.behaviour = answering()
            await asyncio.to_thread(deliver_the_rest)
            return killed, receiver.requests[len(killed) :]

    def kill_in_delivery(receiver):
        process, url, log = start_api(**settings)
        wait_until_it_answers(process, url, log)
        with httpx.Client(base_url=url, trust_env=False) as client:
            body = {"organizationId": "org-1", "url": receiver.url("/hook")}
            created = client.post(PATH, json=body).json()["data"]
        secrets.append(created["secret"])
        change(
            "SELECT hubspot_deals.note_event('org-1', 'scan.failed', '{\"scanId\": \"s\"}')"
            " FROM generate_series(1, 25)"
        )
        wait_until(lambda: len(receiver.requests) == 4)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def deliver_the_rest():
        assert query("SELECT DISTINCT status FROM hubspot_deals.webhook_deliveries") == [
            ("pending",)
        ]
        # What the killed process had claimed is due when its claim has run out.
        ((claimed,),) = query(
            "SELECT count(*) FROM hubspot_deals.webhook_deliveries WHERE next_attempt_at > now()"
        )
        assert claimed == 4
        change(
            "UPDATE hubspot_deals.webhook_deliveries"
            " SET next_attempt_at = next_attempt_at - interval '45 seconds'"
        )
        start_api(**settings)
        delivered = "SELECT count(*) FROM hubspot_deals.webhook_deliveries WHERE ended_at < now()"
        wait_until(lambda: query(delivered) == [(25,)])

    secrets = []
    killed, delivered = asyncio.run(receive())
    ids = {event_id for (event_id,) in query("SELECT event_id FROM hubspot_deals.webhook_events")}
    assert len(ids) == 25
    assert Counter(r.headers["webhook-id"] for r in delivered) == dict.fromkeys(ids, 1)
    assert {r.headers["webhook-id"] for r in killed} < ids
    for request in (*killed, *delivered):
        Webhook(secrets[0]).verify(request.body, request.headers)
