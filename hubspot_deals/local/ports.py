"""TCP ports on the loopback interface."""

import ipaddress
import socket
from collections.abc import Mapping
from itertools import islice
from secrets import SystemRandom
from typing import Final
from urllib.parse import urlsplit

from hubspot_deals.errors import ConfigurationError

LOOPBACK: Final = "127.0.0.1"
DEFAULT_API_PORT: Final = 5000
DEFAULT_DAGSTER_PORT: Final = 3000
_OWN_RANGE: Final = range(20_000, 30_000)


def is_loopback(url: str) -> bool:
    """Tell whether a URL leads to this machine, where no proxy can follow."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port now."""
    with socket.socket() as probe:
        # Servers set this too: without it a port that was closed a moment ago looks busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def is_listening(port: int) -> bool:
    """Tell whether something accepts connections on this port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def free_ports(count: int) -> list[int]:
    """Return that many different free ports.

    None is in a range that systems take the near ends of outgoing connections from (32768 and up):
    between this choice and the server's start, one of those could be given such a port.
    """
    found = (port for port in SystemRandom().sample(_OWN_RANGE, len(_OWN_RANGE)) if is_free(port))
    return list(islice(found, count))


def choose_ports(wanted: Mapping[str, int]) -> list[int]:
    """Return a port for each option: the wanted one, or any free one for 0.

    Raises ConfigurationError for a port that is taken, or wanted twice.
    """
    spare = iter(free_ports(len(wanted)))
    chosen: list[int] = []
    for option, port in wanted.items():
        if port in chosen or (port and not is_free(port)):
            msg = f"Port {port} is in use: stop what listens there, or choose another {option}."
            raise ConfigurationError(msg)
        chosen.append(port or next(spare))
    return chosen
