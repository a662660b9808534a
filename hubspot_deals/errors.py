"""Why a scan can fail, split by whether trying again can help.

    HubSpotDealsError
    ├── TransientError              the same attempt may succeed later
    │   ├── HubSpotUnavailableError
    │   ├── HubSpotBusyError
    │   │   └── HubSpotRateLimitError
    │   ├── LoadFailedError
    │   ├── DatabaseLostError
    │   ├── LeaseLostError
    │   └── ScanPausedError
    └── PermanentError              somebody has to change something first
        ├── ConfigurationError
        ├── HubSpotAuthenticationError
        ├── HubSpotScopeError
        ├── HubSpotRequestError
        ├── HubSpotProtocolError
        ├── CredentialError
        ├── ScanNotFoundError
        ├── ScanExistsError
        ├── ScanActiveError
        ├── IdempotencyConflictError
        ├── ScanBusyError
        ├── ScanSupersededError
        ├── ScanStateError
        ├── ResultsRemovedError
        ├── IncompleteScanError
        ├── DealsMissingError
        ├── WebhookNotFoundError
        ├── DeliveryNotFoundError
        ├── WebhookDisabledError
        └── WebhookLimitError

Those of connections and their syncs are in `sync_errors.py`.

The text of an error says what was attempted, what came back and what to do. No text carries a
credential: errors are stored by Dagster and shown to callers.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

_MOST_NAMED: Final = 20


class HubSpotDealsError(Exception):
    """The root of every error that this product raises on purpose."""


class TransientError(HubSpotDealsError):
    """Trying the same thing again later can help."""


class PermanentError(HubSpotDealsError):
    """Trying again does not help before something is changed."""


class ConfigurationError(PermanentError):
    """A setting is missing or cannot be used; the message names it."""


class HubSpotUnavailableError(TransientError):
    """HubSpot did not give a usable answer within the time allowed for retries."""

    def __init__(self, request: str, last_answer: str, seconds: float) -> None:
        self.request = request
        self.last_answer = last_answer
        self.seconds = seconds
        super().__init__(
            f"HubSpot did not answer {request} usably for {seconds:.0f} s; last: {last_answer}. "
            "Committed rows are kept: run the partition again in Dagster, or start a new scan."
        )


class HubSpotBusyError(TransientError):
    """HubSpot asked not to be asked for longer than the time allowed for retries.

    `free_at` (UTC) is the moment from which on trying again makes sense, where HubSpot told one.
    """

    def __init__(self, request: str, answer: str, free_at: datetime | None) -> None:
        self.request = request
        self.free_at = free_at
        when = f"from {free_at:%Y-%m-%d %H:%M:%S} UTC on" if free_at else "later"
        super().__init__(
            f"HubSpot put {request} off: {answer}. "
            f"Committed rows are kept; the scan can go on {when}."
        )


class HubSpotRateLimitError(HubSpotBusyError):
    """HubSpot refused a request because a budget is used up."""

    def __init__(
        self, request: str, policy: str, free_at: datetime | None = None, *, seconds: float = 0.0
    ) -> None:
        self.policy = policy
        still = f", still after {seconds:.0f} s" if seconds >= 1 else ""
        super().__init__(
            request,
            f"its {policy} limit is used up{still}; "
            "other applications may be using this account's budget",
            free_at,
        )


class HubSpotAuthenticationError(PermanentError):
    """HubSpot did not accept the access token."""

    def __init__(self, request: str, status: int, answer: str) -> None:
        self.request = request
        self.status = status
        super().__init__(
            f"HubSpot rejected the access token at {request} (HTTP {status}: {answer}). "
            "Start a new scan with a valid private-app token."
        )


class HubSpotScopeError(PermanentError):
    """The access token lacks a scope."""

    def __init__(self, request: str, scopes: Sequence[str], answer: str = "") -> None:
        self.request = request
        self.scopes = tuple(scopes)
        self.answer = answer
        said = f" (HTTP 403: {answer})" if answer else ""
        super().__init__(
            f"The access token may not use {request}{said}: "
            f"missing scope {' or '.join(self.scopes)}. "
            "Grant it to the private app in HubSpot and start a new scan."
        )


class HubSpotRequestError(PermanentError):
    """HubSpot refused a request for a reason that repeating it does not change."""

    def __init__(self, request: str, status: int, answer: str, advice: str = "") -> None:
        self.request = request
        self.status = status
        self.answer = answer
        text = f"HubSpot refused {request} (HTTP {status}: {answer})."
        super().__init__(f"{text} {advice}" if advice else text)


class HubSpotProtocolError(PermanentError):
    """HubSpot's answers contradict what its API promises, so reading on would not be exact."""


class LoadFailedError(TransientError):
    """dlt could not load a package."""

    def __init__(self, step: str, reason: str) -> None:
        self.step = step
        # PostgreSQL quotes the offending row from the second line on; that is a customer's data.
        first_line = reason.strip().splitlines()[0] if reason.strip() else "unknown reason"
        super().__init__(
            f"Loading into PostgreSQL failed at dlt's step {step}: {first_line}. "
            "Committed rows are kept; the scan goes on when the database is well."
        )


class DatabaseLostError(TransientError):
    """PostgreSQL broke off while a scan was worked on."""

    def __init__(self, scan_id: str, reason: str) -> None:
        self.scan_id = scan_id
        super().__init__(
            f"PostgreSQL broke off while scan {scan_id} was worked on: {' '.join(reason.split())}. "
            "Committed rows are kept; the scan goes on when the database is well."
        )


