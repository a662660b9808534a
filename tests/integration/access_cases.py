"""Callers and scans for tests of who may call what."""

import hashlib
import itertools
import re
from datetime import date

from psycopg.types.json import Jsonb

from hubspot_deals.sync_contract import SyncSettings
from tests.integration.test_api_results import add_chunk, add_deal, add_scan, add_table

_numbers = itertools.count(1)

MINE = {
    "scan_id": "scan-of-mine1",
    "other_scan_id": "scan-of-mine2",
    "connection_id": "made_by_me",
    "webhook_id": f"wh_{'a' * 32}",
    "delivery_id": f"dlv_{'a' * 32}",
}
"""Of organization `org-1`, in paths by the name of their parameter; others are as long."""
NOWHERE = {
    "scan_id": "there-is-none",
    "other_scan_id": "there-is-none",
    "connection_id": "by_nobody_",
    "webhook_id": f"wh_{'b' * 32}",
    "delivery_id": f"dlv_{'b' * 32}",
}

STANDING = {
    "create_connection",
    "change_connection",
    "remove_connection",
    "create_webhook",
    "change_webhook",
    "delete_webhook",
    "rotate_secret",
}
"""What only an administrator of the organization may do: it goes on when its caller is gone."""


def add_key(database, *, organizations, level="admin", expires="1 day", revoked=False):
    """Store a key and return it, with its public part."""
    number = next(_numbers)
    key_id, secret = f"{number:08x}", f"{number:043d}"
    database.execute(
        "INSERT INTO hubspot_deals.api_keys (key_id, secret_hash, name, organizations, level,"
        " expires_at, revoked_at) VALUES (%s, %s, 'test', %s, %s, now() + %s::interval,"
        " CASE WHEN %s THEN now() END)",
        (
            key_id,
            hashlib.sha256(secret.encode()).digest(),
            organizations,
            level,
            expires,
            revoked,
        ),
    )
    return f"hsd_{key_id}_{secret}", key_id


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def add_completed_scan(database, scan_id, organization="org-1"):
    """Store a completed scan of two deals."""
    add_scan(database, scan_id, outcome="completed")
    database.execute(
        "UPDATE hubspot_deals.scans SET organization_id = %s, config = %s WHERE scan_id = %s",
        (organization, Jsonb({"type": ["user"], "scanId": scan_id}), scan_id),
    )
    add_table(database, scan_id, "deals", 2, ["id", "dealname", "archived", "archivedAt"])
    add_chunk(database, scan_id, "deals", 1, f"load-{scan_id}", first_row=1, rows=2)
    for number in (1, 2):
        add_deal(database, scan_id, number, f"load-{scan_id}")


def add_what_is_mine(database):
    """Store all that `MINE` names."""
    add_completed_scan(database, MINE["scan_id"])
    add_completed_scan(database, MINE["other_scan_id"])
    add_connection(database, MINE["connection_id"])
    add_webhook(database, MINE["webhook_id"])
    database.execute(
        "INSERT INTO hubspot_deals.webhook_events (event_id, organization_id, type, data)"
        " VALUES ('msg_1', 'org-1', 'scan.completed', '{}')"
    )
    database.execute(
        "INSERT INTO hubspot_deals.webhook_deliveries (delivery_id, webhook_id, event_id, status)"
        " VALUES (%s, %s, 'msg_1', 'delivered')",
        (MINE["delivery_id"], MINE["webhook_id"]),
    )


def add_connection(database, connection_id, organization="org-1"):
    settings = SyncSettings(start_date=date(2026, 1, 1)).to_json()
    database.execute(
        "INSERT INTO hubspot_deals.connections (connection_id, organization_id, settings,"
        " request_hash) VALUES (%s, %s, %s, '')",
        (connection_id, organization, Jsonb(settings)),
    )


def add_webhook(database, webhook_id, organization="org-1"):
    database.execute(
        "INSERT INTO hubspot_deals.webhooks (webhook_id, organization_id, url, receiver, events)"
        " VALUES (%s, %s, 'https://example.com/', 'example.com:443', '{*}')",
        (webhook_id, organization),
    )


def start_body(scan_id, organization):
    return {
        "config": {
            "scanId": scan_id,
            "organizationId": organization,
            "type": ["user"],
            "auth": {"accessToken": "pat-na1-xxxxxxxx"},
        }
    }


def told(answer, *ids):
    """Everything that an answer says, but what differs between any two answers."""
    text = answer.text
    for one in ids:
        text = text.replace(one, "ID")
    text = re.sub(r'"(request_id|timestamp)":"[^"]+"', "", text)
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in {"date", "x-request-id"}
    }
    return answer.status_code, headers, text
