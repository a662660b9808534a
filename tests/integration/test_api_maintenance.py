"""Cleaning up old results and finding crashed scans over HTTP, on a real PostgreSQL."""

import pytest

from tests.integration.test_api_control import put, stored_deals
from tests.integration.test_api_scans import status_of, wait_for

__all__ = ["put"]

CLEANUP = "/api/v1/maintenance/cleanup"
DETECT = "/api/v1/maintenance/detect-crashed"
JSON = {"Content-Type": "application/json"}


def age(database, days):
    """Let everything have happened so many days earlier."""
    database.execute(
        "UPDATE hubspot_deals.scans SET created_at = created_at - make_interval(days => %(days)s),"
        " started_at = started_at - make_interval(days => %(days)s),"
        " heartbeat_at = heartbeat_at - make_interval(days => %(days)s),"
        " ended_at = ended_at - make_interval(days => %(days)s)",
        {"days": days},
    )


def listed(client):
    page = client.get("/api/v1/scan/list").json()["data"]
    return {scan["scanId"]: scan["status"] for scan in page["scans"]}


def test_a_cleanup_removes_old_results_and_keeps_what_is_told_of_the_scans(client, database, put):
    for status in ("completed", "failed", "cancelled", "crashed", "paused", "pending"):
        put(status)
    age(database, 8)
    put("completed", "young")
    before = listed(client)

    answer = client.post(CLEANUP)

    assert answer.json() == {
        "success": True,
        "message": "Successfully cleaned up 4 old scan results",
        "data": {"cleanedCount": 4, "daysOld": 7},
    }
    wait_for(lambda: stored_deals(database) == {"is-paused": 5, "is-pending": 5, "young": 5})
    # Without its rows a crashed scan has nothing left to go on with.
    assert listed(client) == before | {"is-crashed": "failed"}
    for status in ("completed", "failed", "cancelled", "crashed"):
        shown = status_of(client, f"is-{status}")
        kept = "failed" if status == "crashed" else status
        assert (shown["status"], shown["recordsExtracted"]) == (kept, 5)
        assert shown["metadata"]["resultsRemovedAt"].endswith("Z")
        assert client.post(f"/api/v1/scan/is-{status}/resume").status_code == 400
    assert "resultsRemovedAt" not in status_of(client, "young")["metadata"]


@pytest.mark.parametrize("path", ["tables", "result"])
def test_results_that_were_cleaned_up_are_not_found_and_the_text_says_why(
    client, database, put, path
):
    put("completed")
    age(database, 8)
    client.post(CLEANUP)

    answer = client.get(f"/api/v1/results/is-completed/{path}")

    assert answer.status_code == 404
    assert answer.json()["error_code"] == "RESULTS_REMOVED"
    assert "start a new scan" in answer.json()["message"]


def test_results_are_cleaned_up_once_and_purged_once(client, database, put):
    put("completed")
    age(database, 8)
    counts = [
        client.post(url).json()["data"]["cleanedCount"]
        for url in (CLEANUP, CLEANUP, f"{CLEANUP}?purge=true")
    ]
    # A scan whose rows are still being deleted is left to whoever deletes them.
    assert counts in ([1, 0, 1], [1, 0, 0])
    wait_for(
        lambda: (
            client.post(f"{CLEANUP}?purge=true").json()["data"]["cleanedCount"] == 0
            and listed(client) == {}
        )
    )


def test_a_purge_removes_old_scans_and_no_others(client, database, put):
    put("completed")
    put("paused")
    age(database, 31)
    put("failed")

    answer = client.post(f"{CLEANUP}?purge=true", json={"daysOld": 30})

    assert answer.json()["data"] == {"cleanedCount": 1, "daysOld": 30}
    assert listed(client) == {"is-paused": "paused", "is-failed": "failed"}
    wait_for(lambda: set(stored_deals(database)) == {"is-paused", "is-failed"})


