"""Why a connection or one of its syncs can fail; the roots are in `errors.py`.

TransientError
├── SyncBusyError
├── SyncSupersededError
└── SyncInterruptedError
PermanentError
├── ConnectionNotFoundError
├── ConnectionExistsError
├── ConnectionPausedError
├── ConnectionPartitionsError
├── ConnectionAccountError
├── WrongPortalError
└── PortalTakenError
"""

from hubspot_deals.errors import PermanentError, TransientError


class ConnectionNotFoundError(PermanentError):
    """No connection has this id."""

    def __init__(self, connection_id: str) -> None:
        self.connection_id = connection_id
        super().__init__(f"No connection found with ID: {connection_id}")


class ConnectionExistsError(PermanentError):
    """The connection id is taken, or the organization has connected this account already."""

    def __init__(self, connection_id: str, message: str) -> None:
        self.connection_id = connection_id
        super().__init__(message)


class ConnectionPausedError(PermanentError):
    """A sync was asked for of a connection that rests."""

    def __init__(self, connection_id: str) -> None:
        self.connection_id = connection_id
        super().__init__(f"Connection '{connection_id}' is paused; resume it to have it synced")


class ConnectionPartitionsError(PermanentError):
    """A change would take away partitions that runs have filled."""

    def __init__(self, connection_id: str, change: str) -> None:
        self.connection_id = connection_id
        super().__init__(
            f"Connection '{connection_id}' has been synced, so {change}: its partitions would no "
            "longer be those that its runs have filled. Create another connection with the new "
            "settings and remove this one"
        )


class ConnectionAccountError(PermanentError):
    """An access token is of another HubSpot account than the connection."""

    def __init__(self, connection_id: str, portal_id: int, other: int) -> None:
        self.connection_id = connection_id
        super().__init__(
            f"Connection '{connection_id}' is of HubSpot account {portal_id}, and this access "
            f"token of account {other}. Create another connection for that one"
        )


class SyncBusyError(TransientError):
    """Another run of the connection is at work."""

    def __init__(self, connection_id: str) -> None:
        self.connection_id = connection_id
        super().__init__(
            f"Connection {connection_id} is being synchronized by another run; "
            "this one may begin when that has ended."
        )


class SyncSupersededError(TransientError):
    """The lease of a sync is lost: another run has taken over, or the connection is gone."""

    def __init__(self, connection_id: str, epoch: int) -> None:
        self.connection_id = connection_id
        super().__init__(
            f"Connection {connection_id}, epoch {epoch}: another run works on it, or it was "
            "paused or removed; nothing more is written."
        )


class SyncInterruptedError(TransientError):
    """PostgreSQL broke off while a connection was synchronized."""

    def __init__(self, connection_id: str, reason: str) -> None:
        self.connection_id = connection_id
        super().__init__(
            f"PostgreSQL broke off while connection {connection_id} was synchronized: "
            f"{' '.join(reason.split())}. What was committed is kept; the next run goes on."
        )


class WrongPortalError(PermanentError):
    """The token of a connection is of another HubSpot account than the one it has kept."""

    def __init__(self, connection_id: str, expected: int | None, found: int | None) -> None:
        self.connection_id = connection_id
        super().__init__(
            f"The access token of connection {connection_id} belongs to HubSpot account {found}, "
            f"but its tables hold account {expected}. Give it a token of that account, or connect "
            "the other one as a connection of its own."
        )


class PortalTakenError(PermanentError):
    """The token of a connection is of an account that another connection keeps current."""

    def __init__(self, connection_id: str, portal_id: int, other: str) -> None:
        self.connection_id = connection_id
        super().__init__(
            f"The access token of connection {connection_id} belongs to HubSpot account "
            f"{portal_id}, which connection {other} of this organization keeps current already. "
            f"Remove one of the two, or give connection {connection_id} a token of another account."
        )
