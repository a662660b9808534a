"""Which requests are let in without a credential where `HUBSPOT_DEALS_AUTH_MODE=open`.

Only those that were made on this machine. How the server was bound is read from each connection,
so that no setting can be wrong about it.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from api.settings import ApiSettings
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.settings import PREFIX

_FORWARDED: Final = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
)
"""What proxies add: behind one, every caller seems to be on this machine."""


def check_mode(settings: ApiSettings) -> None:
    """Raise ConfigurationError where callers of a production service would not be asked."""
    if settings.environment == "production" and settings.auth_mode == "open":
        msg = (
            f"{PREFIX}AUTH_MODE=open is not for {PREFIX}ENVIRONMENT=production: leave it out, and "
            "make a key with `hubspot-deals keys create`."
        )
        raise ConfigurationError(msg)


def is_from_this_machine(scope: Scope) -> bool:
    """Tell whether both ends of a connection are on loopback, and nobody stands in between.

    A page of a foreign site that a browser of this machine shows is such a somebody: it says so in
    `Origin`, or in `Host` when its name was made to lead here.
    """
    headers = Headers(scope=scope)
    addresses = (scope.get("server"), scope.get("client"))
    return (
        all(address is not None and is_loopback(address[0]) for address in addresses)
        and not any(name in headers for name in _FORWARDED)
        and _are_local([f"//{host}" for host in headers.getlist("host")])
        and _are_local(headers.getlist("origin"))
        and headers.get("sec-fetch-site", "none") in {"none", "same-origin", "same-site"}
    )


def is_loopback(host: str | None) -> bool:
    """Tell whether a name or address is this machine's own."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _are_local(urls: Iterable[str]) -> bool:
    return all(is_loopback(_host_of(url)) for url in urls)


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
