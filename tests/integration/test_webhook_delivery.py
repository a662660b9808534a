"""A thousand events for receivers that are down, slow or hostile, with scaled pauses."""

import asyncio
import resource
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from api.database import build_pool
from api.webhooks.addresses import AddressGuard
from api.webhooks.deliverer import PAUSES, PER_RECEIVER
from api.webhooks.sender import Sender
from hubspot_deals.local.ports import free_ports
from hubspot_deals.warehouse import deliveries, webhooks
from hubspot_deals.warehouse.credentials import KeyRing
from tests.integration import webhook_receivers as kinds
from tests.integration.webhook_outbox import KEYS, POLICY, SCALE, Outbox, delivering, until
from tests.integration.webhook_receivers import answering, receiving
from tests.pace import within

MOST_ATTEMPTS = len(PAUSES) + 1


@pytest.fixture
def outbox(database_url):
    return Outbox(database_url)


def verified(receiver, secret):
    """Return the ids of what a receiver got; every request must be signed and bounded."""
    ids = Counter()
    for request in receiver.requests:
        body = Webhook(secret).verify(request.body, request.headers)
        assert body.keys() == {"type", "timestamp", "data"}
        assert request.line == "POST /hook HTTP/1.1"
        assert request.headers["content-type"] == "application/json"
        ids[request.headers["webhook-id"]] += 1
    return ids


def failing_first(times, status=503, **headers):
    """Refuse each event so often, then take it."""
    seen = Counter()
    refuse, take = answering(status, **headers), answering()

    async def behave(request, writer):
        seen[request.headers["webhook-id"]] += 1
        is_refused = seen[request.headers["webhook-id"]] <= times
        await (refuse if is_refused else take)(request, writer)

    return behave


def slowly(seconds):
    async def behave(request, writer):
        await asyncio.sleep(seconds)
        await answering()(request, writer)

    return behave


# Behaviour, events, what becomes of them.
RECEIVERS = {
    "good": (answering(), 258, "delivered"),
    "accepting": (answering(202, b""), 100, "delivered"),
    "slow": (slowly(0.3), 60, "delivered"),
    "failing twice": (failing_first(2), 150, "delivered"),
    "busy": (failing_first(1, 429, Retry_After="1"), 100, "delivered"),
    "failing for hours": (failing_first(8, 500), 60, "delivered"),
    "endless": (kinds.never_ending_body, 20, "delivered"),
    "dripping": (kinds.dripping_body, 10, "delivered"),
    "broken": (answering(500, b"\0\xff oops" * 1_000), 60, "dead"),
    "hanging": (kinds.hanging, 4, "dead"),
    "cutting off": (kinds.cutting_off, 60, "dead"),
    "nonsense": (kinds.talking_nonsense, 30, "dead"),
    "endless head": (kinds.never_ending_head, 18, "dead"),
    "redirecting": (answering(307, Location="http://127.0.0.1:1/"), 40, "dead"),
}
DOWN = 30