class LeaseLostError(TransientError):
    """Another run has taken this scan over; this one may write nothing more."""

    def __init__(self, scan_id: str, epoch: int) -> None:
        self.scan_id = scan_id
        self.epoch = epoch
        super().__init__(
            f"Scan {scan_id} is no longer held by this run (epoch {epoch}); it wrote nothing more."
        )


class ScanPausedError(TransientError):
    """The run has set its scan aside until HubSpot's limit is free again."""

    def __init__(self, scan_id: str, resume_at: datetime) -> None:
        self.scan_id = scan_id
        self.resume_at = resume_at
        super().__init__(
            f"Scan {scan_id} pauses until {resume_at:%Y-%m-%d %H:%M:%S %Z} and goes on by itself."
        )


class CredentialError(PermanentError):
    """A stored credential is missing or cannot be decrypted."""


class ScanNotFoundError(PermanentError):
    """No scan has this id."""

    def __init__(self, scan_id: str) -> None:
        self.scan_id = scan_id
        super().__init__(f"No scan found with ID: {scan_id}")


class ScanExistsError(PermanentError):
    """The scan id is taken."""

    def __init__(self, scan_id: str) -> None:
        self.scan_id = scan_id
        super().__init__(f"A scan with ID '{scan_id}' already exists")


class ScanActiveError(PermanentError):
    """A scan was to be started anew that has not ended."""

    def __init__(self, scan_id: str, status: str) -> None:
        self.scan_id = scan_id
        super().__init__(
            f"Extraction already in progress: the status of scan '{scan_id}' is {status}"
        )


class IdempotencyConflictError(PermanentError):
    """An idempotency key came back with another request."""

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was already used for a different request; use a new key"
        )


class ScanBusyError(PermanentError):
    """Another run is working on this scan right now."""

    def __init__(self, scan_id: str) -> None:
        self.scan_id = scan_id
        super().__init__(f"Scan {scan_id} is being worked on by another run; wait for it to end.")


class ScanSupersededError(PermanentError):
    """This run was launched for a state of the scan that is over."""

    def __init__(self, scan_id: str) -> None:
        self.scan_id = scan_id
        super().__init__(
            f"Scan {scan_id} was already taken up by another launch, so this run has nothing to do."
        )


class ScanStateError(PermanentError):
    """What was asked of a scan is not possible in the state that it is in."""

    def __init__(self, scan_id: str, asked: str, status: str) -> None:
        self.scan_id = scan_id
        self.status = status
        super().__init__(
            f"Scan '{scan_id}' cannot be {asked}: its status is {status}. "
            f"It can be {_POSSIBLE[status]}"
        )


_POSSIBLE: Final = {
    "pending": "paused or cancelled",
    "running": "paused or cancelled",
    "resuming": "paused or cancelled",
    "paused": "resumed or cancelled",
    "crashed": "resumed, cancelled or removed",
    "completed": "removed",
    "failed": "removed",
    "cancelled": "removed",
}


class ResultsRemovedError(PermanentError):
    """The results of a scan were cleaned up."""

    def __init__(self, scan_id: str, removed_at: datetime) -> None:
        self.scan_id = scan_id
        super().__init__(
            f"The results of scan '{scan_id}' were removed on "
            f"{removed_at.astimezone(UTC):%Y-%m-%d}; "
            "start a new scan to have them again"
        )


class IncompleteScanError(PermanentError):
    """What is stored is not what was read, so the scan is not declared complete."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            f"The stored rows do not add up ({'; '.join(faults)}), so the scan is not served. "
            "Run the partition again in Dagster, or start a new scan."
        )


class DealsMissingError(PermanentError):
    """HubSpot has deals that were not read although they were there all the time."""

    def __init__(self, deal_ids: Sequence[int], certificate: Mapping[str, Any]) -> None:
        self.deal_ids = tuple(deal_ids)
        self.certificate = certificate
        named = ", ".join(map(str, self.deal_ids[:_MOST_NAMED]))
        more = ", …" if len(self.deal_ids) > _MOST_NAMED else ""
        super().__init__(
            f"HubSpot has {len(self.deal_ids)} deals that were not read ({named}{more}) although "
            "they are live and have not changed since before the scan began, so the scan is not "
            "served. Run the partition again in Dagster, or start a new scan; if these deals are "
            "missing again, HubSpot leaves them out of its list, and its support has to know."
        )


class WebhookNotFoundError(PermanentError):
    """No webhook has this id."""

    def __init__(self, webhook_id: str) -> None:
        self.webhook_id = webhook_id
        super().__init__(f"No webhook found with ID: {webhook_id}")


class DeliveryNotFoundError(PermanentError):
    """A webhook has no delivery with this id, or not any more."""

    def __init__(self, delivery_id: str) -> None:
        self.delivery_id = delivery_id
        super().__init__(f"No delivery found with ID: {delivery_id}")


class WebhookDisabledError(PermanentError):
    """Something was to be sent to a webhook that is disabled."""

    def __init__(self, webhook_id: str) -> None:
        self.webhook_id = webhook_id
        super().__init__(f"Webhook '{webhook_id}' is disabled; enable it first")


class WebhookLimitError(PermanentError):
    """An organization has as many webhooks as it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"An organization has {limit} webhooks at most; delete one first")
