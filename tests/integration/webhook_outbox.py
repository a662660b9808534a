"""Events of the test's own making, and a deliverer as an API process has one."""

import asyncio
import time
from contextlib import asynccontextmanager

import psycopg
from psycopg.types.json import Jsonb

from api.database import build_pool
from api.webhooks.addresses import AddressGuard, AddressPolicy, parse_networks
from api.webhooks.deliverer import PAUSES, Deliverer
from api.webhooks.sender import Sender, receiver_of
from hubspot_deals.warehouse import deliveries, webhooks
from hubspot_deals.warehouse.credentials import KeyRing
from tests.conftest import TEST_KEYS

KEYS = KeyRing.parse(TEST_KEYS)
POLICY = AddressPolicy(allowed=parse_networks("127.0.0.0/8"), allow_http=True)
SCALE = 1e-4
"""Of the documented 27 hours: ten seconds."""


@asynccontextmanager
async def delivering(settings, *, pauses=PAUSES, scale=SCALE, keys=KEYS, seconds=2, **limits):
    """Run a deliverer as an API process does, with a shorter patience."""
    async with build_pool(settings) as pool:
        deliverer = Deliverer(
            pool,
            keys,
            Sender(AddressGuard(POLICY), seconds=seconds),
            pauses=[pause * scale for pause in pauses],
            **({"concurrency": 64, "log_days": 30} | limits),
        )
        deliverer.start()
        try:
            yield deliverer
        finally:
            await deliverer.close()


class Outbox:
    """The test's own hands on the database."""

    def __init__(self, database_url):
        self._url = database_url
        self.secrets = {}

    async def subscribe(self, url, organization="org-1", events=("*",)):
        new = webhooks.NewWebhook(
            organization_id=organization,
            url=url,
            receiver=receiver_of(POLICY.parse(url)),
            events=events,
            description=None,
            enabled=True,
        )
        async with await self.connect() as connection:
            created, secret = await webhooks.create_webhook(connection, new, KEYS)
        self.secrets[created.webhook_id] = secret.get_secret_value()
        return created.webhook_id

    async def note(self, count, organization="org-1", event_type="scan.completed"):
        data = Jsonb({"scanId": "scan-1", "organizationId": organization})
        async with await self.connect() as connection:
            await connection.execute(
                "SELECT hubspot_deals.note_event(%s, %s, %s::jsonb || jsonb_build_object('n', n))"
                " FROM generate_series(1, %s) n",
                (organization, event_type, data, count),
            )

    async def rows(self, statement, *values):
        async with await self.connect() as connection:
            return await (await connection.execute(statement, values)).fetchall()

    async def change(self, statement, *values):
        async with await self.connect() as connection:
            await connection.execute(statement, values)

    async def log(self, webhook_id):
        async with await self.connect() as connection:
            found, _ = await deliveries.page_of_deliveries(
                connection, webhook_id, status=None, limit=10_000
            )
        return found

    async def wait_until_settled(self, seconds=150):
        deadline = time.monotonic() + seconds
        pending = "SELECT count(*) FROM hubspot_deals.webhook_deliveries WHERE status = 'pending'"
        while (await self.rows(pending))[0][0]:
            assert time.monotonic() < deadline, await self.rows(
                "SELECT webhook_id, status, tries, count(*), min(next_attempt_at), now()"
                " FROM hubspot_deals.webhook_deliveries GROUP BY 1, 2, 3"
            )
            await asyncio.sleep(0.1)

    async def connect(self):
        return await psycopg.AsyncConnection.connect(self._url, autocommit=True)


async def until(is_met, seconds=20):
    deadline = time.monotonic() + seconds
    while not is_met():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