def test_a_thousand_events_are_delivered_or_dead_as_documented(api_settings, outbox):
    async def deliver():
        receivers, ids = {}, {}
        (closed,) = free_ports(1)
        async with AsyncExitStack() as stack:
            ids["down"] = await outbox.subscribe(f"http://127.0.0.1:{closed}/hook", "down")
            for name, (behave, _, _) in RECEIVERS.items():
                receivers[name] = await stack.enter_async_context(receiving(behave))
                ids[name] = await outbox.subscribe(receivers[name].url("/hook"), name)
            await stack.enter_async_context(delivering(api_settings))
            for name, (_, events, _) in RECEIVERS.items():
                await outbox.note(events, name)
            await outbox.note(DOWN, "down")
            await outbox.wait_until_settled()
        return receivers, ids, {name: await outbox.log(ids[name]) for name in ids}

    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    receivers, ids, logs = asyncio.run(deliver())

    assert sum(map(len, logs.values())) == 1_000
    for name, (_, events, ending) in RECEIVERS.items():
        log, receiver = logs[name], receivers[name]
        assert Counter(delivery.status for delivery in log) == {ending: events}, name
        got = verified(receiver, outbox.secrets[ids[name]])
        assert set(got) == {delivery.event_id for delivery in log}, name
        # Nothing is sent more often than the log says: nobody had to take over.
        assert all(got[delivery.event_id] <= len(delivery.attempts) for delivery in log), name
        if name in {"good", "accepting", "slow", "broken"}:  # their side ends first
            assert receiver.most_at_once <= PER_RECEIVER, name
        if ending == "dead":
            assert {len(delivery.attempts) for delivery in log} == {MOST_ATTEMPTS}, name
        check_pauses(log)
    assert min(len(delivery.attempts) for delivery in logs["failing for hours"]) == 9
    assert {(d.status, len(d.attempts)) for d in logs["down"]} == {("dead", MOST_ATTEMPTS)}
    answers = {a["httpStatus"] for d in logs["redirecting"] for a in d.attempts}
    assert 307 in answers
    assert answers <= {307, None}  # None: this machine was too busy to answer in time
    excerpts = [a["response"] for d in logs["broken"] for a in d.attempts]
    assert any(excerpts)
    assert all(len(text.encode()) <= 1_000 and "\0" not in text for text in excerpts if text)
    # Those that answered were not held up by those that did not.
    assert took(logs["good"]) < took(logs["hanging"])
    # In kilobytes: what receivers send without end is not collected.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 150_000


def took(log):
    """Return the seconds from the first event to the last end."""
    return (max(d.ended_at for d in log) - min(d.created_at for d in log)).total_seconds()


def check_pauses(log):
    """No attempt comes earlier than the documented pause, less the jitter, after the one before."""
    for delivery in log:
        moments = [datetime.fromisoformat(attempt["at"]) for attempt in delivery.attempts]
        lengths = [timedelta(milliseconds=attempt["milliseconds"]) for attempt in delivery.attempts]
        for number in range(len(moments) - 1):
            pause = moments[number + 1] - moments[number] - lengths[number]
            wish = 1.0 if delivery.attempts[number]["httpStatus"] == 429 else 0.0
            least = max(0.8 * PAUSES[number] * SCALE, wish)
            assert pause.total_seconds() > least - 0.01


def test_a_receiver_that_is_gone_is_not_asked_again(api_settings, outbox):
    async def gone_after_ten(request, writer):
        count["requests"] += 1
        await answering(200 if count["requests"] <= 10 else 410)(request, writer)

    async def deliver():
        async with receiving(gone_after_ten) as receiver, delivering(api_settings):
            webhook_id = await outbox.subscribe(receiver.url("/hook"))
            await outbox.note(40)
            await outbox.wait_until_settled()
            await outbox.note(5)
            await asyncio.sleep(0.2)
            async with await outbox.connect() as connection:
                webhook = await webhooks.get_webhook(connection, webhook_id)
            return webhook, await outbox.log(webhook_id)

    count = Counter()
    webhook, log = asyncio.run(deliver())
    assert (webhook.enabled, webhook.disabled_reason) == (False, "The receiver answered 410 Gone")
    assert len(log) == 40
    assert Counter(delivery.status for delivery in log) == {"delivered": 10, "dead": 30}
    assert count["requests"] <= 10 + PER_RECEIVER


def test_one_organization_with_many_slow_receivers_holds_nobody_else_up(api_settings, outbox):
    async def deliver():
        async with receiving(kinds.hanging) as slow, receiving(answering()) as good:
            for host in range(1, 16):
                url = slow.url("/hook").replace("127.0.0.1", f"127.0.0.{host}")
                await outbox.subscribe(url, "slow")
            webhook_id = await outbox.subscribe(good.url("/hook"), "good")
            await outbox.note(20, "slow")
            await outbox.note(20, "good")
            async with delivering(api_settings, seconds=5, concurrency=20):
                await until(lambda: len(good.requests) == 20)
            return await outbox.log(webhook_id)

    began = time.monotonic()
    asyncio.run(deliver())
    assert time.monotonic() - began < within(5)  # nobody waited for a timeout


