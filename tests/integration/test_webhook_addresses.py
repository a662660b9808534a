"""Nothing inside is reached, measured at the sockets: spellings, names, rebinding, redirects."""

import asyncio
import datetime as dt
import socket
import ssl
from collections import Counter

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from standardwebhooks import Webhook

from api.webhooks.addresses import (
    AddressGuard,
    AddressPolicy,
    AddressRefusedError,
    parse_networks,
)
from api.webhooks.sender import Sender
from hubspot_deals.warehouse.deliveries import DueDelivery
from tests.integration.hostile_urls import PUBLIC, hostile_urls, said_by_name_servers
from tests.integration.webhook_receivers import answering, receiving, recorded_connects

SECRET = SecretStr("whsec_" + "c2VjcmV0" * 6)
NOW = dt.datetime.now(dt.UTC)


def due(url):
    return DueDelivery(
        seq=1,
        webhook_id="wh_1",
        organization_id="org-1",
        receiver="-",
        url=url,
        event_id="msg_1",
        type="scan.completed",
        occurred_at=NOW,
        data={"scanId": "scan-1"},
        tries=0,
        claimed_until=NOW,
    )


def send(url, policy, look_up):
    """Send one delivery as the deliverer does."""

    async def on_loop():
        sender = Sender(AddressGuard(policy, look_up))
        try:
            return await sender.send(due(url), [SECRET])
        finally:
            await sender.close()

    return asyncio.run(on_loop())


async def send_on(sender, url):
    return await sender.send(due(url), [SECRET])


def test_no_hostile_url_reaches_a_socket():
    async def attack():
        outcomes = {}
        async with (
            receiving(answering(), host="0.0.0.0") as inside,
            receiving(answering(), host="::1") as inside_six,
        ):
            for port in (inside.port, inside_six.port):
                # Everything but the address is permitted.
                policy = AddressPolicy(ports=frozenset({port, 80, 443}), allow_http=True)
                guard = AddressGuard(policy, said_by_name_servers)
                sender = Sender(guard)
                for url in hostile_urls(port):
                    with pytest.raises(AddressRefusedError):
                        await guard.check(url)
                    outcomes[url] = await send_on(sender, url)
                await sender.close()
        return outcomes, inside.connections + inside_six.connections

    with recorded_connects() as connects:
        outcomes, accepted = asyncio.run(attack())

    assert len(outcomes) >= 240  # 120, against a port of each family
    assert accepted == 0
    assert connects == []
    for url, attempt in outcomes.items():
        assert attempt.status is None, url
        assert attempt.error, url


def test_what_is_measured_with_would_show_a_connection():
    async def deliver():
        async with receiving(answering()) as receiver:
            policy = AddressPolicy(allowed=parse_networks("127.0.0.1/32"), allow_http=True)
            sender = Sender(AddressGuard(policy))
            attempt = await send_on(sender, receiver.url())
            await sender.close()
        return attempt, receiver

    with recorded_connects() as connects:
        attempt, receiver = asyncio.run(deliver())

    assert attempt.succeeded
    assert connects == [("127.0.0.1", receiver.port)]
    assert receiver.connections == 1


@pytest.mark.parametrize("later", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "0.0.0.0"])
def test_a_name_that_changes_after_it_was_subscribed_is_not_followed(later):
    answers, asked = [[PUBLIC], [later], [PUBLIC]], []

    async def rebinding(host, _):
        asked.append(host)
        return answers[len(asked) - 1]

    async def attack():
        async with receiving(answering(), host="0.0.0.0") as inside:
            policy = AddressPolicy(ports=frozenset({inside.port}), allow_http=True)
            guard = AddressGuard(policy, rebinding)
            url = inside.url(host="rebind.example")
            await guard.check(url)
            sender = Sender(guard)
            attempt = await send_on(sender, url)
            await sender.close()
            return attempt, inside.connections

    with recorded_connects() as connects:
        attempt, accepted = asyncio.run(attack())

    assert len(asked) == 2  # once when it was subscribed, once for the delivery
    assert (accepted, connects, attempt.status) == (0, [], None)


