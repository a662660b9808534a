"""What is to be sent to webhooks: looked up and replayed by callers, claimed by whoever sends it.

A sender has what it claims to itself for a time. If it dies, the delivery is due again by itself,
under the same `webhook-id`: everything is sent at least once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from hubspot_deals.errors import DeliveryNotFoundError, WebhookDisabledError
from hubspot_deals.warehouse.states import HAS_CRASHED, IS_VISIBLE
from hubspot_deals.warehouse.webhooks import TEST_TYPE, get_webhook

CLAIM_SECONDS: Final = 45
"""How long a sender has a delivery to itself; more than an attempt can take."""
_MOST_ATTEMPTS_KEPT: Final = 30
_SWEEP_ROWS: Final = 1_000

_COLUMNS: Final = """
    d.seq, d.delivery_id, d.webhook_id, d.event_id, d.status, d.tries, d.next_attempt_at,
    d.created_at, d.ended_at, d.attempts, e.type, e.occurred_at, e.data
"""

# Of each receiver, and of each organization, only so many at once: one that is slow, or has a lot
# to be told, holds nobody else up. Whoever looks at the same time skips what is being claimed.
_CLAIM: Final = f"""
    WITH due AS (
        SELECT d.seq, d.next_attempt_at, w.receiver, w.organization_id,
            row_number() OVER (PARTITION BY w.receiver ORDER BY d.next_attempt_at)
                + coalesce((%(receivers)s::jsonb ->> w.receiver)::int, 0) AS of_receiver
        FROM hubspot_deals.webhooks w CROSS JOIN LATERAL (
            SELECT d.seq, d.next_attempt_at FROM hubspot_deals.webhook_deliveries d
            WHERE d.webhook_id = w.webhook_id AND d.status = 'pending'
            AND d.next_attempt_at <= now() ORDER BY d.next_attempt_at LIMIT %(per_receiver)s
        ) d WHERE w.enabled
    ), allowed AS (
        SELECT seq, next_attempt_at, row_number() OVER (
                PARTITION BY organization_id ORDER BY next_attempt_at)
            + coalesce((%(organizations)s::jsonb ->> organization_id)::int, 0) AS of_organization
        FROM due WHERE of_receiver <= %(per_receiver)s
    ), claimed AS MATERIALIZED (
        SELECT d.seq FROM hubspot_deals.webhook_deliveries d WHERE d.seq IN (
            SELECT seq FROM allowed WHERE of_organization <= %(per_organization)s
            ORDER BY next_attempt_at LIMIT %(limit)s
        ) AND d.status = 'pending' AND d.next_attempt_at <= now() FOR UPDATE SKIP LOCKED
    )
    UPDATE hubspot_deals.webhook_deliveries d
    SET next_attempt_at = now() + interval '{CLAIM_SECONDS} seconds'
    FROM claimed, hubspot_deals.webhook_events e, hubspot_deals.webhooks w
    WHERE d.seq = claimed.seq AND e.event_id = d.event_id AND w.webhook_id = d.webhook_id
    RETURNING d.seq, d.webhook_id, w.organization_id, w.receiver, w.url, d.event_id, e.type,
        e.occurred_at, e.data, d.tries, d.next_attempt_at AS claimed_until, (
            SELECT s.request_id FROM hubspot_deals.scans s WHERE s.scan_id = e.data ->> 'scanId'
        ) AS request_id
