"""What there is while the API is fuzzed: some things that nobody changes, and fresh ones to change.

Each process of Schemathesis makes its own fresh ones, right before the request about them.
"""

import itertools
import os
import random

import psycopg
from psycopg.types.json import Jsonb

from tests.integration.access_cases import add_completed_scan, add_connection, add_webhook
from tests.integration.test_api_control import FACTS, put_scan

STATUSES = tuple(FACTS)
OF_EACH = 4
COMPLETED = tuple(f"kept-completed-{number}" for number in range(OF_EACH))
KEPT_SCANS = (*COMPLETED, *(f"kept-{status}" for status in STATUSES))
KEPT = {
    "connection_id": "kept_connection",
    "webhook_id": f"wh_{'a' * 32}",
    "delivery_id": f"dlv_{'a' * 32}",
}
ALL_KEPT = frozenset({*KEPT_SCANS, *KEPT.values()})
ORGANIZATION = "org-1"


def add_kept(database):
    """Store what requests that only read are about."""
    for scan_id in COMPLETED:
        add_completed_scan(database, scan_id)
    for status in STATUSES:
        put_scan(database, status, f"kept-{status}")
    add_connection(database, KEPT["connection_id"])
    _add_delivered_webhook(database, KEPT["webhook_id"], KEPT["delivery_id"])


class Supply:
    """Ids to put in the place of generated ones; `url` is that of the database."""

    def __init__(self, url):
        self._database = psycopg.connect(url, autocommit=True)
        self._numbers = itertools.count(os.getpid() << 32)

    def ids(self, names, luck, *, are_to_change):
        """Return an id of something that exists for each of these path parameters."""
        ids = self._fresh(names, luck) if are_to_change else self._kept(luck)
        return {name: value for name, value in ids.items() if name in names}

    def _kept(self, luck):
        first, second = luck.sample(COMPLETED, 2)
        scan_id = first if luck.random() < 0.8 else luck.choice(KEPT_SCANS)
        return {**KEPT, "scan_id": scan_id, "other_scan_id": second}

    def _fresh(self, names, luck):
        number = next(self._numbers)
        ids = {
            "scan_id": f"fresh-{number}",
            "connection_id": f"fresh_{number}",
            "webhook_id": f"wh_{number:032x}",
            "delivery_id": f"dlv_{number:032x}",
        }
        if "scan_id" in names:
            put_scan(self._database, luck.choice(STATUSES), ids["scan_id"])
        if "connection_id" in names:
            add_connection(self._database, ids["connection_id"])
        if "webhook_id" in names:
            # Of an organization of its own: events of scans go to all webhooks of theirs.
            organization = f"org-{number}"
            _add_delivered_webhook(
                self._database, ids["webhook_id"], ids["delivery_id"], organization
            )
        return ids


def _add_delivered_webhook(database, webhook_id, delivery_id, organization=ORGANIZATION):
    add_webhook(database, webhook_id, organization)
    database.execute(
        "INSERT INTO hubspot_deals.webhook_events (event_id, organization_id, type, data)"
        " VALUES (%s, %s, 'scan.completed', %s)",
        (f"msg_{delivery_id}", organization, Jsonb({})),
    )
    database.execute(
        "INSERT INTO hubspot_deals.webhook_deliveries (delivery_id, webhook_id, event_id, status)"
        " VALUES (%s, %s, %s, 'delivered')",
        (delivery_id, webhook_id, f"msg_{delivery_id}"),
    )


def luck_of(*generated):
    """Return a chance that is the same whenever the same is generated."""
    return random.Random(repr(generated))