def test_only_what_was_checked_is_connected_to():
    """A name server that answers differently each time gets no second chance in one delivery."""
    asked = []

    async def alternating(host, _):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) % 2 else ["127.0.0.2"]

    async def deliver():
        async with (
            receiving(answering()) as permitted,
            receiving(answering(), host="127.0.0.2") as other,
        ):
            policy = AddressPolicy(allowed=parse_networks("127.0.0.1/32"), allow_http=True)
            sender = Sender(AddressGuard(policy, alternating))
            attempts = [
                await send_on(sender, permitted.url(host="two-faced.example")) for _ in range(6)
            ]
            await sender.close()
            return attempts, permitted, other

    with recorded_connects() as connects:
        attempts, permitted, other = asyncio.run(deliver())

    assert [attempt.status for attempt in attempts] == [200, None] * 3
    assert len(asked) == 6
    assert Counter(connects) == {("127.0.0.1", permitted.port): 3}
    assert other.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status):
    async def deliver():
        async with receiving(answering(), host="127.0.0.2") as inside:
            places = [
                inside.url(host="127.0.0.2"),
                inside.url(host="localhost"),
                "http://169.254.169.254/latest/meta-data/",
                "//127.0.0.2/",
                "https://example.com/",
            ]
            policy = AddressPolicy(allowed=parse_networks("127.0.0.1/32"), allow_http=True)
            sender = Sender(AddressGuard(policy))
            attempts = []
            for place in places:
                async with receiving(answering(status, Location=place)) as receiver:
                    attempts.append(await send_on(sender, receiver.url()))
            await sender.close()
            return attempts, inside.connections

    with recorded_connects() as connects:
        attempts, accepted = asyncio.run(deliver())

    assert [attempt.status for attempt in attempts] == [status] * 5
    assert not any(attempt.succeeded for attempt in attempts)
    assert accepted == 0
    assert {host for host, _ in connects} == {"127.0.0.1"}


def test_the_socket_itself_has_the_last_word():
    """Even a resolver that is wrong opens no connection."""

    class Careless(AddressGuard):
        async def resolve(self, host, port=0, family=0):  # noqa: ARG002
            return [
                {
                    "hostname": host,
                    "host": "127.0.0.1",
                    "port": port,
                    "family": socket.AF_INET,
                    "proto": 0,
                    "flags": 0,
                }
            ]

    async def attack():
        async with receiving(answering()) as inside:
            guard = Careless(AddressPolicy(ports=frozenset({inside.port}), allow_http=True))
            sender = Sender(guard)
            attempt = await send_on(sender, inside.url(host="name.example"))
            await sender.close()
            return attempt, inside.connections

    with recorded_connects() as connects:
        attempt, accepted = asyncio.run(attack())

    assert (accepted, connects, attempt.status) == (0, [], None)


def test_callers_do_not_learn_which_inner_names_exist():
    policy = AddressPolicy()
    texts = set()
    for name in ("nothing.example", "postgres", "metadata", "mixed.example"):
        guard = AddressGuard(policy, said_by_name_servers)
        with pytest.raises(AddressRefusedError) as refused:
            asyncio.run(guard.check(f"https://{name}/"))
        texts.add(str(refused.value))
        texts.add(send(f"https://{name}/", policy, said_by_name_servers).error)

    assert len(texts) == 1


def test_a_receiver_that_says_its_secret_back_does_not_get_it_into_the_log():
    secret = SECRET.get_secret_value()
    spoken = f"bad: {secret}, {secret.removeprefix('whsec_')}."

    async def deliver():
        async with receiving(answering(500, spoken.encode())) as receiver:
            policy = AddressPolicy(allowed=parse_networks("127.0.0.1/32"), allow_http=True)
            sender = Sender(AddressGuard(policy))
            attempt = await send_on(sender, receiver.url())
            await sender.close()
            return attempt

    assert asyncio.run(deliver()).response == "bad: [hidden], [hidden]."


def test_proxies_of_the_environment_are_not_asked(monkeypatch):
    async def deliver():
        async with receiving(answering()) as proxy, receiving(answering()) as receiver:
            for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url())
            monkeypatch.setenv("no_proxy", "")
            policy = AddressPolicy(allowed=parse_networks("127.0.0.1/32"), allow_http=True)
            sender = Sender(AddressGuard(policy))
            attempt = await send_on(sender, receiver.url())
            await sender.close()
            return attempt, proxy.connections

    attempt, proxied = asyncio.run(deliver())
    assert (attempt.status, proxied) == (200, 0)


@pytest.fixture
def certificate(tmp_path):
    """A certificate for receiver.example, as the files of a server."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver.example")])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("receiver.example")]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return pem


def test_a_pinned_connection_keeps_the_name_for_tls_and_host(certificate):
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate)
    names = []
    server_side.sni_callback = lambda _, name, __: names.append(name)
    trust = ssl.create_default_context(cafile=certificate)

    async def look_up(*_):
        return ["127.0.0.1"]

    async def deliver(host):
        async with receiving(answering(), tls=server_side) as receiver:
            policy = AddressPolicy(allowed=parse_networks("127.0.0.0/8"))
            sender = Sender(AddressGuard(policy, look_up), trust=trust)
            attempt = await send_on(sender, receiver.url(host=host, scheme="https"))
            await sender.close()
            return attempt, receiver

    attempt, receiver = asyncio.run(deliver("receiver.example"))
    assert attempt.succeeded, attempt.error
    assert names == ["receiver.example"]
    (request,) = receiver.requests
    assert request.headers["host"] == f"receiver.example:{receiver.port}"
    Webhook(SECRET.get_secret_value()).verify(request.body, request.headers)

    attempt, _ = asyncio.run(deliver("other.example"))
    assert attempt.status is None
    assert "certificate" in attempt.error
