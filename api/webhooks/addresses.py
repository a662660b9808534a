"""Where webhooks may be sent: no address inside this network can be reached, however it is spelt.

A URL is checked for its form, every address of its host for what it is, and then each socket once
more for the address that it is about to connect to. Only what was checked is connected to: a name
is looked up once for each delivery, and the connector asks nobody else.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from hubspot_deals.errors import ConfigurationError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host; raises OSError."""

_MOST_URL: Final = 2_048
_LOOKUP_THREADS: Final = 32
"""Names whose servers never answer wait here, and keep nothing else of this process waiting."""
_LOOKUP_SECONDS: Final = 5
_HOST: Final = re.compile(
    r"(?=.{1,253}\.?$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
    r"(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?",
    re.ASCII,
)
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
"""A last label of this form makes resolvers read the whole host as an IPv4 address."""

# Special-purpose addresses by IANA's registries, written out so that they do not depend on the
# version of Python, and Azure's host, which is public only by its looks.
_NOT_PUBLIC_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Everything else in IPv6 is loopback, private, link-local, multicast or IPv4 in disguise: mapped,
# compatible or by NAT64.
_PUBLIC_V6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo, benchmarks, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
"""Middle of an interface id that has an IPv4 address behind it."""
_NEVER: Final = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "192.0.0.192/32",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/128",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
        "fe80::/10",
        "ff00::/8",
    )
)
"""Metadata services of clouds, and what is no single host: no setting opens these."""
_WITH_V4: Final = tuple(
    (IPv6Network(text), shift)
    for text, shift in (
        ("::/96", 0),
        ("::ffff:0:0/96", 0),
        ("::ffff:0:0:0/96", 0),
        ("64:ff9b::/96", 0),
        ("2002::/16", 80),
    )
)
"""Networks in which systems or gateways take an IPv4 address out of an IPv6 one, and the number of
bits behind it."""
_LOOPBACK_V6: Final = IPv6Address("::1")


class AddressRefusedError(Exception):
    """A URL that nothing is sent to; the text is for whoever subscribes it."""


class UnreachableHostError(AddressRefusedError):
    """A host of which no address, or not every one, may be connected to.

    One text for all reasons: callers must not learn which internal names exist.
    """

    def __init__(self) -> None:
        super().__init__(
            "The host of the URL does not resolve, or not to public addresses alone, or the port "
            "is not one that webhooks are sent to"
        )


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read a comma list of CIDRs; raises ConfigurationError."""
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        msg = f"HUBSPOT_DEALS_WEBHOOK_ALLOWED_NETWORKS must be a comma list of CIDRs: {error}"
        raise ConfigurationError(msg) from None


def parse_ports(text: str) -> frozenset[int]:
    """Read a comma list of ports; raises ConfigurationError."""
    try:
        return frozenset(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        msg = "HUBSPOT_DEALS_WEBHOOK_PORTS must be a comma list of ports, such as 443,8443"
        raise ConfigurationError(msg) from None


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What may be connected to. `allowed` networks are, at any port, although not public."""

    allowed: tuple[Network, ...] = ()
    ports: frozenset[int] = frozenset({443, 8443})
    allow_http: bool = False

    def parse(self, text: str) -> URL:
        """Return the URL as it will be used; raises AddressRefusedError for its form."""
        if not text.isascii() or not text.isprintable() or any(c in text for c in ' \\"<>^`{|}'):
            msg = "URL must consist of printable ASCII characters; write other hosts in Punycode"
            raise AddressRefusedError(msg)
        if len(text) > _MOST_URL:
            msg = f"URL must have at most {_MOST_URL} characters"
            raise AddressRefusedError(msg)
        try:
            url = URL(text)
            port = url.port
        except ValueError:
            msg = "URL is not valid"
            raise AddressRefusedError(msg) from None
        self._check_parts(text, url)
        if not port:
            msg = "URL has no usable port"
            raise AddressRefusedError(msg)
        return url

    def _check_parts(self, text: str, url: URL) -> None:
        schemes = ("https", "http") if self.allow_http else ("https",)
        if url.scheme not in schemes:
            msg = f"URL must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
            raise AddressRefusedError(msg)
        authority = re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0]
        if "@" in authority or url.raw_user is not None or url.raw_password is not None:
            msg = "URL must have no user name and no password"
            raise AddressRefusedError(msg)
        if "#" in text:
            msg = "URL must have no fragment"
            raise AddressRefusedError(msg)
        host = url.raw_host or ""
        # As it was written and as it will be used must be the same host.
        if "%" in authority or not is_host(host) or host not in authority.lower():
            msg = "URL has no host that can be used: a name, or an address in its usual form"
            raise AddressRefusedError(msg)

    def permits(self, address: Address, port: int) -> bool:
        """Tell whether an address may be connected to at a port."""
        if _is_in(address, _NEVER):
            return False
        inner = _v4_inside(address)
        if inner is not None and not self.permits(inner, port):
            return False
        return _is_in(address, self.allowed) or (port in self.ports and is_public(address))


