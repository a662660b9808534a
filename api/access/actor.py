"""Who calls: set once for each request of a known caller, in `request.state.actor`."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import Depends, Request

from api.errors import ForbiddenError
from hubspot_deals.contract import AccessLevel


@dataclass(frozen=True, slots=True)
class Actor:
    """Whom a request is from: `key:1f2e3d4c`, `jwt:SUBJECT`, `open` or `anonymous`."""

    name: str
    organizations: frozenset[str] | None
    """Whose scans it may see; None: everybody's."""
    level: AccessLevel | None
    """What it may do; None: nothing, for nobody knows who it is."""

    def may_see(self, organization_id: str) -> bool:
        """Tell whether an organization's things are there for this caller."""
        return self.organizations is None or organization_id in self.organizations


ANONYMOUS: Final = Actor("anonymous", frozenset(), None)
OPEN: Final = Actor("open", None, AccessLevel.ADMIN)
"""Every caller where `HUBSPOT_DEALS_AUTH_MODE=open` lets it in."""


async def _nothing() -> None:
    return


@dataclass(slots=True)
class Caller:
    """The caller of one request, and what the audit log is to say that the request is about."""

    actor: Actor
    organization_id: str | None = None
    object_id: str | None = None
    scans_read: dict[str, int] = field(default_factory=dict)
    """Numbers (`seq`) of scans that a statement has named which read the answer: it is of them."""
    begin: Callable[[], Awaitable[None]] = field(default=_nothing)
    """Writes down that the request is about to change something."""

    async def act_for(self, organization_id: str, object_id: str | None = None) -> None:
        """Say what a request is about that names the organization itself, and have it noted.

        Raises ForbiddenError unless that is the caller's, whether or not there is such a one.
        """
        self._claim(organization_id)
        self.object_id = object_id
        await self.begin()

    def organizations_within(self, wanted: str | None) -> list[str] | None:
        """Return whose things a list or a sum is over, None for everybody's.

        Raises ForbiddenError when an organization is `wanted` that is not the caller's.
        """
        if wanted is not None:
            self._claim(wanted)
            return [wanted]
        return _in_order(self.actor.organizations)

    @property
    def only_organization(self) -> str | None:
        """The one organization whose things the caller may see, if it is one."""
        own = self.actor.organizations
        return next(iter(own)) if own is not None and len(own) == 1 else None

    def _claim(self, organization_id: str) -> None:
        if not self.actor.may_see(organization_id):
            raise ForbiddenError.of_organization()
        self.organization_id = organization_id


def _in_order(names: Iterable[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


async def get_caller(request: Request) -> Caller:
    """Return who calls."""
    caller: Caller = request.state.caller
    return caller


Calling = Annotated[Caller, Depends(get_caller)]
