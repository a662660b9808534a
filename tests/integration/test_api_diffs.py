"""Diffs of two scans over HTTP, on a real PostgreSQL."""

import json
from collections import Counter

import httpx
import pytest
from click.testing import CliRunner
from psycopg.types.json import Jsonb

from api.cursors import to_text
from api.diffs import service
from benchmarks.diffs import LATER_SCAN, add_later_scan, told
from benchmarks.serving_data import BIG_SCAN, COLUMNS, add_deals
from hubspot_deals.cli.main import cli
from hubspot_deals.warehouse import acceptance

DEALS = 1_000
CHANGES = 80
PATH = f"/api/v1/results/{BIG_SCAN}/diff/{LATER_SCAN}"
HIDES = {
    "removed": "UPDATE hubspot_deals.scans SET results_removed_at = now() WHERE scan_id = %s",
    "run again": "UPDATE hubspot_deals.scans SET generation = 2 WHERE scan_id = %s",
    "started anew": "UPDATE hubspot_deals.scans SET seq = DEFAULT WHERE scan_id = %s",
}


@pytest.fixture
def truth(database_url):
    """Two scans of one organization, and what a diff of them has to say."""
    add_deals(database_url, DEALS)
    return add_later_scan(database_url, CHANGES)


@pytest.fixture
def two(database):
    """Two scans without deals."""
    for scan_id in ("old", "new"):
        database.execute(
            "INSERT INTO hubspot_deals.scans (scan_id, organization_id, config, request_hash,"
            " outcome, generation) VALUES (%s, 'org-1', '{}', '', 'completed', 1)",
            (scan_id,),
        )
        database.execute(
            "INSERT INTO hubspot_deals.scan_tables VALUES (%s, 1, 'deals', 0, 0, %s)",
            (scan_id, ["id", "dealname", "amount"]),
        )
        database.execute(
            "INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no,"
            " load_id, first_row, row_count, epoch) VALUES (%s, 1, 'deals', 1, %s, 1, 0, 1)",
            (scan_id, f"load-{scan_id}"),
        )


def add_deal(database, scan_id, deal_id, properties, *, archived=False):
    database.execute(
        "INSERT INTO hubspot_deals_extraction.deals"
        " (scan_id, row_no, id, archived, properties, _dlt_load_id) VALUES (%s, 1, %s, %s, %s, %s)",
        (scan_id, deal_id, archived, Jsonb(properties), f"load-{scan_id}"),
    )


def get(client, path=PATH, **params):
    answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def diff_of_two(client):
    return get(client, "/api/v1/results/old/diff/new")["changes"]


def pages(client, **params):
    answer = client.get(PATH, params=params)
    yield answer.json()["data"]
    while (following := answer.json()["data"]["pagination"]["nextCursor"]) is not None:
        linked = httpx.URL(answer.links["next"]["url"])
        assert linked.params["cursor"] == following
        answer = client.get(PATH, params=params | {"cursor": following})
        yield answer.json()["data"]
    assert "next" not in answer.links
    assert not answer.json()["data"]["pagination"]["hasMore"]


@pytest.mark.parametrize("limit", [1, 7, 79, 80, 81, 1_000])
def test_pages_say_exactly_what_was_changed(client, truth, limit):
    found = list(pages(client, limit=limit))

    changes = [change for page in found for change in page["changes"]]
    assert told(changes) == truth
    assert all(page["pagination"]["returned"] == len(page["changes"]) for page in found)
    assert all(len(page["changes"]) <= limit for page in found)


def test_small_ranges_say_the_same(client, truth, monkeypatch):
    monkeypatch.setattr(service, "_FIRST_IDS", 3)
    monkeypatch.setattr(service, "MOST_IDS", 40)
    monkeypatch.setattr(service, "_MOST_CHANGES", 2)
    monkeypatch.setattr(service, "_PAGE_SECONDS", 0)

    changes = [change for page in pages(client, limit=50) for change in page["changes"]]
    assert told(changes) == truth
    lines = client.get(PATH, params={"format": "ndjson"}).text.splitlines()
    assert told([json.loads(line) for line in lines]) == truth


@pytest.mark.parametrize("by", ["parameter", "header"])
def test_all_changes_come_line_by_line(client, truth, by):
    asked = (
        {"params": {"format": "ndjson"}}
        if by == "parameter"
        else {"headers": {"Accept": "application/x-ndjson"}}
    )

    answer = client.get(PATH, **asked)

    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert "Content-Length" not in answer.headers
    assert told([json.loads(line) for line in answer.text.splitlines()]) == truth


def test_a_summary_counts_by_kind_and_by_property(client, truth):
    data = get(client, summary="true")

    kinds = Counter(kind for kind, _ in truth.values())
    names = Counter(
        name for kind, changes in truth.values() if kind == "changed" for name in changes
    )
    unchanged = data["old"]["deals"] - kinds["removed"] - kinds["changed"]
    assert data["summary"] == {**kinds, "unchanged": unchanged, "byProperty": dict(names)}
    assert list(data["summary"]["byProperty"].values()) == sorted(names.values(), reverse=True)
    assert data["properties"] == {
        "compared": [name for name in COLUMNS if name not in {"id", "archived", "archivedAt"}],
        "onlyInOld": [],
        "onlyInNew": [],
    }


