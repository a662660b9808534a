"""The generated account: its numbers, its ids, its deliberate oddities, its determinism."""

from datetime import date
from typing import Any

import numpy as np
import pytest

from hubspot_sandbox.account import ARCHIVED, GONE, LIVE, build_account
from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.direct import DEALS, DirectSandbox


def _truth(**options: Any) -> list[dict[str, Any]]:
    return DirectSandbox(SandboxConfig(latency_ms=(0, 0), **options)).control("GET", "deals")


def test_archived_deals_come_on_top_of_the_live_ones() -> None:
    account = build_account(SandboxConfig(deals=2_000, archived_share=0.25))
    assert np.count_nonzero(account.state == LIVE) == 2_000
    assert np.count_nonzero(account.state == ARCHIVED) == 500
    assert np.count_nonzero(account.state == GONE) == len(account.merges) == 4


def test_the_same_seed_and_options_make_the_same_deals() -> None:
    assert _truth(deals=300, seed=11, properties=9) == _truth(deals=300, seed=11, properties=9)


def test_another_seed_makes_other_deals() -> None:
    assert _truth(deals=50, seed=1) != _truth(deals=50, seed=2)


@pytest.mark.parametrize("deals", [0, 1, 2, 7])
def test_tiny_accounts_work(deals: int) -> None:
    sandbox = DirectSandbox(SandboxConfig(deals=deals, latency_ms=(0, 0)))
    assert len(sandbox.get(f"{DEALS}?limit=100").json["results"]) == deals
    assert sandbox.search().json["total"] == deals


def test_ids_ascend_with_uneven_gaps_and_several_lengths() -> None:
    ids = build_account(SandboxConfig(deals=5_000)).ids
    gaps = np.diff(ids)
    assert (gaps > 0).all()
    assert (gaps == 1).sum() > 100
    assert len(np.unique(gaps)) > 1_000
    assert {len(str(number)) for number in ids.tolist()} == {9, 10, 11}


def test_deals_are_born_between_the_two_dates() -> None:
    config = SandboxConfig(deals=500, start_date=date(2024, 1, 1), end_date=date(2024, 1, 31))
    days = {deal["properties"]["hs_createdate"][:10] for deal in _truth_of(config)}
    assert min(days) == "2024-01-01"
    assert max(days) == "2024-01-31"


def _truth_of(config: SandboxConfig) -> list[dict[str, Any]]:
    return DirectSandbox(config).control("GET", "deals")


def test_a_few_creation_dates_were_edited_so_ids_do_not_follow_them() -> None:
    deals = _truth(deals=3_000)
    moved = [
        deal
        for deal in deals
        if deal["properties"]["createdate"] != deal["properties"]["hs_createdate"]
    ]
    assert 1 <= len(moved) <= 30
    assert all(deal["createdAt"] == deal["properties"]["createdate"] for deal in moved)


def test_archiving_happens_after_the_last_change_and_is_not_one() -> None:
    archived = [deal for deal in _truth(deals=1_000) if deal["archived"]]
    assert archived
    assert all(deal["archivedAt"] > deal["updatedAt"] for deal in archived)


def test_same_timestamp_deals_share_one_millisecond() -> None:
    live = [deal for deal in _truth(deals=900, same_timestamp=400) if not deal["archived"]]
    shared = [deal for deal in live if deal["createdAt"] == live[450]["createdAt"]]
    assert len(shared) == 400
    assert len({deal["updatedAt"] for deal in shared}) == 1


def test_some_values_are_of_the_wrong_kind_unless_clean_ones_are_asked_for() -> None:
    def broken(deals: list[dict[str, Any]]) -> tuple[bool, bool]:
        values = [deal["properties"] for deal in deals]
        return (
            any(";" in (value["amount"] or "") for value in values),
            any((value["closedate"] or "-").isdecimal() for value in values),
        )

    assert broken(_truth(deals=10_000)) == (True, True)
    assert broken(_truth(deals=10_000, clean_values=True)) == (False, False)


def test_null_and_cleared_values_both_occur() -> None:
    values = [deal["properties"]["closedate"] for deal in _truth(deals=3_000)]
    assert None in values
    assert "" in values
    assert any(value and len(value) == 20 for value in values), "no datetime without milliseconds"


def test_names_hold_what_breaks_naive_loaders() -> None:
    names = "".join(deal["properties"]["dealname"] for deal in _truth(deals=2_000))
    for text in ('"', "\\", "\n", "\t", "🚀", "東京", "\u2028", "'", "\r"):
        assert text in names, repr(text)


def test_extra_properties_are_defined_and_have_values() -> None:
    sandbox = DirectSandbox(SandboxConfig(deals=200, properties=900, latency_ms=(0, 0)))
    definitions = sandbox.get("/crm/v3/properties/deals").json["results"]
    extra = [body["name"] for body in definitions if body["name"].startswith("extra_")]
    assert len(extra) == 900
    found = sandbox.search(properties=extra, limit=200).json["results"]
    assert {key for deal in found for key in deal["properties"]} >= set(extra)


def test_all_types_and_the_live_field_types_are_there() -> None:
    sandbox = DirectSandbox(SandboxConfig(deals=1, latency_ms=(0, 0)))
    definitions = sandbox.get("/crm/v3/properties/deals").json["results"]
    assert {body["type"] for body in definitions} == {
        "string",
        "number",
        "date",
        "datetime",
        "enumeration",
        "bool",
        "phone_number",
        "object_coordinates",
        "json",
    }
    assert {"calculation_equation", "calculation_rollup"} < {
        body["fieldType"] for body in definitions
    }


def test_stage_and_its_derived_properties_agree() -> None:
    for deal in _truth(deals=300):
        values = deal["properties"]
        won = values["hs_is_closed_won"] == "true"
        assert won == (values["hs_deal_stage_probability"] == "1.0")
        assert values["hs_closed_amount"] == (values["amount"] if won else "0")
