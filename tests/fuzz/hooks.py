"""Lets half of the generated requests be about what exists; `schemathesis` imports this.

Nearly everything that is only generated is refused: nothing behind the refusal would be tried.
"""

import atexit
import json
import os
from collections import Counter
from pathlib import Path

import schemathesis
from schemathesis.generation.meta import TestPhase

from hubspot_sandbox.testing import GOOD_TOKEN
from tests.fuzz.things import ALL_KEPT, ORGANIZATION, Supply, luck_of

GIVEN = os.environ  # noqa: TID251 - this program is started with them
SUPPLY = Supply(GIVEN["FUZZ_DATABASE_URL"])
COUNTED = Counter()
PLAIN = {"tableName", "organizationId", "limit", "format", "raw", "summary", "status"}
"""Parameters whose values do not depend on other answers or on one another."""


@schemathesis.hook
def before_call(context, case, kwargs):
    """Put known values into every second request, chosen by what was generated."""
    luck = luck_of(case.method, case.path_parameters, case.query, case.body)
    ids = case.path_parameters or {}
    changes = case.method.upper() not in {"GET", "HEAD", "OPTIONS"}
    takes_known = luck.random() < 0.5
    # The ids of the stateful phase come from earlier answers, and some are of what is kept.
    would_spoil = changes and not ALL_KEPT.isdisjoint(map(str, ids.values()))
    if would_spoil or (takes_known and ids and case.meta.phase.name is not TestPhase.STATEFUL):
        ids.update(SUPPLY.ids(set(ids), luck, are_to_change=changes))
    if not takes_known:
        return
    if isinstance(case.query, dict):
        put_known_parameters(case.query, luck)
    if isinstance(case.body, dict):
        put_known_fields(case.body, luck)
        if "/connections" in case.operation.path:
            # Asking HubSpot takes a process and a second.
            case.body["check"] = luck.random() < 0.02


@schemathesis.hook
def after_call(context, case, response):
    """Count an answer."""
    COUNTED[case.method.upper(), case.operation.path, response.status_code] += 1


@atexit.register
def write_counts():
    """Tell the test how often each operation gave each status."""
    rows = [[*key, count] for key, count in COUNTED.items()]
    Path(GIVEN["FUZZ_COUNTS"]).write_text(json.dumps(rows))


def put_known_parameters(query, luck):
    """Name a table and an organization that there are, and mostly ask for nothing special."""
    if "tableName" in query:
        query["tableName"] = "deals"
    if "organizationId" in query:
        query["organizationId"] = ORGANIZATION
    if luck.random() < 0.7:
        for name in query.keys() - PLAIN:
            del query[name]


def put_known_fields(body, luck):
    """Name a token that the sandbox takes, a receiver that may be one, a place that exists."""
    number = luck.getrandbits(32)
    config = body["config"] if isinstance(body.get("config"), dict) else {}
    for part in (body, config):
        replace(part, organizationId=f"org-{number}", scanId=f"scan-{number}")
        replace(part, connectionId=f"connection_{number}", url=f"https://93.184.216.34/{number}")
        if isinstance(part.get("auth"), dict):
            part["auth"]["accessToken"] = GOOD_TOKEN
    if luck.random() < 0.7:
        for name in ("filters", "dateRange", "user_upns"):
            config.pop(name, None)
    if isinstance(body.get("settings"), dict):
        body["settings"] |= {"timeZone": "Europe/Berlin", "startDate": "2026-01-01"}


def replace(part, **known):
    """Put in what is known of the fields that a part of a request has."""
    part |= {name: known[name] for name in known.keys() & part.keys()}