"""

_RECORD: Final = f"""
    UPDATE hubspot_deals.webhook_deliveries SET status = %(status)s, tries = tries + 1,
        next_attempt_at = now() + make_interval(secs => %(pause)s),
        ended_at = CASE WHEN %(status)s <> 'pending' THEN now() END,
        attempts = CASE WHEN jsonb_array_length(attempts) >= {_MOST_ATTEMPTS_KEPT}
            THEN attempts - 0 ELSE attempts END || %(attempt)s
    WHERE seq = %(seq)s AND (status = 'pending' AND next_attempt_at = %(claimed_until)s
        OR %(status)s = 'delivered' AND status <> 'delivered')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An event for one webhook, and what became of it."""

    seq: int
    delivery_id: str
    webhook_id: str
    event_id: str
    status: str
    tries: int
    next_attempt_at: datetime
    created_at: datetime
    ended_at: datetime | None
    attempts: list[dict[str, Any]]
    type: str
    occurred_at: datetime
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DueDelivery:
    """A delivery that is claimed, with all that sending it takes but the secrets."""

    seq: int
    webhook_id: str
    organization_id: str
    receiver: str
    url: str
    event_id: str
    type: str
    occurred_at: datetime
    data: dict[str, Any]
    tries: int
    claimed_until: datetime
    request_id: str | None = None
    """Of the request that the scan is from; None where it is of no scan, or of one removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may be under way at once, with what this sender already has under way."""

    limit: int
    per_receiver: int
    per_organization: int
    receivers: Mapping[str, int]
    organizations: Mapping[str, int]


async def page_of_deliveries(
    connection: AsyncConnection[Any],
    webhook_id: str,
    *,
    status: str | None,
    limit: int,
    before: int | None = None,
) -> tuple[list[Delivery], int]:
    """Return a webhook's deliveries, newest first, from below a `seq` on, and the number of all."""
    of = "d.webhook_id = %(webhook)s" + (" AND d.status = %(status)s" if status else "")
    older = "" if before is None else "AND d.seq < %(before)s"
    values = {"webhook": webhook_id, "status": status, "limit": limit, "before": before}
    cursor = connection.cursor(row_factory=class_row(Delivery))
    await cursor.execute(
        f"SELECT {_COLUMNS} FROM hubspot_deals.webhook_deliveries d"
        f" JOIN hubspot_deals.webhook_events e USING (event_id) WHERE {of} {older}"
        " ORDER BY d.seq DESC LIMIT %(limit)s",
        values,
    )
    found = await cursor.fetchall()
    counter = connection.cursor(row_factory=scalar_row)
    await counter.execute(
        f"SELECT count(*) FROM hubspot_deals.webhook_deliveries d WHERE {of}", values
    )
    return found, await counter.fetchone() or 0


async def get_delivery(
    connection: AsyncConnection[Any], webhook_id: str, delivery_id: str
) -> Delivery:
    """Return one delivery of a webhook; raises DeliveryNotFoundError."""
    cursor = connection.cursor(row_factory=class_row(Delivery))
    await cursor.execute(
        f"SELECT {_COLUMNS} FROM hubspot_deals.webhook_deliveries d"
        " JOIN hubspot_deals.webhook_events e USING (event_id)"
        " WHERE d.webhook_id = %s AND d.delivery_id = %s",
        (webhook_id, delivery_id),
    )
    if (found := await cursor.fetchone()) is None:
        raise DeliveryNotFoundError(delivery_id)
    return found


async def send_test(
    connection: AsyncConnection[Any], webhook_id: str, data: Mapping[str, Any]
) -> Delivery:
    """Write a test event for one webhook, whatever it subscribes to.

    Raises WebhookNotFoundError or WebhookDisabledError.
    """
    await _require_enabled(connection, webhook_id)
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute(
        "WITH event AS (INSERT INTO hubspot_deals.webhook_events (organization_id, type, data)"
        " SELECT organization_id, %(type)s, %(data)s FROM hubspot_deals.webhooks"
        " WHERE webhook_id = %(webhook)s RETURNING event_id)"
        " INSERT INTO hubspot_deals.webhook_deliveries (webhook_id, event_id)"
        " SELECT %(webhook)s, event_id FROM event RETURNING delivery_id",
        {"type": TEST_TYPE, "data": Jsonb(data), "webhook": webhook_id},
    )
    return await get_delivery(connection, webhook_id, str(await cursor.fetchone()))


async def replay(connection: AsyncConnection[Any], webhook_id: str, delivery_id: str) -> Delivery:
    """Let a delivery begin anew, at once; the receiver sees the same `webhook-id`.

    Raises WebhookNotFoundError, DeliveryNotFoundError or WebhookDisabledError.
    """
    await _require_enabled(connection, webhook_id)
    await connection.execute(
        "UPDATE hubspot_deals.webhook_deliveries SET status = 'pending', tries = 0,"
        " next_attempt_at = now(), ended_at = NULL WHERE webhook_id = %s AND delivery_id = %s",
        (webhook_id, delivery_id),
    )
    return await get_delivery(connection, webhook_id, delivery_id)


