"""A simulated account that lives on, and whether a copy of it is the truth."""

from contextlib import contextmanager

from pydantic import SecretStr

from hubspot_deals.source.account import HubSpotAccount
from hubspot_deals.source.client import ConnectionOptions
from hubspot_deals.source.fates import End
from hubspot_sandbox.testing import GOOD_TOKEN
from tests.unit.memory_warehouse import PROPERTIES, STORED

HOUR = 3_600
LAG = 30
BUSY = {"archive": 6, "restore": 4, "merge": 3, "delete": 2, "associate": 0, "bulk": 0.3}
FAST = {"search_lag_seconds": LAG, "burst": 1_000_000, "search_per_second": 10_000}


@contextmanager
def account_of(sandbox):
    options = ConnectionOptions(base_url=sandbox.url, retry_time=5, searches_per_second=10_000)
    with HubSpotAccount(SecretStr(GOOD_TOKEN), options) as account:
        account.check_access()
        yield account


def differences(warehouse, sandbox, *, ignored=frozenset(), names=STORED):
    """What the copy has that is not so, apart from deals that may be on their way."""
    truth = {
        deal["id"]: deal["properties"]
        for deal in sandbox.control.iter_deals(archived=False, properties=PROPERTIES)
    }
    wrong = [f"{one} is missing" for one in truth.keys() - warehouse.deals.keys() - ignored]
    wrong += [f"{one} is too much" for one in warehouse.deals.keys() - truth.keys() - ignored]
    for one in truth.keys() & warehouse.deals.keys() - ignored:
        stored = warehouse.deals[one]
        wrong += [
            f"{one} has {name} {stored[name]!r}, not {truth[one][name]!r}"
            for name in names
            if stored[name] != truth[one][name]
        ]
    return wrong


def wrong_ends(warehouse, sandbox, *, ignored=frozenset()):
    """Tombstones with another reason than the account's own."""
    wrong = []
    fates = sandbox.control.fates()
    for one, (end, _) in warehouse.tombstones.items():
        if one in ignored:
            continue
        fate = fates.get(one, {"reason": "live"})
        right = {
            "archived": {End.ARCHIVED},
            "merged": {End.MERGED},
            "deleted": {End.DELETED},
            "purged": {End.DELETED},
        }.get(fate["reason"], set())
        if fate.get("was_archived"):
            # Whether it was seen in the bin depends on when it was looked for.
            right |= {End.ARCHIVED}
        survivor = fate.get("survivor", one)
        if survivor in fates and fates[survivor]["reason"] in {"deleted", "purged"}:
            # Nothing answers for it any more, so HubSpot does not tell what it was merged into.
            right |= {End.DELETED}
        elif warehouse.survivor(one) != survivor:
            wrong.append((one, end, warehouse.survivor(one), fate))
        if end not in right:
            wrong.append((one, end, fate))
    return wrong