def test_the_other_direction_says_the_opposite(client, truth):
    back = get(client, f"/api/v1/results/{LATER_SCAN}/diff/{BIG_SCAN}", limit=1000)

    opposite = {"added": "removed", "removed": "added", "changed": "changed"}
    kinds = {deal_id: opposite[kind] for deal_id, (kind, _) in truth.items()}
    assert {change["id"]: change["kind"] for change in back["changes"]} == kinds
    assert (back["old"]["scanId"], back["new"]["scanId"]) == (LATER_SCAN, BIG_SCAN)


def test_a_scan_does_not_differ_from_itself(client, truth):
    data = get(client, f"/api/v1/results/{BIG_SCAN}/diff/{BIG_SCAN}")

    assert data["changes"] == []
    assert data["pagination"] == {
        "limit": 100,
        "returned": 0,
        "hasMore": False,
        "nextCursor": None,
    }


def test_scans_without_deals_do_not_differ(client, two):
    assert diff_of_two(client) == []


def test_only_what_both_scans_have_read_is_compared(client, database, two):
    database.execute(
        "UPDATE hubspot_deals.scan_tables SET columns = '{id,dealstage,dealname}'"
        " WHERE scan_id = 'new'"
    )
    add_deal(database, "old", "1", {"dealname": "A", "amount": "1"})
    add_deal(database, "new", "1", {"dealname": "A", "dealstage": "won"})
    add_deal(database, "old", "2", {"dealname": "A", "amount": "1"})
    add_deal(database, "new", "2", {"dealname": "B", "dealstage": "won", "hs_object_id": "2"})
    add_deal(database, "new", "3", {"dealname": "C", "dealstage": "won", "hs_object_id": "3"})

    data = get(client, "/api/v1/results/old/diff/new")

    assert data["properties"] == {
        "compared": ["dealname"],
        "onlyInOld": ["amount"],
        "onlyInNew": ["dealstage"],
    }
    assert data["changes"] == [
        {"kind": "changed", "id": "2", "changes": {"dealname": {"old": "A", "new": "B"}}},
        {
            "kind": "added",
            "id": "3",
            "record": {"id": "3", "dealstage": "won", "dealname": "C"},
        },
    ]


def test_never_set_and_not_defined_are_the_same_but_cleared_is_not(client, database, two):
    add_deal(database, "old", "1", {"dealname": None})
    add_deal(database, "new", "1", {})
    add_deal(database, "old", "2", {"dealname": None})
    add_deal(database, "new", "2", {"dealname": ""})

    (change,) = diff_of_two(client)

    assert change == {
        "kind": "changed",
        "id": "2",
        "changes": {"dealname": {"old": None, "new": ""}},
    }


def test_a_deal_that_was_archived_has_changed(client, database, two):
    add_deal(database, "old", "1", {})
    add_deal(database, "new", "1", {}, archived=True)

    (change,) = diff_of_two(client)

    assert change["changes"] == {"archived": {"old": False, "new": True}}


def refusal(client, path, **params):
    answer = client.get(path, params=params)
    return answer.status_code, answer.json()["error_code"], answer.json()["message"]


def test_a_scan_of_another_organization_is_like_one_that_does_not_exist(client, database, two):
    status = "UPDATE hubspot_deals.scans SET organization_id = 'org-2', {} WHERE scan_id = 'new'"
    path = "/api/v1/results/old/diff/"
    unknown = (404, "SCAN_NOT_FOUND", "No scan found with ID: {}")
    for state in ("seq = DEFAULT", "outcome = NULL", "results_removed_at = now()"):
        database.execute(status.format(state))
        for asked in ("", "?summary=true", "?format=ndjson"):
            code, error, message = refusal(client, f"{path}new{asked}")
            assert (code, error, message.replace("new", "{}")) == unknown
    assert refusal(client, f"{path}nobody") == (*unknown[:2], unknown[2].format("nobody"))
    assert refusal(client, f"{path}a.b")[:2] == (404, "SCAN_NOT_FOUND")
    assert refusal(client, "/api/v1/results/nobody/diff/new")[2] == unknown[2].format("nobody")


@pytest.mark.parametrize("hidden", ["old", "new"])
def test_both_scans_have_to_be_served(client, database, two, hidden):
    path = "/api/v1/results/old/diff/new"
    database.execute(
        "UPDATE hubspot_deals.scans SET outcome = NULL, generation = 0 WHERE scan_id = %s",
        (hidden,),
    )
    assert refusal(client, path)[:2] == (400, "SCAN_NOT_COMPLETED")
    assert refusal(client, path, format="ndjson")[:2] == (400, "SCAN_NOT_COMPLETED")
    database.execute(
        "UPDATE hubspot_deals.scans SET outcome = 'completed', generation = 1,"
        " results_removed_at = now() WHERE scan_id = %s",
        (hidden,),
    )
    code, error, message = refusal(client, path)
    assert (code, error) == (404, "RESULTS_REMOVED")
    assert f"'{hidden}'" in message


