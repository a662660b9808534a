"""Search against a plain reading of the truth: every operator, order, paging, lag."""

from collections.abc import Callable
from typing import Any

import pytest

from hubspot_sandbox.clock import Clock, parse_ms
from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.direct import DirectSandbox

Values = dict[str, str | None]


@pytest.fixture(scope="module")
def sandbox() -> DirectSandbox:
    config = SandboxConfig(deals=3_000, seed=5, latency_ms=(0, 0), limits=False)
    return DirectSandbox(config)


@pytest.fixture(scope="module")
def live(sandbox: DirectSandbox) -> list[Values]:
    return [deal["properties"] for deal in sandbox.control("GET", "deals?archived=false")]


def _ids(values: list[Values]) -> list[str]:
    return [str(value["hs_object_id"]) for value in values]


def _read_all(sandbox: DirectSandbox, **body: Any) -> list[Values]:
    """All pages of a search, by offset."""
    found: list[Values] = []
    after = "0"
    while after:
        page = sandbox.search(limit=200, after=after, **body).json
        found += [deal["properties"] for deal in page["results"]]
        after = page.get("paging", {}).get("next", {}).get("after")
    assert len(found) == page["total"]
    return found


def _filter(name: str, operator: str, *values: str) -> dict[str, Any]:
    if operator in {"IN", "NOT_IN"}:
        return {"propertyName": name, "operator": operator, "values": list(values)}
    keys = ("value", "highValue")
    return {
        "propertyName": name,
        "operator": operator,
        **dict(zip(keys, values, strict=False)),
    }


def _ms(values: Values, name: str) -> int:
    return parse_ms(values[name] or "") or 0


def _amount(values: Values) -> float | None:
    try:
        return float(values["amount"] or "")
    except ValueError:
        return None


Y2024, Y2025 = "1704067200000", "1735689600000"


@pytest.mark.parametrize(
    ("condition", "keep"),
    [
        (
            _filter("createdate", "BETWEEN", Y2024, Y2025),
            lambda deal: int(Y2024) <= _ms(deal, "createdate") <= int(Y2025),
        ),
        (
            _filter("hs_lastmodifieddate", "GTE", "2025-01-01T00:00:00.000Z"),
            lambda deal: _ms(deal, "hs_lastmodifieddate") >= int(Y2025),
        ),
        (
            _filter("createdate", "LT", "2024-01-01"),
            lambda deal: _ms(deal, "createdate") < int(Y2024),
        ),
        (
            _filter("closedate", "GT", Y2025),
            lambda deal: _ms(deal, "closedate") > int(Y2025),
        ),
        (_filter("amount", "GT", "50000"), lambda deal: (_amount(deal) or 0) > 50_000),
        (_filter("amount", "LTE", "0"), lambda deal: _amount(deal) in {0.0, -120.5}),
        (_filter("amount", "HAS_PROPERTY"), lambda deal: bool(deal["amount"])),
        (_filter("amount", "NOT_HAS_PROPERTY"), lambda deal: not deal["amount"]),
        (_filter("dealstage", "EQ", "closedwon"), lambda deal: deal["dealstage"] == "closedwon"),
        (_filter("dealstage", "EQ", "ClosedWon"), lambda _deal: False),
        (
            _filter("dealstage", "IN", "closedwon", "closedlost"),
            lambda deal: deal["dealstage"] in {"closedwon", "closedlost"},
        ),
        (
            _filter("dealtype", "NEQ", "newbusiness"),
            lambda deal: deal["dealtype"] not in {None, "newbusiness"},
        ),
        (
            _filter("hs_priority", "NOT_IN", "low", "high"),
            lambda deal: deal["hs_priority"] == "medium",
        ),
        (_filter("hs_is_closed", "EQ", "true"), lambda deal: deal["hs_is_closed"] == "true"),
        (
            _filter("dealname", "CONTAINS_TOKEN", "GMBH"),
            lambda deal: "GmbH" in str(deal["dealname"]),
        ),
        (
            _filter("dealname", "CONTAINS_TOKEN", "mig*"),
            lambda deal: "migration" in str(deal["dealname"]),
        ),
        (
            _filter("dealname", "NOT_CONTAINS_TOKEN", "gmbh"),
            lambda deal: "GmbH" not in str(deal["dealname"]),
        ),
        (_filter("dealname", "EQ", "NULL"), lambda deal: str(deal["dealname"]).lower() == "null"),
        (
            _filter("hs_next_step", "IN", "follow up in q3"),
            lambda deal: deal["hs_next_step"] == "Follow up in Q3",
        ),
        (_filter("hs_next_step", "IN", "Follow up in Q3"), lambda _deal: False),
        (
            _filter("hs_object_id", "GT", "1906900000"),
            lambda deal: int(str(deal["hs_object_id"])) > 1_906_900_000,
        ),
        (
            _filter("hs_object_id", "BETWEEN", "900000000", "13480900000"),
            lambda deal: 900_000_000 <= int(str(deal["hs_object_id"])) <= 13_480_900_000,
        ),
        (
            _filter("hs_merged_object_ids", "HAS_PROPERTY"),
            lambda deal: bool(deal["hs_merged_object_ids"]),
        ),
    ],
    ids=lambda value: (
        f"{value['propertyName']} {value['operator']}" if isinstance(value, dict) else ""
    ),
)
def test_operators_mean_what_they_say(
    sandbox: DirectSandbox,
    live: list[Values],
    condition: dict[str, Any],
    keep: Callable[[Values], bool],
) -> None:
    found = _read_all(
        sandbox,
        filters=[condition],
        sorts=["hs_object_id"],
        properties=["amount", "createdate", "dealname"],
    )
    assert _ids(found) == _ids([deal for deal in live if keep(deal)])


