"""The paths of each API version, and the budget that each draws on."""

import pytest

from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.governor import Budget

PATHS = {
    "v3": [
        "/crm/v3/objects/deals",
        "/crm/v3/objects/deals/search",
        "/crm/v3/objects/deals/batch/read",
        "/crm/v3/properties/deals",
        "/crm/v3/pipelines/deals",
        "/crm/v3/owners",
        "/account-info/v3/details",
    ],
    "2026-03": [
        "/crm/objects/2026-03/0-3",
        "/crm/objects/2026-03/0-3/search",
        "/crm/objects/2026-03/0-3/batch/read",
        "/crm/properties/2026-03/deals",
        "/crm/pipelines/2026-03/deals",
        "/crm/owners/2026-03",
        "/account-info/2026-03/details",
    ],
}


@pytest.mark.parametrize("version", PATHS)
def test_paths_of_a_version(version):
    known = Endpoints.of_version(version)
    parts = (known.deals, known.search, known.batch_read, known.properties)
    parts += (known.pipelines, known.owners, known.account)
    assert [endpoint.path for endpoint in parts] == PATHS[version]
    assert [endpoint for endpoint in parts if endpoint.budget is Budget.SEARCH] == [known.search]


def test_deals_can_be_asked_for_by_their_other_name():
    named = Endpoints.of_version("2026-09", deal_object="deals")
    assert named.batch_read.path == "/crm/objects/2026-09/deals/batch/read"
    assert named.owners == Endpoints.of_version("2026-09").owners
