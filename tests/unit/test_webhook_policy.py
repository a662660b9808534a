"""Which addresses and URLs a webhook may have, decided without asking anybody."""

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from api.webhooks.addresses import (
    AddressGuard,
    AddressPolicy,
    AddressRefusedError,
    is_public,
    parse_networks,
)
from hubspot_deals.errors import ConfigurationError

PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    ("url", "ports", "permitted"),
    [
        ("https://public.example/", "443", True),
        ("https://public.example:8443/x?y=z", "443,8443", True),
        ("https://public.example:22/", "443", False),
        ("https://public.example:0/", "443", False),
        ("https://public.example:65536/", "443", False),
        ("http://public.example/", "80,443", False),
        (f"https://{PUBLIC}/", "443", True),
        ("https://[2606:4700::1111]/", "443", True),
        ("https://PUBLIC.example/", "443", True),
        ("https://user:password@public.example/", "443", False),
        ("https://public.example/#fragment", "443", False),
        (f"https://public.example/{'x' * 2_048}", "443", False),
        ("https://public.example/line\nbreak", "443", False),
        ("https://inner.example:9999/", "443", True),
    ],
)
def test_what_may_be_subscribed(url, ports, permitted):
    async def look_up(host, _):
        return {"inner.example": ["10.1.2.3"]}.get(host, [PUBLIC])

    policy = AddressPolicy(
        allowed=parse_networks("10.0.0.0/8"), ports=frozenset(map(int, ports.split(",")))
    )
    try:
        asyncio.run(AddressGuard(policy, look_up).check(url))
    except AddressRefusedError:
        assert not permitted
    else:
        assert permitted


def test_no_setting_opens_metadata_services_or_what_is_no_host():
    policy = AddressPolicy(allowed=parse_networks("0.0.0.0/0,::/0"), allow_http=True)
    for text in (
        "169.254.169.254",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fe80::a9fe:a9fe",
        "0.0.0.0",
        "::",
        "ff02::1",
        # The same ones in disguise.
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "::ffff:0.0.0.0",
    ):
        assert not policy.permits(ip_address(text), 80), text
    for text in ("10.0.0.1", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"):
        assert policy.permits(ip_address(text), 80), text


def test_a_gateway_to_ipv4_that_is_allowed_opens_nothing_behind_it_that_is_not():
    """A cluster with IPv6 alone reaches IPv4 receivers by NAT64, and its operator says so."""
    policy = AddressPolicy(allowed=parse_networks("64:ff9b::/96,10.1.0.0/16"))
    assert policy.permits(ip_address("64:ff9b::8.8.8.8"), 443)
    assert policy.permits(ip_address("64:ff9b::10.1.2.3"), 9999)
    for text in ("127.0.0.1", "10.2.0.1", "192.168.0.1", "169.254.169.254"):
        assert not policy.permits(ip_address(f"64:ff9b::{text}"), 443), text


def test_what_python_calls_private_is_never_public():
    """Our own table against the one of the standard library, at the borders of its networks."""
    from ipaddress import _IPv4Constants, _IPv6Constants  # noqa: PLC0415

    networks = [*_IPv4Constants._private_networks, *_IPv6Constants._private_networks]
    assert len(networks) > 20
    for network in networks:
        for number in (int(network[0]), int(network[-1])):
            kind = IPv4Address if network.version == 4 else IPv6Address
            assert not is_public(kind(number)), kind(number)
    for text in ("8.8.8.8", "1.1.1.1", PUBLIC, "2606:4700::1111", "2a00:1450:4001::1"):
        assert is_public(ip_address(text)), text


@pytest.mark.parametrize("text", ["10.0.0.0/33", "ten", "10.0.0.1/8"])
def test_networks_that_are_none_are_named(text):
    with pytest.raises(ConfigurationError, match="WEBHOOK_ALLOWED_NETWORKS"):
        parse_networks(text)
    assert parse_networks(" 10.0.0.0/8, fd00::/8,") == (
        ip_network("10.0.0.0/8"),
        ip_network("fd00::/8"),
    )