def test_several_processes_share_the_work_and_send_nothing_twice(api_settings, outbox):
    async def deliver():
        async with receiving(slowly(0.01)) as receiver:
            webhook_id = await outbox.subscribe(receiver.url("/hook"))
            await outbox.note(200)
            async with (
                delivering(api_settings),
                delivering(api_settings),
                delivering(api_settings),
            ):
                await outbox.wait_until_settled()
            return receiver, await outbox.log(webhook_id)

    receiver, log = asyncio.run(deliver())
    assert len(receiver.requests) == len(log) == 200
    assert {delivery.status for delivery in log} == {"delivered"}


def test_a_process_that_ends_in_order_leaves_its_work_to_others_at_once(api_settings, outbox):
    async def deliver():
        async with receiving(kinds.hanging) as receiver:
            await outbox.subscribe(receiver.url("/hook"))
            await outbox.note(3)
            async with delivering(api_settings, seconds=30):
                await until(lambda: len(receiver.requests) == 3)
        return await outbox.rows(
            "SELECT status, tries, next_attempt_at <= now() FROM hubspot_deals.webhook_deliveries"
        )

    assert asyncio.run(deliver()) == [("pending", 0, True)] * 3


def test_connections_that_break_end_no_delivering(api_settings, outbox):
    async def deliver():
        async with receiving(slowly(0.02)) as receiver, delivering(api_settings):
            webhook_id = await outbox.subscribe(receiver.url("/hook"))
            await outbox.note(120)
            for _ in range(5):
                await outbox.change(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'hubspot_deals_api'"
                    " AND datname = current_database()"
                )
                await asyncio.sleep(0.2)
            # What broke between claim and note is due when the claim has run out.
            await outbox.change(
                "UPDATE hubspot_deals.webhook_deliveries SET next_attempt_at = now()"
                " WHERE status = 'pending'"
            )
            await outbox.wait_until_settled()
            return receiver, await outbox.log(webhook_id)

    receiver, log = asyncio.run(deliver())
    assert {delivery.status for delivery in log} == {"delivered"}
    got = {request.headers["webhook-id"] for request in receiver.requests}
    assert got == {delivery.event_id for delivery in log}


def test_after_a_rotation_both_secrets_sign_until_the_overlap_is_over(api_settings, outbox):
    async def deliver():
        async with receiving(answering()) as receiver, delivering(api_settings):
            webhook_id = await outbox.subscribe(receiver.url("/hook"))
            olds = [outbox.secrets[webhook_id]]
            for _ in range(2):
                async with await outbox.connect() as connection:
                    _, secret = await webhooks.rotate_secret(
                        connection, webhook_id, KEYS, overlap_hours=1
                    )
                olds.append(secret.get_secret_value())
            await outbox.note(1)
            await outbox.wait_until_settled()
            await outbox.change(
                "UPDATE hubspot_deals.webhook_secrets SET valid_until = now()"
                " WHERE valid_until IS NOT NULL"
            )
            await outbox.note(1)
            await outbox.wait_until_settled()
            return olds, receiver.requests

    (first, second, third), (during, after) = asyncio.run(deliver())
    assert accepts(during, first, second, third) == [False, True, True]
    assert accepts(after, first, second, third) == [False, False, True]


def accepts(request, *secrets):
    accepted = []
    for secret in secrets:
        try:
            Webhook(secret).verify(request.body, request.headers)
        except WebhookVerificationError:
            accepted.append(False)
        else:
            accepted.append(True)
    return accepted


