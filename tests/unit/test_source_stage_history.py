"""From the history of two properties to stays in stages."""

import asyncio
from datetime import UTC, datetime, timedelta

from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.stage_history import read_stage_history, stage_rows

START = datetime(2024, 5, 1, 12, tzinfo=UTC)
ENDPOINTS = Endpoints.of_version("v3")


def text(seconds):
    moment = START + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def history(*versions):
    """Given oldest first, sent newest first."""
    return [
        {"value": value, "timestamp": text(seconds), "sourceType": "API"}
        for value, seconds in reversed(versions)
    ]


def rows(stages, pipelines=(("p", 0),)):
    deal = {
        "id": "7",
        "propertiesWithHistory": {"dealstage": history(*stages), "pipeline": history(*pipelines)},
    }
    return stage_rows(deal)


def stays(*arguments):
    return [
        (row["stage_id"], (row["entered_at"] - START).total_seconds(), row["seconds"])
        for row in rows(*arguments)
    ]


def test_each_stay_ends_where_the_next_begins_and_the_last_is_open():
    assert stays([("a", 0), ("b", 60.5), ("c", 100)]) == [
        ("a", 0, 60.5),
        ("b", 60.5, 39.5),
        ("c", 100, None),
    ]
    assert rows([("a", 0)])[0]["left_at"] is None


def test_a_stage_that_is_entered_again_is_another_visit():
    found = rows([("a", 0), ("b", 1), ("a", 2), ("b", 3), ("a", 4)])
    assert [(row["stage_id"], row["visit"]) for row in found] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("b", 2),
        ("a", 3),
    ]


def test_setting_the_same_stage_again_is_no_move():
    assert stays([("a", 0), ("a", 5), ("b", 9), ("b", 10)]) == [("a", 0, 9), ("b", 9, None)]


def test_moves_within_one_millisecond_keep_hubspots_order_and_are_told_apart():
    found = rows([("a", 0), ("b", 5), ("a", 5), ("b", 5), ("c", 6)])
    assert [(row["stage_id"], row["place"], row["seconds"]) for row in found] == [
        ("a", 1, 5),
        ("b", 1, 0),
        ("a", 2, 0),
        ("b", 3, 1),
        ("c", 1, None),
    ]
    assert len({(row["entered_at"], row["place"]) for row in found}) == len(found)


def test_versions_out_of_order_are_put_in_order():
    deal = {"id": "7", "propertiesWithHistory": {"dealstage": history(("b", 9), ("a", 0))}}
    assert [row["stage_id"] for row in stage_rows(deal)] == ["a", "b"]


def test_a_stage_that_is_taken_away_ends_the_stay_and_begins_none():
    assert stays([("a", 0), ("", 5), ("b", 9)]) == [("a", 0, 5), ("b", 9, None)]
    assert stays([("a", 0), ("", 5)]) == [("a", 0, 5)]
    assert stays([("a", 0), ("", 5), ("a", 7)]) == [("a", 0, 5), ("a", 7, None)]


def test_the_pipeline_is_the_one_of_most_of_the_stay():
    pipelines = [("p", 0), ("q", 100.003), ("p", 200)]
    found = rows([("a", 0), ("x", 100), ("b", 200.004)], pipelines)
    assert [row["pipeline_id"] for row in found] == ["p", "q", "p"]
    found = rows([("a", 0), ("x", 100), ("y", 100), ("b", 200)], pipelines)
    assert [row["pipeline_id"] for row in found] == ["p", "p", "q", "p"]


def test_a_stay_without_length_is_in_the_pipeline_of_its_millisecond():
    found = rows([("a", 0), ("x", 5), ("y", 5)], [("p", 0), ("q", 5)])
    assert [row["pipeline_id"] for row in found] == ["p", "q", "q"]


def test_a_pipeline_that_was_set_after_the_first_stage_is_the_first_stages_too():
    assert rows([("a", 0)], [("p", 0.2)])[0]["pipeline_id"] == "p"
    assert rows([("a", 0), ("b", 0.1)], [("p", 0.2)])[0]["pipeline_id"] == "p"
    assert rows([("a", 0)], [])[0]["pipeline_id"] is None


def test_a_history_that_hubspot_may_have_cut_says_so():
    long = [(f"s{number}", number) for number in range(25)]
    assert not any(row["is_cut"] for row in rows(long[:19]))
    assert all(row["is_cut"] for row in rows(long[5:]))
    kept = {(row["stage_id"], row["entered_at"], row["place"]) for row in rows(long)}
    assert {(row["stage_id"], row["entered_at"], row["place"]) for row in rows(long[5:])} < kept


def test_a_version_without_a_time_is_left_out_and_told():
    sent = [{"value": "b", "timestamp": "soon"}, *history(("a", 0))]
    found = stage_rows({"id": "7", "propertiesWithHistory": {"dealstage": sent}})
    assert [(row["stage_id"], row["is_cut"]) for row in found] == [("a", True)]


def test_a_deal_without_history_has_no_stays():
    for strange in ({}, {"propertiesWithHistory": None}, {"propertiesWithHistory": {}}):
        assert stage_rows({"id": "7"} | strange) == []
    assert stage_rows({"id": "7", "propertiesWithHistory": {"dealstage": [None, "x"]}}) == []


def test_who_moved_it_is_told():
    version = {
        "value": "a",
        "timestamp": text(0),
        "sourceType": "CRM_UI",
        "sourceId": "userId:5",
        "updatedByUserId": 5,
    }
    [row] = stage_rows({"id": "7", "propertiesWithHistory": {"dealstage": [version]}})
    assert (row["source_type"], row["source_id"], row["user_id"]) == ("CRM_UI", "userId:5", 5)


def test_fifty_deals_are_asked_for_at_once_and_survivors_are_not_taken_for_others():
    sizes = []

    class Client:
        async def post(self, endpoint, body, params=None):
            assert (endpoint, params) == (ENDPOINTS.batch_read, {"archived": "false"})
            assert body["propertiesWithHistory"] == ["dealstage", "pipeline"]
            ids = [item["id"] for item in body["inputs"]]
            sizes.append(len(ids))
            return {
                "results": [
                    {
                        "id": one if one != "3" else "999",
                        "properties": {"hs_merged_object_ids": "3" if one == "3" else None},
                        "propertiesWithHistory": {"dealstage": history(("a", int(one)))},
                    }
                    for one in ids
                ]
            }

    asked = [str(number) for number in range(1, 121)]
    found = asyncio.run(read_stage_history(Client(), ENDPOINTS, asked))
    assert [row["deal_id"] for row in found] == [one for one in asked if one != "3"]
    assert sorted(sizes) == [20, 50, 50]