def is_host(host: str) -> bool:
    """Tell whether a host is a name, or an address in the one form that cannot be misread."""
    if ":" in host:
        return _is_address(host) and "%" not in host
    if not _HOST.fullmatch(host):
        return False
    if _NUMERIC.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return _is_address(host)
    return True


def is_public(address: Address) -> bool:
    """Tell whether an address is some host's on the internet."""
    if isinstance(address, IPv4Address):
        return not _is_in(address, _NOT_PUBLIC_V4)
    return (
        address in _PUBLIC_V6
        and not _is_in(address, _NOT_PUBLIC_V6)
        and int(address) >> 32 & 0xFFFFFFFF not in _ISATAP
    )


def _v4_inside(address: Address) -> IPv4Address | None:
    """Return the address that a packet to this one may end up at, if it is another one."""
    if isinstance(address, IPv4Address) or address == _LOOPBACK_V6:
        return None
    for network, shift in _WITH_V4:
        if address in network:
            return IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    return None


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class AddressGuard(AbstractResolver):
    """Looks names up for the connector, and has the last word on every socket."""

    def __init__(self, policy: AddressPolicy, look_up: LookUp | None = None) -> None:
        self.policy = policy
        self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="webhook-lookup")
        self._look_up = look_up or self._ask_the_system

    async def check(self, text: str) -> URL:
        """Return a URL that may be subscribed; raises AddressRefusedError."""
        url = self.policy.parse(text)
        assert url.raw_host is not None  # noqa: S101
        assert url.port is not None  # noqa: S101
        try:
            await self._find(url.raw_host, url.port)
        except OSError:
            raise UnreachableHostError from None
        return url

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the host's addresses; raises OSError unless every one may be connected to."""
        found = await self._find(host, port)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=_family_of(address),
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
            if family in {socket.AF_UNSPEC, _family_of(address)}
        ]

    def make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Make the socket for one connection; raises PermissionError unless it is permitted."""
        family, kind, protocol, _, target = info
        if not self.policy.permits(ip_address(target[0]), target[1]):
            raise PermissionError(str(UnreachableHostError()))
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """Let lookups under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _find(self, host: str, port: int) -> list[Address]:
        texts = [host] if _is_address(host) else await self._look_up_in_time(host, port)
        # A zone, as in fe80::1%eth0, is of link-local addresses only, which are not permitted.
        addresses = [ip_address(text) for text in dict.fromkeys(texts)]
        if not addresses or not all(self.policy.permits(found, port) for found in addresses):
            raise PermissionError(str(UnreachableHostError()))
        return addresses

    async def _look_up_in_time(self, host: str, port: int) -> Sequence[str]:
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                return await self._look_up(host, port)
        except (TimeoutError, UnicodeError) as error:
            raise OSError(str(UnreachableHostError())) from error

    async def _ask_the_system(self, host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(target[0]) for *_, target in found]


def _family_of(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
