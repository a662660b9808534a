"""Which requests of nobody are written down."""

from datetime import UTC, datetime

import pytest

from api.access.refusals import MOST_NOTED, Refusals, site_of
from api.errors import ForbiddenError, KeySetUnavailableError, UnauthenticatedError
from hubspot_deals.warehouse.audit_log import AuditEntry


class Trail:
    def __init__(self):
        self.entries = []

    def note(self, entry):
        self.entries.append(entry)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def from_(host):
    return {"client": (host, 1234)}


@pytest.fixture
def entry():
    return AuditEntry(at=datetime.now(UTC), actor="anonymous", action="list_scans")


def test_each_address_is_noted_once_a_minute_and_only_some_addresses(entry):
    trail, clock = Trail(), Clock()
    refusals = Refusals(trail, clock)
    for number in range(1_000):
        refusals.note(entry, UnauthenticatedError.of_invalid(), from_(f"198.51.100.{number % 250}"))
    assert len(trail.entries) == MOST_NOTED
    assert trail.entries[0].actor == "address:198.51.100.0"
    assert {(one.outcome, one.status) for one in trail.entries} == {("refused", 401)}

    clock.now += 61
    refusals.note(entry, ForbiddenError.in_open_mode(), from_("198.51.100.0"))

    rest, newest = trail.entries[MOST_NOTED:]
    assert (rest.actor, rest.action, rest.object_id, rest.status) == (
        "anonymous",
        "refused_requests",
        f"{1_000 - MOST_NOTED} more",
        None,
    )
    assert (newest.actor, newest.status) == ("address:198.51.100.0", 403)


def test_trouble_of_the_service_is_no_refusal(entry):
    trail = Trail()
    Refusals(trail).note(entry, KeySetUnavailableError(), from_("198.51.100.1"))
    assert trail.entries == []


@pytest.mark.parametrize(
    ("host", "site"),
    [
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("x" * 100, "x" * 64),
    ],
)
def test_an_address_is_that_of_a_customer(host, site):
    assert site_of(from_(host)) == site


def test_a_request_may_have_no_address():
    assert site_of({}) == ""
