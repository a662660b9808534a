"""Sends what the outbox holds, in the background of every API process; they share the work.

Nothing is lost with a process: what it had claimed is due again after a time, or at once when it
ends in order.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection
from pydantic import SecretStr

from api.database import ConnectionPool, read
from api.logs import request_id
from api.tasks import end_tasks
from api.webhooks.sender import Attempt, Sender
from hubspot_deals.errors import CredentialError
from hubspot_deals.warehouse import deliveries, webhooks
from hubspot_deals.warehouse.credentials import KeyRing
from hubspot_deals.warehouse.deliveries import DueDelivery, Limits

logger = logging.getLogger(__name__)

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
PAUSES: Final = (
    5,
    _MINUTE,
    5 * _MINUTE,
    15 * _MINUTE,
    _HOUR,
    2 * _HOUR,
    4 * _HOUR,
    8 * _HOUR,
    12 * _HOUR,
)
"""Seconds between attempts; after the tenth the delivery is dead, 27 hours later."""
_JITTER: Final = 0.2
_LONGEST_WISH: Final = 12 * _HOUR
"""Of a receiver's `Retry-After`."""
PER_RECEIVER: Final = 4
PER_ORGANIZATION: Final = 16

_GONE: Final = 410
_GONE_REASON: Final = "The receiver answered 410 Gone"
_IDLE_SECONDS: Final = 1
_TROUBLE_SECONDS: Final = 5
_CRASH_SECONDS: Final = 15
_SWEEP_SECONDS: Final = 10 * _MINUTE
_LAST_WORDS_SECONDS: Final = 2


class Deliverer:
    """Claims due deliveries, sends them, and writes down what came of it."""

    def __init__(  # noqa: PLR0913 - its collaborators and its limits
        self,
        pool: ConnectionPool,
        keys: KeyRing,
        sender: Sender,
        *,
        concurrency: int,
        log_days: int,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._sender = sender
        self._concurrency = concurrency
        self._log_days = log_days
        self._pauses = tuple(pauses)
        self._in_flight: dict[asyncio.Task[None], DueDelivery] = {}
        self._may_claim = asyncio.Event()
        self._duties: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to deliver, unless this process is not to."""
        if self._concurrency:
            self._duties = [
                asyncio.create_task(self._send_due()),
                asyncio.create_task(_regularly(_CRASH_SECONDS, self._note_crashes)),
                asyncio.create_task(_regularly(_SWEEP_SECONDS, self._sweep)),
            ]

    async def close(self) -> None:
        """Give what is under way a moment, and leave the rest to other processes at once."""
        await end_tasks(self._duties)
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=_LAST_WORDS_SECONDS)
        left = dict(self._in_flight)
        await end_tasks(left)
        if left:
            with _going_on():
                async with self._pool.connection() as connection:
                    await deliveries.release(connection, list(left.values()))
        await self._sender.close()

    async def _send_due(self) -> None:
        while True:
            self._may_claim.clear()
            seconds: float = _TROUBLE_SECONDS
            with _going_on():
                seconds = 0 if await self._claim() else _IDLE_SECONDS
            if seconds:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._may_claim.wait()

    async def _claim(self) -> int:
        """Claim what is due and start sending it; return how much that was."""
        free = self._concurrency - len(self._in_flight)
        if free <= 0:
            return 0
        limits = Limits(
            limit=free,
            per_receiver=PER_RECEIVER,
            per_organization=PER_ORGANIZATION,
            receivers=Counter(due.receiver for due in self._in_flight.values()),
            organizations=Counter(due.organization_id for due in self._in_flight.values()),
        )
        async with self._pool.connection() as connection:
            claimed = await deliveries.claim_due(connection, limits)
            ids = {due.webhook_id for due in claimed}
            sealed = await webhooks.find_signing_secrets(connection, sorted(ids)) if claimed else []
        for due in claimed:
            own = [secret for secret in sealed if secret.webhook_id == due.webhook_id]
            task = asyncio.create_task(self._deliver(due, own))
            self._in_flight[task] = due
            task.add_done_callback(self._end)
        return len(claimed)

    def _end(self, task: asyncio.Task[None]) -> None:
        del self._in_flight[task]
        self._may_claim.set()

    async def _deliver(self, due: DueDelivery, sealed: Sequence[webhooks.SealedSecret]) -> None:
        request_id.set(due.request_id or "")  # of this task alone
        if not sealed:
            return  # the webhook was deleted just now
        # What cannot be written down is sent once more when the claim has run out.
        with _going_on():
            await self._record(due, await self._attempt(due, sealed))

    async def _attempt(self, due: DueDelivery, sealed: Sequence[webhooks.SealedSecret]) -> Attempt:
        try:
            secrets = self._open(sealed)
        except CredentialError:
            text = "The signing secret cannot be decrypted with the service's keys"
            return Attempt(at=datetime.now(UTC), milliseconds=0, error=text)
        return await self._sender.send(due, secrets)

    def _open(self, sealed: Sequence[webhooks.SealedSecret]) -> list[SecretStr]:
        """Decrypt what signs; one that needs a key which is not there is left out if it is old."""
        opened: list[SecretStr] = []
        for secret in sealed:
            try:
                opened.append(secret.open(self._keys))
            except CredentialError:
                if not opened:
                    raise
        return opened

    async def _record(self, due: DueDelivery, attempt: Attempt) -> None:
        status, pause = decide(attempt, due.tries, self._pauses)

        async def note(connection: AsyncConnection[Any]) -> None:
            await deliveries.record_attempt(
                connection, due, attempt.to_json(), status=status, pause_seconds=pause
            )
            if attempt.status == _GONE:
                await webhooks.disable_webhook(
                    connection, due.webhook_id, url=due.url, reason=_GONE_REASON
                )

        # Each of them changes nothing when it is done twice.
        await read(self._pool, note)
        logger.info(
            "webhook %s: %s is %s",
            due.webhook_id,
            due.type,
            status,
            extra={"status": attempt.status, **_ids_of(due)},
        )

    async def _note_crashes(self) -> None:
        async with self._pool.connection() as connection:
            await deliveries.note_crashed_scans(connection)

    async def _sweep(self) -> None:
        async with self._pool.connection() as connection:
            await deliveries.sweep(connection, log_days=self._log_days)


def _ids_of(due: DueDelivery) -> dict[str, str]:
    return {"scan_id": due.data["scanId"]} if "scanId" in due.data else {}


def decide(attempt: Attempt, tries: int, pauses: Sequence[float]) -> tuple[str, float]:
    """Return the delivery's status after an attempt, with `tries` before it, and the pause."""
    if attempt.succeeded:
        return "delivered", 0.0
    if attempt.status == _GONE or tries >= len(pauses):
        return "dead", 0.0
    # Receivers that fail together are not to be asked together again.
    spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - nothing to guess at
    return "pending", max(pauses[tries] * spread, min(attempt.retry_after, _LONGEST_WISH))


async def _regularly(seconds: float, duty: Callable[[], Awaitable[None]]) -> None:
    while True:
        with _going_on():
            await duty()
        await asyncio.sleep(seconds)


@contextmanager
def _going_on() -> Iterator[None]:
    """Tell of whatever goes wrong and go on: deliveries must not end for good."""
    try:
        yield
    except psycopg.Error as error:  # also when the pool has no connection, or tables are missing
        logger.warning("Webhooks wait for the database: %s", type(error).__name__)
    except Exception:
        logger.exception("Webhooks cannot be sent")