@pytest.mark.parametrize(
    ("body", "days"),
    [
        (b"", 7),
        (b"{}", 7),
        (b"null", 7),
        (b'{"daysOld": null}', 7),
        (b'{"daysOld": 1}', 1),
        (b'{"days_old": 365}', 365),
        (b"\xef\xbb\xbf{}", 7),
    ],
)
def test_a_cleanup_needs_no_body(client, body, days):
    answer = client.post(CLEANUP, content=body, headers=JSON)

    assert answer.json()["data"] == {"cleanedCount": 0, "daysOld": days}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b'{"daysOld": 0}', "Days old must be at least 1"),
        (b'{"daysOld": 366}', "Days old must be at most 365"),
        (b'{"daysOld": -7}', "Days old must be at least 1"),
        (b'{"daysOld": "7"}', "Days old must be a whole number"),
        (b'{"daysOld": 7.5}', "Days old must be a whole number"),
        (b'{"daysOld": true}', "Days old must be a whole number"),
        (b'{"daysOld": [7]}', "Days old must be a whole number"),
        (b'{"daysOld": 18446744073709551616}', "Days old must be"),
        (b'{"daysold": 365}', "Unknown field"),
        (b'{"daysOld": 30, "purge": true}', "Unknown field"),
        (b"[]", "must be a JSON object"),
        (b"7", "must be a JSON object"),
        (b'{"daysOld": 30', "not valid JSON"),
        (b'{"daysOld": NaN}', "not valid JSON"),
    ],
)
def test_a_faulty_cleanup_removes_nothing(client, database, put, body, fault):
    put("completed")
    age(database, 400)

    answer = client.post(CLEANUP, content=body, headers=JSON)

    assert answer.status_code == 400
    assert fault in str(answer.json()["validation_errors"])
    assert stored_deals(database) == {"is-completed": 5}


def test_a_cleanup_sent_as_a_form_is_refused(client):
    answer = client.post(CLEANUP, data={"daysOld": "30"})

    assert answer.status_code == 400
    assert "application/json" in answer.json()["message"]


@pytest.mark.parametrize(
    ("url", "parameter", "fault"),
    [
        (f"{CLEANUP}?purge=perhaps", "purge", "Purge must be true or false"),
        (f"{CLEANUP}?purge=", "purge", "Purge must be true or false"),
        (f"{CLEANUP}?daysOld=30", "daysOld", "Unknown field"),
        (f"{DETECT}?timeoutMinutes=0", "timeoutMinutes", "Timeout minutes must be at least 1"),
        (f"{DETECT}?timeoutMinutes=1441", "timeoutMinutes", "Timeout minutes must be at most 1440"),
        (f"{DETECT}?timeoutMinutes=ten", "timeoutMinutes", "Timeout minutes must be a whole"),
        (f"{DETECT}?timeoutMinutes=", "timeoutMinutes", "Timeout minutes must be a whole"),
        (f"{DETECT}?timeoutMinutes={'9' * 5_000}", "timeoutMinutes", "Timeout minutes"),
        (f"{DETECT}?timeout=60", "timeout", "Unknown field"),
    ],
)
def test_a_faulty_or_unknown_parameter_is_named(client, url, parameter, fault):
    answer = client.post(url)

    assert answer.status_code == 400
    (text,) = answer.json()["validation_errors"][parameter]
    assert text.startswith(fault)


def test_scans_without_worker_are_detected_by_their_ids(client, put):
    for status in ("crashed", "completed", "paused", "pending", "running"):
        put(status)

    answer = client.post(f"{DETECT}?timeoutMinutes=30")

    assert answer.json() == {
        "success": True,
        "message": "Detected 1 crashed jobs",
        "data": {"crashedJobIds": ["is-crashed"], "crashedCount": 1, "timeoutMinutes": 30},
    }


def test_a_worker_that_makes_no_progress_is_shut_out(client, database, put):
    for scan_id in ("slow", "stuck"):
        put("running", scan_id)
    database.execute(
        "UPDATE hubspot_deals.scans SET auto_resume_limit = 0,"
        " progress_at = now() - CASE scan_id WHEN 'slow' THEN interval '9 minutes'"
        " ELSE interval '11 minutes' END"
    )

    found = client.post(DETECT).json()["data"]

    assert found == {"crashedJobIds": ["stuck"], "crashedCount": 1, "timeoutMinutes": 10}
    assert listed(client) == {"slow": "running", "stuck": "crashed"}


def test_a_scan_that_may_be_resumed_by_itself_is_detected_and_resumes(client, database, put):
    put("crashed")
    database.execute("UPDATE hubspot_deals.scans SET auto_resume_limit = 5")

    assert client.post(DETECT).json()["data"]["crashedJobIds"] == ["is-crashed"]
    assert listed(client) == {"is-crashed": "resuming"}