async def _require_enabled(connection: AsyncConnection[Any], webhook_id: str) -> None:
    if not (await get_webhook(connection, webhook_id)).enabled:
        raise WebhookDisabledError(webhook_id)


async def claim_due(connection: AsyncConnection[Any], limits: Limits) -> list[DueDelivery]:
    """Claim what is to be sent now, within the limits, the longest due first."""
    cursor = connection.cursor(row_factory=class_row(DueDelivery))
    await cursor.execute(
        _CLAIM,
        {
            "limit": limits.limit,
            "per_receiver": limits.per_receiver,
            "per_organization": limits.per_organization,
            "receivers": Jsonb(dict(limits.receivers)),
            "organizations": Jsonb(dict(limits.organizations)),
        },
    )
    return sorted(await cursor.fetchall(), key=lambda due: due.seq)


async def record_attempt(
    connection: AsyncConnection[Any],
    due: DueDelivery,
    attempt: Mapping[str, Any],
    *,
    status: str,
    pause_seconds: float = 0.0,
) -> None:
    """Write down an attempt and what follows from it, unless somebody else has it by now.

    `status`: `delivered`, `dead`, or `pending` for another attempt after the pause.
    """
    await connection.execute(
        _RECORD,
        {
            "seq": due.seq,
            "status": status,
            "pause": pause_seconds,
            "attempt": Jsonb([attempt]),
            "claimed_until": due.claimed_until,
        },
    )


async def release(connection: AsyncConnection[Any], claimed: Sequence[DueDelivery]) -> None:
    """Give up claims, so that another sender goes on at once."""
    await connection.execute(
        "UPDATE hubspot_deals.webhook_deliveries d SET next_attempt_at = now()"
        " FROM unnest(%s::bigint[], %s::timestamptz[]) AS c (seq, claimed_until)"
        " WHERE d.seq = c.seq AND d.status = 'pending' AND d.next_attempt_at = c.claimed_until",
        ([due.seq for due in claimed], [due.claimed_until for due in claimed]),
    )


async def note_crashed_scans(connection: AsyncConnection[Any]) -> None:
    """Tell webhooks of scans whose worker is gone and that nobody resumes, once for each crash."""
    # An UPDATE is exact where a SELECT may catch a worker that is just ending its scan.
    await connection.execute(
        "UPDATE hubspot_deals.scans s SET crash_noted_epoch = s.epoch"
        f" WHERE {IS_VISIBLE} AND s.crash_noted_epoch IS DISTINCT FROM s.epoch AND EXISTS ("
        "SELECT FROM hubspot_deals.webhooks w WHERE w.organization_id = s.organization_id"
        f" AND w.enabled) AND {HAS_CRASHED}"
    )


async def sweep(connection: AsyncConnection[Any], *, log_days: int) -> None:
    """Give up what nobody may be sent any more, and forget what ended so many days ago."""
    await connection.execute(
        "UPDATE hubspot_deals.webhook_deliveries d SET status = 'dead', ended_at = now()"
        " WHERE d.status = 'pending' AND NOT EXISTS (SELECT FROM hubspot_deals.webhooks w"
        " WHERE w.webhook_id = d.webhook_id AND w.enabled)"
    )
    ended = 1
    while ended:
        deleted = await connection.execute(
            "DELETE FROM hubspot_deals.webhook_deliveries WHERE seq IN ("
            "SELECT seq FROM hubspot_deals.webhook_deliveries WHERE status <> 'pending'"
            " AND ended_at < now() - make_interval(days => %s) ORDER BY ended_at LIMIT %s"
            " FOR UPDATE SKIP LOCKED)",
            (log_days, _SWEEP_ROWS),
        )
        ended = deleted.rowcount
    # Events of a transaction that has not committed yet are not seen here.
    await connection.execute(
        "DELETE FROM hubspot_deals.webhook_events e WHERE NOT EXISTS ("
        "SELECT FROM hubspot_deals.webhook_deliveries d WHERE d.event_id = e.event_id)"
    )