@pytest.mark.parametrize("hidden", [BIG_SCAN, LATER_SCAN])
def test_a_page_of_a_snapshot_that_a_rerun_has_replaced_is_refused(client, database, truth, hidden):
    cursor = get(client, limit=5)["pagination"]["nextCursor"]
    database.execute(HIDES["run again"], (hidden,))
    database.execute(
        "UPDATE hubspot_deals.scan_tables SET generation = 2 WHERE scan_id = %s", (hidden,)
    )
    database.execute(
        "UPDATE hubspot_deals.scan_chunks SET generation = 2 WHERE scan_id = %s", (hidden,)
    )

    code, error, message = refusal(client, PATH, cursor=cursor)

    assert (code, error) == (409, "SNAPSHOT_REPLACED")
    assert f"'{hidden}'" in message


@pytest.mark.parametrize("how", HIDES)
@pytest.mark.parametrize("hidden", [BIG_SCAN, LATER_SCAN])
def test_a_stream_whose_snapshot_is_hidden_is_cut_off(
    client, database, truth, hidden, how, monkeypatch
):
    monkeypatch.setattr(service, "_MOST_CHANGES", 20)
    find = service.DiffReader._find

    async def find_and_hide(self, compared, after, *more):
        if after:
            database.execute(HIDES[how], (hidden,))
        return await find(self, compared, after, *more)

    monkeypatch.setattr(service.DiffReader, "_find", find_and_hide)
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(PATH, params={"format": "ndjson"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "Ä",
        "\x00",
        *(
            to_text(inner)
            for inner in (
                b"",
                b"null",
                b"{}",
                b'[[1,1],[1,1],"\\u0000"]',
                b'[[1,1],[1,1],"\\ud800"]',
                b'[[1,1],[1,1],""]',
                b'[[1],[1,1],"1"]',
                b'["1","1","1"]',
                b'[[1,1],[1,1],"' + b"1" * 300 + b'"]',
            )
        ),
        "' OR 1=1 --",
    ],
)
def test_what_is_no_cursor_is_refused(client, two, text):
    assert refusal(client, "/api/v1/results/old/diff/new", cursor=text)[:2] == (
        400,
        "VALIDATION_ERROR",
    )


def test_a_cursor_of_other_scans_is_refused(client, database, two, truth):
    cursor = get(client, limit=5)["pagination"]["nextCursor"]
    code, error, _ = refusal(client, "/api/v1/results/old/diff/new", cursor=cursor)
    assert (code, error) == (409, "SNAPSHOT_REPLACED")


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 1001}, {"format": "xml"}])
def test_parameters_out_of_range_are_refused(client, two, params):
    assert refusal(client, "/api/v1/results/old/diff/new", **params)[0] == 400


def test_head_has_the_headers_alone(client, two):
    answer = client.head("/api/v1/results/old/diff/new", params={"format": "ndjson"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-ndjson")


def test_the_command_line_shows_a_diff(client, truth, monkeypatch):
    monkeypatch.setenv("HUBSPOT_DEALS_API_URL", str(client.base_url))

    shown = CliRunner().invoke(cli, ["diff", BIG_SCAN, LATER_SCAN, "--json", "--limit", "60"])

    assert shown.exit_code == 0, shown.output
    changes = json.loads(shown.stdout)["changes"]
    assert told(changes).items() <= truth.items()
    assert len(changes) == 60


def test_a_scan_that_is_started_anew_is_told_as_what_it_still_serves(client, two, database):
    before = get(client, "/api/v1/results/old/diff/new")["new"]
    served = {"filters": {"includeArchived": True}}
    database.execute(
        "UPDATE hubspot_deals.scans SET config = %s, ended_at = '2024-05-06Z'"
        " WHERE scan_id = 'new'",
        (Jsonb(served),),
    )
    completed = get(client, "/api/v1/results/old/diff/new")["new"]
    assert completed != before
    values = {
        "scan": "new",
        "organization": "org-1",
        "config": Jsonb({"filters": {"properties": ["amount"]}}),
        "hash": "",
        "request": None,
        "trace": None,
        "key": None,
        "limit": 5,
    }
    assert database.execute(acceptance._RESTART, values).rowcount == 1

    assert get(client, "/api/v1/results/old/diff/new")["new"] == completed
    assert get(client, "/api/v1/results/old/diff/new", summary=True)["new"] == completed
    database.execute(
        "UPDATE hubspot_deals.scans SET outcome = 'failed', ended_at = now() WHERE scan_id = 'new'"
    )
    assert get(client, "/api/v1/results/old/diff/new")["new"] == completed