def test_without_the_key_of_a_secret_nothing_is_sent_unsigned(api_settings, outbox):
    other = KeyRing({"other": bytes(32)})

    async def deliver():
        async with receiving(answering()) as receiver:
            webhook_id = await outbox.subscribe(receiver.url("/hook"))
            await outbox.note(1)
            async with delivering(api_settings, keys=other):
                await outbox.wait_until_settled()
            return receiver.requests, await outbox.log(webhook_id)

    requests, (delivery,) = asyncio.run(deliver())
    assert requests == []
    assert (delivery.status, len(delivery.attempts)) == ("dead", MOST_ATTEMPTS)
    assert "cannot be decrypted" in delivery.attempts[0]["error"]


def test_a_secret_that_was_moved_to_another_webhook_does_not_sign(api_settings, outbox):
    async def swap():
        one, two = [await outbox.subscribe("http://127.0.0.1:1/hook", name) for name in "ab"]
        await outbox.change(
            "UPDATE hubspot_deals.webhook_secrets SET webhook_id ="
            " CASE webhook_id WHEN %s THEN %s ELSE %s END",
            one,
            two,
            one,
        )
        async with delivering(api_settings):
            await outbox.note(1, "a")
            await outbox.wait_until_settled()
        return await outbox.log(one)

    (delivery,) = asyncio.run(swap())
    assert "cannot be decrypted" in delivery.attempts[0]["error"]


def test_the_log_is_kept_for_some_days(outbox):
    async def age():
        webhook_id = await outbox.subscribe("http://127.0.0.1:1/hook")
        await outbox.note(3_000)
        await outbox.change(
            "UPDATE hubspot_deals.webhook_deliveries SET status = 'dead', ended_at = now() -"
            " CASE WHEN seq %% 2 = 0 THEN interval '31 days' ELSE interval '29 days' END"
            " WHERE seq > 10"
        )
        async with await outbox.connect() as connection:
            await deliveries.sweep(connection, log_days=30)
        events = await outbox.rows("SELECT count(*) FROM hubspot_deals.webhook_events")
        return await outbox.log(webhook_id), events

    log, events = asyncio.run(age())
    assert Counter(delivery.status for delivery in log) == {"pending": 10, "dead": 1_495}
    assert events == [(1_505,)]


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("120", 120, 120),
        ("in ten minutes", 590, 600),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0, 0),
        ("-5", 0, 0),
        ("soon", 0, 0),
        ("9" * 50, 999_999_999, 999_999_999),
    ],
)
def test_what_a_receiver_asks_for_is_read(api_settings, outbox, text, least, most):
    if text == "in ten minutes":
        text = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)

    async def deliver():
        async with receiving(answering(429, Retry_After=text)) as receiver:
            sender = Sender(AddressGuard(POLICY))
            webhook_id = await outbox.subscribe(receiver.url("/hook"))
            await outbox.note(1)
            async with build_pool(api_settings) as pool, pool.connection() as connection:
                limits = deliveries.Limits(
                    limit=1, per_receiver=1, per_organization=1, receivers={}, organizations={}
                )
                (due,) = await deliveries.claim_due(connection, limits)
            result = await sender.send(due, [SecretStr(outbox.secrets[webhook_id])])
            await sender.close()
            return result

    assert least <= asyncio.run(deliver()).retry_after <= most


def test_bodies_of_retries_are_the_same(api_settings, outbox):
    async def deliver():
        async with receiving(failing_first(3)) as receiver, delivering(api_settings):
            await outbox.subscribe(receiver.url("/hook"))
            await outbox.note(5)
            await outbox.wait_until_settled()
            return receiver.requests

    by_id = defaultdict(list)
    for request in asyncio.run(deliver()):
        by_id[request.headers["webhook-id"]].append(request.body)
    assert {len(bodies) for bodies in by_id.values()} == {4}
    assert all(len(set(bodies)) == 1 for bodies in by_id.values())
