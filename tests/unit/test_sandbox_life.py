"""The simulated life of an account: reproducible, cheap, and true to what it says of itself."""

import time
from typing import Any

import pytest

from hubspot_sandbox.clock import Clock
from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.direct import DEALS, DirectSandbox

HOUR = 3_600
BUSY = {"archive": 30, "restore": 10, "merge": 10, "delete": 8, "associate": 30, "bulk": 1}


class FrozenTime:
    def __call__(self) -> float:
        return 1_767_225_600.0


def sandbox_of(**options: Any) -> DirectSandbox:
    config = SandboxConfig(**{"latency_ms": (0, 0), "limits": False, "deals": 400} | options)
    return DirectSandbox(config, Clock(FrozenTime()))


def live(sandbox: DirectSandbox, seed: int = 1, seconds: int = HOUR, **rates: float) -> Any:
    return sandbox.control("POST", "life", {"seconds": seconds, "seed": seed, "rates": rates})


def test_the_same_seed_lets_an_account_live_the_same_life() -> None:
    one, two, other = sandbox_of(), sandbox_of(), sandbox_of()
    assert live(one, **BUSY) == live(two, **BUSY)
    live(other, seed=2, **BUSY)
    truths = [box.control("GET", "deals") for box in (one, two, other)]
    assert truths[0] == truths[1] != truths[2]
    assert one.control("GET", "fates") == two.control("GET", "fates")


def test_everything_happens_and_is_told() -> None:
    sandbox = sandbox_of()
    before = sandbox.control("GET", "state")
    done = live(sandbox, seconds=6 * HOUR, **BUSY)["done"]
    assert all(count for name, count in done.items() if name != "purged"), done
    after = sandbox.control("GET", "state")
    assert after["now_ms"] - before["now_ms"] == 6 * HOUR * 1000
    fates = sandbox.control("GET", "fates")
    reasons = [fate["reason"] for fate in fates.values()]
    assert reasons.count("archived") == after["archived"]
    assert len(reasons) == after["archived"] + after["gone"]
    assert {"archived", "merged", "deleted"} <= set(reasons)
    shown = {deal["id"] for deal in sandbox.control("GET", "deals?archived=false")}
    assert not shown & set(fates)
    assert sandbox.control("POST", "touched", {"since_ms": after["now_ms"] + 1}) == {"ids": []}
    touched = sandbox.control("POST", "touched", {"since_ms": before["now_ms"]})["ids"]
    assert len(touched) >= done["create"] + done["archive"] - done["restore"]


def test_changes_reach_the_search_index_at_their_own_time() -> None:
    sandbox = sandbox_of(search_lag_seconds=30.0)
    quiet = dict.fromkeys(("update", "stage", "recalculate", "bulk", "archive", "merge"), 0)
    live(sandbox, **quiet | {"delete": 0, "restore": 0, "associate": 0, "create": 3_600})
    state = sandbox.control("GET", "state")
    created = state["live"] - 400
    assert 10 < state["index_pending"] < 60 < created
    assert sandbox.search(limit=1).json["total"] == state["live"] - state["index_pending"]
    sandbox.control("POST", "clock", {"advance_seconds": 31})
    assert sandbox.search(limit=1).json["total"] == state["live"]


def test_the_bin_empties_after_ninety_days() -> None:
    sandbox = sandbox_of(archived_share=0.5)
    binned = sandbox.control("GET", "state")["archived"]
    none = dict.fromkeys((*BUSY, "update", "stage", "create", "recalculate"), 0)
    # The clock stands at the end of the account's history, where the youngest were archived.
    assert live(sandbox, seconds=91 * 24 * HOUR, **none)["done"]["purged"] == binned
    assert not sandbox.get(f"{DEALS}?archived=true").json["results"]
    reasons = {fate["reason"] for fate in sandbox.control("GET", "fates").values()}
    assert reasons == {"purged", "merged"}


def test_calculated_values_and_associations_move_no_time_of_change() -> None:
    sandbox = sandbox_of()
    deal = sandbox.control("GET", "deals?archived=false")[0]
    body = {"ids": [deal["id"]]}
    sandbox.control("POST", "deals/recalculate", body | {"properties": {"health_score": "77"}})
    targets = list(range(1_000, 1_250))
    sandbox.control("POST", "deals/associate", body | {"to": "contacts", "targets": targets})
    after = sandbox.get(f"{DEALS}/{deal['id']}?properties=health_score").json
    assert after["updatedAt"] == deal["updatedAt"]
    assert after["properties"]["health_score"] == "77"
    page = f"/crm/v4/objects/deals/{deal['id']}/associations/contacts"
    assert [one["toObjectId"] for one in sandbox.get(page).json["results"]] == targets
    truth = sandbox.control("POST", "associations", body | {"to": "contacts"})
    assert truth == {deal["id"]: targets}


def test_the_history_of_a_stage_grows_and_is_cut_to_twenty() -> None:
    sandbox = sandbox_of()
    [identity] = sandbox.control("POST", "deals/create", {"deals": [{"dealstage": "closedwon"}]})[
        "ids"
    ]
    stages = ["appointmentscheduled", "140262801", "closedlost", "140262801"] * 6
    for stage in stages:
        sandbox.control("POST", "clock", {"advance_seconds": 60})
        body = {"ids": [identity], "properties": {"dealstage": stage}}
        sandbox.control("POST", "deals/update", body)
    asked = {"inputs": [{"id": identity}], "propertiesWithHistory": ["dealstage", "pipeline"]}
    [deal] = sandbox.post(f"{DEALS}/batch/read", asked).json["results"]
    found = [one["value"] for one in deal["propertiesWithHistory"]["dealstage"]]
    assert found == stages[::-1][:20]
    truth = sandbox.control("POST", "history", {"ids": [identity], "property": "dealstage"})
    assert [one["value"] for one in truth[identity]] == [*stages[::-1], "closedwon"]
    pipelines = [one["value"] for one in deal["propertiesWithHistory"]["pipeline"]]
    assert pipelines == ["73519024", "default"] * 10


def test_the_past_of_a_stage_stays_when_other_things_change() -> None:
    sandbox = sandbox_of()
    deal = sandbox.control("GET", "deals?archived=false")[7]
    asked = {"inputs": [{"id": deal["id"]}], "propertiesWithHistory": ["dealstage"]}

    def past() -> Any:
        [found] = sandbox.post(f"{DEALS}/batch/read", asked).json["results"]
        return found["propertiesWithHistory"]["dealstage"]

    before = past()
    sandbox.control("POST", "deals/update", {"ids": [deal["id"]], "properties": {"amount": "1"}})
    assert past() == before
    value = next(stage for stage in ("closedwon", "closedlost") if stage != before[0]["value"])
    body = {"ids": [deal["id"]], "properties": {"dealstage": value}}
    sandbox.control("POST", "deals/update", body)
    assert past()[1:] == before
    assert past()[0]["value"] == value


def test_an_unknown_event_is_refused() -> None:
    sandbox = sandbox_of()
    with pytest.raises(AssertionError, match=r"has no .*fly"):
        live(sandbox, fly=1)


def test_a_day_of_a_big_account_takes_seconds() -> None:
    sandbox = sandbox_of(deals=50_000)
    began = time.process_time()
    done = live(sandbox, seconds=24 * HOUR)["done"]
    assert sum(done.values()) > 2_000
    assert time.process_time() - began < 20