def test_groups_are_alternatives_of_conditions_that_all_hold(
    sandbox: DirectSandbox, live: list[Values]
) -> None:
    middle = str(live[1_500]["hs_object_id"])
    groups = [
        {
            "filters": [
                _filter("hs_object_id", "LT", middle),
                _filter("dealstage", "EQ", "closedwon"),
            ]
        },
        {"filters": [_filter("hs_object_id", "EQ", middle)]},
    ]
    found = _read_all(sandbox, filterGroups=groups, sorts=["hs_object_id"])
    wanted = [deal for deal in live[:1_500] if deal["dealstage"] == "closedwon"]
    assert _ids(found) == _ids([*wanted, live[1_500]])


def test_the_default_order_is_oldest_first(sandbox: DirectSandbox, live: list[Values]) -> None:
    found = _read_all(sandbox)
    order = sorted(live, key=lambda deal: (_ms(deal, "createdate"), int(str(deal["hs_object_id"]))))
    assert _ids(found) == _ids(order)


@pytest.mark.parametrize("name", ["amount", "closedate"])
def test_numbers_and_dates_sort_by_value(sandbox: DirectSandbox, name: str) -> None:
    rule = {"propertyName": name, "direction": "DESCENDING"}
    found = _read_all(sandbox, filters=[_filter(name, "GT", "1")], sorts=[rule], properties=[name])
    values = [_amount(deal) if name == "amount" else _ms(deal, name) for deal in found]
    assert values == sorted(values, key=lambda value: value or 0, reverse=True)


@pytest.mark.parametrize("rule", ["amount", "-amount"])
def test_deals_without_a_value_come_last(sandbox: DirectSandbox, rule: str) -> None:
    values = [deal["amount"] for deal in _read_all(sandbox, sorts=[rule], properties=["amount"])]
    missing = sum(not value for value in values)
    assert missing > 100
    assert not any(values[-missing:])


def test_ids_sort_as_numbers_in_both_directions(sandbox: DirectSandbox, live: list[Values]) -> None:
    assert _ids(_read_all(sandbox, sorts=["-hs_object_id"])) == _ids(live)[::-1]


