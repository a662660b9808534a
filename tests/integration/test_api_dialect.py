"""The verb-first paths over HTTP, on a real PostgreSQL: bodies, codes, and which scan is met."""

import itertools
import json
from functools import partial

import pytest

from tests.integration.test_api_control import put_scan
from tests.integration.test_api_scans import TOKEN

MOUNTS = ["", "/api/v1"]
NAMES = ["start", "list", "status", "result", "download", "cancel", "pause", "remove"]
BODY = {
    "scanId": "weekly-sync-001",
    "type": ["deals"],
    "auth": {"accessToken": TOKEN},
    "dateRange": {"startDate": "2024-01-01", "endDate": "2024-01-31"},
}


@pytest.fixture
def put(database):
    """Puts a scan of `org-1` with five deals into a state, and returns its id."""
    return partial(put_scan, database)


def begin(client, scan_id="weekly-sync-001", *, mount="", headers=None, **changes):
    config = BODY | {"scanId": scan_id} | changes
    return client.post(f"{mount}/scan/start", json={"config": config}, headers=headers)


def test_a_start_has_the_fields_of_both_documents(client):
    answer = begin(client)

    body = answer.json()
    assert answer.status_code == 202
    assert body.pop("timestamp").endswith("Z")
    assert body == {
        "success": True,
        "message": "Scan initialization accepted and is now processing in the background.",
        "scanId": "weekly-sync-001",
        "status": "started",
        "data": {"scanId": "weekly-sync-001", "status": "pending"},
    }
    warned = begin(client, "another", user_upns=["alice@company.com"]).json()
    assert "user_upns" in warned["data"]["warnings"][0]


@pytest.mark.parametrize("mount", MOUNTS)
def test_calendars_are_not_available_yet(client, mount):
    answer = begin(client, mount=mount, type=["calendar"], auth={"[auth_key_1]": "x"})

    body = answer.json()
    assert answer.status_code == 400
    assert 'Type "calendar" is not available yet' in body["message"]
    assert body["errors"].keys() == {"config.type"}
    assert (body["code"], body["status"]) == ("SOURCE_UNAVAILABLE", "error")
    assert body["error_code"] == ("SOURCE_UNAVAILABLE" if mount else "VALIDATION_ERROR")


