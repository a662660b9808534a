"""Listing and counting scans over HTTP, on a real PostgreSQL."""

import pytest

from tests.integration.test_api_scans import start


def test_a_list_is_newest_first_and_pages_add_up(client):
    for number in range(5):
        start(client, f"scan-{number}")

    pages = [
        client.get(f"/api/v1/scan/list?limit=2&offset={offset}").json()["data"]
        for offset in (0, 2, 4, 6)
    ]

    ids = [shown["scanId"] for page in pages for shown in page["scans"]]
    assert ids == ["scan-4", "scan-3", "scan-2", "scan-1", "scan-0"]
    assert [page["pagination"]["hasMore"] for page in pages] == [True, True, False, False]
    assert pages[0]["pagination"] == {
        "total": 5,
        "limit": 2,
        "offset": 0,
        "hasMore": True,
        "returned": 2,
        "nextCursor": pages[0]["pagination"]["nextCursor"],
    }
    assert set(pages[0]["scans"][0]) == {
        "scanId",
        "organizationId",
        "status",
        "startTime",
        "endTime",
        "recordsExtracted",
    }


def test_scans_that_come_and_go_do_not_move_the_pages_of_a_cursor(client, database):
    for number in range(7):
        start(client, f"scan-{number}")

    answer, ids, links = client.get("/api/v1/scan/list?limit=2"), [], []
    while True:
        ids += [shown["scanId"] for shown in answer.json()["data"]["scans"]]
        start(client, f"later-{len(ids)}")
        database.execute("DELETE FROM hubspot_deals.scans WHERE scan_id = %s", (ids[-1],))
        if "next" not in answer.links:
            break
        cursor = answer.json()["data"]["pagination"]["nextCursor"]
        links.append(answer.links["next"]["url"])
        answer = client.get("/api/v1/scan/list", params={"limit": 2, "cursor": cursor})
        assert answer.json() == client.get(links[-1]).json()

    assert ids == [f"scan-{number}" for number in range(6, -1, -1)]
    assert answer.json()["data"]["pagination"]["nextCursor"] is None
    assert len(links) == 3


@pytest.mark.parametrize(
    "query", ["cursor=x", "organizationId=org-2&cursor={}", "offset=0&cursor={}"]
)
def test_a_cursor_of_another_list_is_refused(client, query):
    for number in range(2):
        start(client, f"scan-{number}", "org-1")
    page = client.get("/api/v1/scan/list?limit=1&organizationId=org-1").json()["data"]

    answer = client.get(f"/api/v1/scan/list?{query}".format(page["pagination"]["nextCursor"]))

    assert answer.status_code == 400
    assert list(answer.json()["validation_errors"]) == ["cursor"]


def test_a_list_can_be_one_organizations(client):
    start(client, "scan-1", "org-1")
    start(client, "scan-2", "org-2")

    page = client.get("/api/v1/scan/list", params={"organizationId": "org-2"}).json()["data"]

    assert [shown["scanId"] for shown in page["scans"]] == ["scan-2"]
    assert page["pagination"]["total"] == 1


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("limit=0", "Limit must be at least 1"),
        ("limit=1001", "Limit must be at most 1000"),
        ("limit=ten", "Limit must be a whole number"),
        ("limit=", "Limit must be a whole number"),
        ("offset=-1", "Offset must be at least 0"),
        ("offset=9223372036854775808", "Offset must be at most"),
        (f"offset={'9' * 5_000}", "Offset"),
        ("organizationId=", "Organization ID must be"),
        ("organizationId=a%00b", "Organization ID must be"),
    ],
)
def test_faulty_paging_is_named_at_its_parameter(client, query, fault):
    answer = client.get(f"/api/v1/scan/list?{query}")

    assert answer.status_code == 400
    (texts,) = answer.json()["validation_errors"].values()
    assert texts[0].startswith(fault)


def test_the_largest_page_and_offset_are_served(client):
    answer = client.get(f"/api/v1/scan/list?limit=1000&offset={2**63 - 1 - 1000}")

    assert answer.status_code == 200
    assert answer.json()["data"]["pagination"]["returned"] == 0


def test_statistics_count_scans_by_status(client, database):
    start(client, "scan-1", "org-1")
    start(client, "scan-2", "org-2")
    start(client, "scan-3", "org-2")
    database.execute(
        "UPDATE hubspot_deals.scans SET outcome = 'completed', started_at = now(),"
        " records_extracted = 7, created_at = now() - interval '8 days' WHERE scan_id = 'scan-3'"
    )

    every = client.get("/api/v1/stats").json()["data"]
    own = client.get("/api/v1/stats?organizationId=org-1").json()["data"]

    assert every.pop("generated_at").endswith("Z")
    assert every == {
        "total_jobs": 3,
        "status_breakdown": {"pending": 2, "completed": 1},
        "recent_jobs_7_days": 2,
        "total_records_extracted": 7,
        "organization_filter": None,
    }
    assert (own["total_jobs"], own["organization_filter"]) == (1, "org-1")
