"""Nothing that a client sends may break the sandbox: it is refused instead."""

from random import Random
from typing import Any

import pytest

from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.direct import DEALS, DirectSandbox

VALUES: tuple[Any, ...] = (
    None, "", "x", "-1", "9" * 30, "9" * 5_000, "1e999", 0, -5, 2**63, 3.7, True, [], [None], [[]],
    {}, {"id": 1},
    ["x"], "2024-01-01", "nan", "0", "1704067200000", "*", "\\", "\u0000",
)  # fmt: skip
NAMES = ("hs_object_id", "createdate", "amount", "dealname", "closedate", "dealstage", "none")
OPERATORS = (
    "BETWEEN", "CONTAINS_TOKEN", "EQ", "GT", "GTE", "HAS_PROPERTY", "IN", "LT", "LTE", "NEQ",
    "NOT_CONTAINS_TOKEN", "NOT_HAS_PROPERTY", "NOT_IN",
)  # fmt: skip


@pytest.fixture(scope="module")
def sandbox() -> DirectSandbox:
    return DirectSandbox(SandboxConfig(deals=150, latency_ms=(0, 0), limits=False))


@pytest.mark.parametrize("seed", range(8))
def test_any_filter_is_answered(sandbox: DirectSandbox, seed: int) -> None:
    random = Random(seed)
    for _ in range(150):
        condition = {
            "propertyName": random.choice(NAMES),
            "operator": random.choice(OPERATORS),
            "value": random.choice(VALUES),
            "highValue": random.choice(VALUES),
            "values": random.choice(VALUES),
        }
        body = {"filters": [condition], "sorts": [random.choice(NAMES)], "after": 0}
        assert sandbox.search(**body).status in {200, 400, 500}


@pytest.mark.parametrize(
    "key", ["filterGroups", "filters", "sorts", "properties", "limit", "after"]
)
def test_any_search_body_is_answered(sandbox: DirectSandbox, key: str) -> None:
    for value in VALUES:
        assert sandbox.search(**{key: value}).status in {200, 400}, value
        assert sandbox.search(filterGroups=[{key: value}]).status in {200, 400}, value


@pytest.mark.parametrize("key", ["inputs", "properties", "propertiesWithHistory"])
def test_any_batch_body_is_answered(sandbox: DirectSandbox, key: str) -> None:
    for value in VALUES:
        for body in ({"inputs": [], key: value}, {"inputs": [{"id": value}], "properties": []}):
            reply = sandbox.post(f"{DEALS}/batch/read", body)
            assert reply.status in {200, 207, 400}, value
            links = sandbox.post("/crm/v4/associations/deals/contacts/batch/read", body)
            assert links.status in {200, 207, 400}, value


def test_any_query_string_is_answered(sandbox: DirectSandbox) -> None:
    for key in (
        "limit",
        "after",
        "properties",
        "archived",
        "associations",
        "propertiesWithHistory",
    ):
        for value in ("", "-1", "9" * 30, "9" * 5_000, "%00", "%", "a,,b", "%F0%9F", "&&=", "1.5"):
            assert sandbox.get(f"{DEALS}?{key}={value}").status in {200, 400}, (key, value)
            assert sandbox.get(f"/crm/v3/owners?{key}={value}").status in {200, 400}
    for identity in ("x", "9" * 40, "-1", "%00"):
        assert sandbox.get(f"{DEALS}/{identity}").status == 404