@pytest.mark.parametrize("mount", MOUNTS)
def test_a_status_is_always_200_and_has_nulls_where_there_is_no_extraction(client, put, mount):
    shown = client.get(f"{mount}/scan/status/{put('failed')}")
    unknown = client.get(f"{mount}/scan/status/nobody")
    malformed = client.get(f"{mount}/scan/status/no%20body")

    assert (shown.status_code, unknown.status_code, malformed.status_code) == (200, 200, 400)
    known = shown.json()
    assert (known["scanId"], known["status"]) == ("is-failed", "failed")
    assert known["created_at"].endswith("Z")
    assert known["progress"]["total_events_extracted"] == 5
    assert unknown.json() == dict.fromkeys(
        ["id", "scanId", "started_at", "completed_at", "error_message", "created_at", "updated_at"]
    ) | {"status": "not_found"}
    assert malformed.json()["errors"].keys() == {"scan_id"}
    assert malformed.json()["error_code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize("mount", MOUNTS)
def test_an_extraction_is_cancelled_and_removed_in_the_documents_words(client, put, mount):
    cancelled = client.post(f"{mount}/scan/cancel/{put('running')}").json()
    again = client.post(f"{mount}/scan/cancel/is-running")
    removed = client.delete(f"{mount}/scan/remove/is-running").json()
    gone = client.delete(f"{mount}/scan/remove/is-running")

    assert (cancelled["message"], cancelled["status"], cancelled["scanId"]) == (
        "Extraction cancelled successfully",
        "cancelled",
        "is-running",
    )
    assert (again.status_code, again.json()["code"]) == (400, "SCAN_STATE")
    assert (removed["message"], removed["status"]) == (
        "Extraction and 5 records removed successfully",
        "removed",
    )
    assert (gone.status_code, gone.json()["error_code"], gone.json()["resource_id"]) == (
        404,
        "NOT_FOUND",
        "is-running",
    )


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_pages_by_number_are_the_whole_table_once(client, put, mount, size):
    path, page, ids = f"{mount}/scan/result/{put('completed')}", 1, []
    while page is not None:
        body = client.get(path, params={"page": page, "page_size": size}).json()
        pagination = body["pagination"]
        assert pagination["current_page"] == page
        assert body["count"] == len(body["data"])
        assert body["total_count"] == pagination["total_events"] == 5
        ids += [deal["id"] for deal in body["data"]]
        page = pagination["next_page"]

    assert ids == ["1", "2", "3", "4", "5"]
    assert (body["status"], body["scanId"], body["snapshot"]) == ("completed", "is-completed", 1)


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_pages_by_cursor_and_link_are_the_whole_table_once(client, put, mount, size):
    path = f"{mount}/scan/result/{put('completed')}?page_size={size}"
    ids = []
    while path is not None:
        answer = client.get(path)
        body, place = answer.json(), answer.json()["pagination"]
        ids += [deal["id"] for deal in body["data"]]
        assert [
            int(answer.headers[f"X-Pagination-{name}"])
            for name in ("Page", "Limit", "Total", "Pages")
        ] == [place["current_page"], size, 5, place["total_pages"]]
        path = answer.links["next"]["url"] if "next" in answer.links else None
        assert (path is None) == (place["next_cursor"] is None) == (not place["has_next"])

    assert ids == ["1", "2", "3", "4", "5"]


def test_a_cursor_goes_on_in_the_other_grammar_and_with_its_page_size(client, put):
    scan_id = put("completed")
    path, first = f"/scan/result/{scan_id}", {"page_size": 2}
    cursor = client.get(path, params=first).json()["pagination"]["next_cursor"]

    there = client.get(
        f"/api/v1/results/{scan_id}/result", params={"tableName": "deals", "cursor": cursor}
    )
    faults = [
        client.get(path, params=wrong).json()["errors"].keys()
        for wrong in (
            {"cursor": cursor, "page": 1},
            {"cursor": cursor, "page_size": 3},
            {"cursor": "x"},
        )
    ]

    assert [deal["id"] for deal in there.json()["data"]["records"]] == ["3", "4", "5"]
    assert faults == [{"cursor"}, {"page_size"}, {"cursor"}]


def test_labels_and_columns_are_the_same_in_both_grammars(client, put):
    scan_id = put("completed")
    page = client.get(f"/scan/result/{scan_id}?expand=labels&page_size=1").json()["data"]
    files = [
        client.get(f"{path}?tableName=deals&expand=labels&columns=id,pipeline_label&raw=true")
        for path in (f"/scan/download/{scan_id}/csv", f"/api/v1/results/{scan_id}/download/csv")
    ]

    assert {"dealstage_label", "pipeline_label", "owner_email"} <= page[0].keys()
    assert files[0].text.startswith('"id","pipeline_label"')
    assert files[0].content == files[1].content


@pytest.mark.parametrize("status", ["pending", "running", "paused", "failed", "cancelled"])
def test_what_has_no_result_yet_has_an_empty_page_and_no_file(client, put, status):
    scan_id = put(status)

    page = client.get(f"/scan/result/{scan_id}")
    file = client.get(f"/scan/download/{scan_id}/csv")

    assert (page.status_code, page.json()["data"], page.json()["snapshot"]) == (200, [], None)
    assert page.json()["pagination"]["has_next"] is False
    assert (file.status_code, file.json()["code"]) == (400, "SCAN_NOT_COMPLETED")


@pytest.mark.parametrize(
    ("query", "faulty"),
    [
        ("page=0", "page"),
        ("page=x", "page"),
        ("page=9223372036854775808", "page"),
        ("page_size=0", "page_size"),
        ("page_size=1001", "page_size"),
        ("snapshot=0", "snapshot"),
    ],
)
def test_page_numbers_out_of_range_are_named(client, put, query, faulty):
    answer = client.get(f"/scan/result/{put('completed')}?{query}")

    assert answer.status_code == 400
    assert answer.json()["errors"].keys() == {faulty}


def test_the_last_page_number_there_can_be_is_answered(client, put):
    path = f"/scan/result/{put('completed')}?page=9223372036854774&page_size=1000"

    assert client.get(path).json()["pagination"]["previous_page"] == 1


@pytest.mark.parametrize("mount", MOUNTS)
def test_files_have_the_documented_types_and_a_name(client, put, mount):
    scan_id = put("completed")
    files = {
        form: client.get(f"{mount}/scan/download/{scan_id}/{form}")
        for form in ("json", "csv", "excel")
    }

    assert {
        form: file.headers["content-type"].partition(";")[0] for form, file in files.items()
    } == {
        "json": "application/json",
        "csv": "text/csv",
        "excel": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    }
    assert all("filename=" in file.headers["content-disposition"] for file in files.values())
    assert [deal["id"] for deal in json.loads(files["json"].content)] == ["1", "2", "3", "4", "5"]
    assert b"\n  " in files["json"].content, "it is to be pretty"
    assert files["csv"].content.splitlines()[0] == b'"id"'
    assert files["excel"].content.startswith(b"PK")
    refused = client.get(f"{mount}/scan/download/{scan_id}/pdf")
    assert (refused.status_code, refused.json()["error_code"]) == (400, "VALIDATION_ERROR")
    missing = client.get(f"{mount}/scan/download/nobody/csv")
    assert (missing.status_code, missing.json()["error_code"]) == (404, "NOT_FOUND")


def test_problem_details_are_sent_to_who_asks_for_them(client):
    answer = client.get(
        "/api/v1/scan/nobody/status", headers={"Accept": "application/problem+json"}
    )

    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (body["status"], body["title"], body["type"]) == (404, "Not Found", "about:blank")
    assert body["detail"] == body["message"]
    assert (body["error_code"], body["resource_id"]) == ("SCAN_NOT_FOUND", "nobody")


def test_health_and_statistics_are_the_same_on_both_mounts(client):
    for name in ("health", "stats"):
        bodies = [client.get(f"{mount}/{name}").json() for mount in MOUNTS]
        assert bodies[0].keys() == bodies[1].keys()
        assert bodies[0]["data"].keys() == bodies[1]["data"].keys()


def test_statistics_are_measured(client):
    for _ in range(3):
        client.get("/scan/status/nobody")

    shown = client.get("/stats").json()

    assert shown["total_requests"] >= 3
    assert shown["active_connections"] >= 1
    assert (shown["success_rate"], shown["errors_last_hour"]) == (100.0, 0)
    assert 0 < shown["average_response_time"] < 60_000
    assert int(shown["memory_usage"].removesuffix("MB")) > 10
    assert float(shown["cpu_usage"].removesuffix("%")) >= 0
    assert shown["uptime"].count(":") == 2
    assert shown["last_restart"].endswith("Z")
    assert shown["data"]["total_jobs"] == 0


VERB_FIRST = {("GET", "status"), ("GET", "result"), ("POST", "cancel")}
ID_FIRST = {("GET", "status"), ("POST", "cancel"), ("POST", "pause"), ("POST", "resume")}


def who_is_met(answer, first, last):
    """The scan that an answer to /scan/first/last is of, and whether it is told verb first."""
    body = answer.json()
    if answer.status_code == 200:
        facts = body if "scanId" in body else body["data"]
        return facts["scanId"], "scanId" in body
    assert body["code"] == "SCAN_STATE"
    (scan_id,) = [name for name in {first, last} if f"Scan '{name}' cannot be" in body["message"]]
    return scan_id, body["error_code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize("mount", MOUNTS)
def test_of_two_verbs_each_mount_takes_its_own_grammar(client, put, mount):
    for name in NAMES:
        put("completed", name)

    for first, last, method in itertools.product(NAMES, NAMES, ["GET", "POST"]):
        answer = client.request(method, f"{mount}/scan/{first}/{last}")

        by_verb, by_id = (method, first) in VERB_FIRST, (method, last) in ID_FIRST
        is_verb_first = by_verb and not (by_id and mount)
        if by_verb or by_id:
            met = (last if is_verb_first else first, is_verb_first)
            assert who_is_met(answer, first, last) == met, (method, first, last)
        else:
            assert answer.status_code in {404, 405}, (method, first, last)


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("other", NAMES)
def test_a_removal_meets_the_scan_that_the_mounts_grammar_names(client, put, mount, other):
    for name in {"remove", other}:
        put("completed", name)

    by_verb = client.delete(f"{mount}/scan/remove/{other}").json()

    assert by_verb["data"]["scanId"] == other
    assert ("status" in by_verb) is (not mount or other != "remove")
    assert client.get(f"/scan/status/{other}").json()["status"] == "not_found"
    if other != "remove":
        by_id = client.delete(f"{mount}/scan/remove/remove").json()
        assert by_id["data"]["scanId"] == "remove"
