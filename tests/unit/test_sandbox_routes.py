"""Paths and query strings."""

import pytest

from hubspot_sandbox.messages import Query
from hubspot_sandbox.routes import resolve


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/crm/v3/objects/deals", "list"),
        ("/crm/v3/objects/0-3/", "list"),
        ("/crm/v3/objects/DEAL", "list"),
        ("/crm/objects/2026-03/0-3", "list"),
        ("/crm/objects/2026-09/deals/search", "search"),
        ("/crm/v3/objects/deal/batch/read", "batch"),
        ("/crm/v3/objects/deals/123", "get"),
        ("/crm/objects/2026-03/deals/123/associations/contacts", "association_list"),
        ("/crm/v4/objects/deals/123/associations/contacts", "association_list"),
        ("/crm/v4/associations/deals/contacts/batch/read", "associations"),
        ("/crm/associations/2026-03/deals/contacts/batch/read", "associations"),
        ("/crm/v3/properties/deals", "properties"),
        ("/crm/properties/2026-03/deals/amount", "property"),
        ("/crm/pipelines/2026-09/deals", "pipelines"),
        ("/crm/v3/owners/", "owners"),
        ("/crm/owners/2026-03/17", "owner"),
        ("/account-info/v3/details", "account"),
        ("/account-info/2026-03/api-usage/daily/private-apps", "usage"),
        ("/settings/v3/users", "users"),
        ("/settings/users/v3", "users"),
        ("/settings/users/2026-03", "users"),
        ("/settings/v3/users/teams", "teams"),
        ("/oauth/v1/access-tokens/abc", "token_info"),
        ("/oauth/v2/private-apps/get/access-token-info", "private_app_info"),
        ("/oauth/2026-03/token/introspect", "introspect"),
    ],
)
def test_every_documented_path_has_its_endpoint(path: str, kind: str) -> None:
    route = resolve(path)
    assert route is not None
    assert route.kind == kind
    assert route.is_known_type


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/crm",
        "/crm/v3",
        "/crm/v3/objects",
        "/crm/v4/objects/deals",
        "/crm/v3/associations/deals/contacts/batch/read",
        "/crm/2026-03/objects/deals",
        "/crm/v9/objects/deals",
        "/deals/v1/deal/paged",
    ],
)
def test_other_paths_have_none(path: str) -> None:
    assert resolve(path) is None


@pytest.mark.parametrize(
    "query",
    [
        b"properties=dealname,amount",
        b"properties=dealname%2Camount",
        b"properties=dealname&properties=amount",
        b"limit=1&properties=dealname&properties=amount,dealname",
    ],
)
def test_property_lists_are_read_in_every_encoding(query: bytes) -> None:
    assert Query(query).names(b"properties") == ("dealname", "amount")


@pytest.mark.parametrize(
    ("text", "flag"), [(b"True", True), (b"true", True), (b"False", False), (b"", False)]
)
def test_flags_are_read_in_any_case(text: bytes, *, flag: bool) -> None:
    assert Query(b"archived=" + text).flag(b"archived") is flag