def test_query_text_looks_in_names_and_descriptions(
    sandbox: DirectSandbox, live: list[Values]
) -> None:
    found = _read_all(sandbox, query="tanaka robotics", sorts=["hs_object_id"])
    wanted = [deal for deal in live if str(deal["dealname"]).startswith("Tanaka Robotics")]
    assert wanted
    assert _ids(found) == _ids(wanted)


def test_a_big_result_is_cut_to_ten_thousand_in_the_right_order() -> None:
    sandbox = DirectSandbox(SandboxConfig(deals=12_000, latency_ms=(0, 0), same_timestamp=9_000))
    live = sandbox.control("GET", "deals?archived=false&properties=createdate")
    order = sorted(live, key=lambda deal: (deal["createdAt"], int(deal["id"])))
    page = sandbox.search(limit=200, after=9_800)
    assert page.json["total"] == 12_000
    assert [deal["id"] for deal in page.json["results"]] == [
        deal["id"] for deal in order[9_800:10_000]
    ]
    assert page.json["paging"]["next"]["after"] == "10000"


class TestIndexLag:
    """The index matches on old values and shows new ones."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock(lambda: 1_790_000_000.0)

    @pytest.fixture
    def fresh(self, clock: Clock) -> DirectSandbox:
        config = SandboxConfig(deals=50, latency_ms=(0, 0), limits=False, search_lag_seconds=5)
        return DirectSandbox(config, clock)

    def _total(self, sandbox: DirectSandbox, *conditions: dict[str, Any]) -> int:
        return int(sandbox.search(filters=list(conditions)).json["total"])

    def test_a_new_deal_is_listed_at_once_and_found_later(
        self, fresh: DirectSandbox, clock: Clock
    ) -> None:
        [identity] = fresh.control(
            "POST", "deals/create", {"deals": [{"dealname": "Fresh", "amount": "12.50"}]}
        )["ids"]
        assert fresh.get(f"/crm/v3/objects/deals/{identity}").status == 200
        condition = _filter("dealname", "EQ", "fresh")
        assert self._total(fresh, condition) == 0
        clock.advance(5.1)
        assert self._total(fresh, condition) == 1
        assert self._total(fresh, _filter("amount", "EQ", "12.5")) >= 1

    def test_a_changed_deal_matches_its_old_value_but_shows_the_new_one(
        self, fresh: DirectSandbox, clock: Clock
    ) -> None:
        deal = fresh.control("GET", "deals?archived=false")[7]
        old = deal["properties"]["dealstage"]
        new = "closedlost" if old != "closedlost" else "closedwon"
        fresh.control(
            "POST", "deals/update", {"ids": [deal["id"]], "properties": {"dealstage": new}}
        )
        mine = _filter("hs_object_id", "EQ", deal["id"])
        found = fresh.search(
            filters=[mine, _filter("dealstage", "EQ", old)], properties=["dealstage"]
        ).json
        assert found["results"][0]["properties"]["dealstage"] == new
        assert found["results"][0]["updatedAt"] == "2026-09-21T14:13:20.000Z"
        clock.advance(6)
        assert self._total(fresh, mine, _filter("dealstage", "EQ", old)) == 0
        assert self._total(fresh, mine, _filter("dealstage", "EQ", new)) == 1

    def test_an_archived_deal_is_never_shown_even_while_the_index_counts_it(
        self, fresh: DirectSandbox, clock: Clock
    ) -> None:
        deal = fresh.control("GET", "deals?archived=false")[3]
        fresh.control("POST", "deals/archive", {"ids": [deal["id"]]})
        page = fresh.search(limit=100).json
        assert (page["total"], len(page["results"])) == (50, 49)
        clock.advance(6)
        assert self._total(fresh) == 49

    def test_a_bulk_update_can_stamp_one_millisecond_on_many_deals(
        self, fresh: DirectSandbox, clock: Clock
    ) -> None:
        body = {"first": 40, "modified_at": "2026-01-02T03:04:05.678Z"}
        assert fresh.control("POST", "deals/update", body) == {"changed": 40}
        clock.advance(6)
        assert self._total(fresh, _filter("hs_lastmodifieddate", "EQ", "1767323045678")) == 40
