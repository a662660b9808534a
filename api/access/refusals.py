"""Writes down some of the requests of nobody: enough to see them, too few to fill a disk."""

import ipaddress
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from starlette.types import Scope

from api.access.trail import AuditTrail
from api.errors import ForbiddenError, UnauthenticatedError
from hubspot_deals.warehouse.audit_log import AuditEntry

_WINDOW_SECONDS: Final = 60.0
MOST_NOTED: Final = 10
"""In a window, each of another address; of the rest, the number follows in one entry."""
_REST: Final = "refused_requests"
_SITE_BITS: Final = 64
"""One customer has as many IPv6 addresses as the rest of the bits can count."""
_LONGEST_HOST: Final = 64


class Refusals:
    """Chooses what is written of one process's 401s, and of 403s where the service is open.

    An entry has the address instead of a name, and nothing of the credential.
    """

    def __init__(self, trail: AuditTrail, clock: Callable[[], float] = time.monotonic) -> None:
        self._trail = trail
        self._clock = clock
        self._began = clock()
        self._sites: set[str] = set()
        self._left_out = 0

    def note(self, entry: AuditEntry, refusal: Exception, scope: Scope) -> None:
        """Note one, unless its address, or enough of them, have been in this minute."""
        status = _STATUSES.get(type(refusal))
        if status is None:  # not the caller's fault
            return
        self._turn(entry)
        site = site_of(scope)
        if site in self._sites or len(self._sites) >= MOST_NOTED:
            self._left_out += 1
            return
        self._sites.add(site)
        self._trail.note(replace(entry, actor=f"address:{site}", outcome="refused", status=status))

    def _turn(self, entry: AuditEntry) -> None:
        """Begin a new minute if it is time, with the number of those that were left out."""
        if self._clock() - self._began < _WINDOW_SECONDS:
            return
        if self._left_out:
            rest = AuditEntry(
                at=entry.at,
                actor="anonymous",
                action=_REST,
                object_id=f"{self._left_out} more",
                outcome="refused",
            )
            self._trail.note(rest)
        self._began, self._left_out = self._clock(), 0
        self._sites.clear()


_STATUSES: Final = {UnauthenticatedError: 401, ForbiddenError: 403}


def site_of(scope: Scope) -> str:
    """Return the address that a request comes from, of IPv6 the network of its customer."""
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host[:_LONGEST_HOST])
    if address.version == 4:  # noqa: PLR2004 - of the protocol
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address.packed, _SITE_BITS), strict=False))
