"""Callers and scans for tests of who may call what."""

import hashlib
import itertools
import re

from psycopg.types.json import Jsonb

from tests.integration.test_api_results import add_chunk, add_deal, add_scan, add_table

_numbers = itertools.count(1)


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


def start_body(scan_id, organization):
    return {
        "config": {
            "scanId": scan_id,
            "organizationId": organization,
            "type": ["user"],
            "auth": {"accessToken": "pat-na1-xxxxxxxx"},
        }
    }


def told(answer, scan_id):
    """Everything that an answer says, but what differs between any two answers."""
    text = answer.text.replace(scan_id, "ID")
    text = re.sub(r'"(request_id|timestamp)":"[^"]+"', "", text)
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in {"date", "x-request-id"}
    }
    return answer.status_code, headers, text
