"""Paging through a completed scan's tables over HTTP, on a real PostgreSQL."""

import pytest
from psycopg.types.json import Jsonb

DEAL_COLUMNS = ["id", "dealname", "amount", "archived", "archivedAt"]


@pytest.fixture
def completed(database):
    """A completed scan of five deals in two chunks, two users and one stage."""
    add_scan(database, "scan-1", outcome="completed")
    add_table(database, "scan-1", "deals", 5, DEAL_COLUMNS)
    add_chunk(database, "scan-1", "deals", 1, "load-1", first_row=1, rows=3)
    add_chunk(database, "scan-1", "deals", 2, "load-2", first_row=4, rows=2)
    for number in range(1, 6):
        add_deal(database, "scan-1", number, "load-1" if number <= 3 else "load-2")
    add_table(database, "scan-1", "users", 2, ["id", "email", "created_at", "teams"])
    add_chunk(database, "scan-1", "users", 1, "load-u", first_row=1, rows=2)
    for number in (1, 2):
        add_row(
            database,
            "users",
            {
                "scan_id": "scan-1",
                "row_no": number,
                "_dlt_load_id": "load-u",
                "id": str(number),
                "email": f"{number}@example.com",
                "created_at": "2024-01-15T12:00:00+02:00",
                "teams": Jsonb([{"id": number}]),
            },
        )
    add_table(database, "scan-1", "pipeline_stages", 1, ["id", "probability", "is_closed"])
    add_chunk(database, "scan-1", "pipeline_stages", 1, "load-s", first_row=1, rows=1)
    add_row(
        database,
        "pipeline_stages",
        {
            "scan_id": "scan-1",
            "row_no": 1,
            "_dlt_load_id": "load-s",
            "id": "won",
            "probability": "0.2",
            "is_closed": False,
        },
    )


def add_scan(database, scan_id, outcome):
    database.execute(
        "INSERT INTO hubspot_deals.scans (scan_id, organization_id, config, request_hash,"
        " outcome, generation, started_at, ended_at) VALUES (%s, 'org-1', %s, '', %s, %s,"
        " now(), now())",
        (scan_id, Jsonb({"type": ["user"]}), outcome, int(outcome == "completed")),
    )


def add_table(database, scan_id, name, rows, columns):
    database.execute(
        "INSERT INTO hubspot_deals.scan_tables VALUES (%s, 1, %s, %s, %s, %s)",
        (scan_id, name, rows, rows, columns),
    )


def add_chunk(database, scan_id, table, number, load_id, *, first_row, rows):
    database.execute(
        "INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no,"
        " load_id, first_row, row_count, epoch) VALUES (%s, 1, %s, %s, %s, %s, %s, 1)",
        (scan_id, table, number, load_id, first_row, rows),
    )


def add_deal(database, scan_id, number, load_id):
    properties = {"dealname": f"Deal {number}, Ærø & Søn", "amount": "50000.10"}
    add_row(
        database,
        "deals",
        {
            "scan_id": scan_id,
            "row_no": number,
            "_dlt_load_id": load_id,
            "id": str(9_007_199_254_740_993 + number),
            "archived": number == 5,
            "archived_at": "2024-02-01T00:00:00Z" if number == 5 else None,
            "properties": Jsonb(properties if number > 1 else properties | {"amount": None}),
        },
    )


def add_row(database, table, values):
    names = ", ".join(values)
    marks = ", ".join(["%s"] * len(values))
    database.execute(
        f"INSERT INTO hubspot_deals_extraction.{table} ({names}) VALUES ({marks})",
        list(values.values()),
    )


def page(client, scan_id="scan-1", **query):
    return client.get(f"/api/v1/results/{scan_id}/result", params=query)


def test_the_tables_of_a_completed_scan_are_listed(client, completed):
    answer = client.get("/api/v1/results/scan-1/tables")

    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "data": {
            "scanId": "scan-1",
            "datasetName": "hubspot_deals_extraction",
            "tables": [
                {"name": "users", "rowCount": 2, "extractedCount": 2},
                {"name": "deals", "rowCount": 5, "extractedCount": 5},
                {"name": "pipeline_stages", "rowCount": 1, "extractedCount": 1},
            ],
            "totalTables": 3,
        },
    }


def test_a_page_has_the_documented_fields_and_exact_values(client, completed):
    data = page(client, tableName="deals", limit=2).json()["data"]

    assert data == {
        "scanId": "scan-1",
        "tableName": "deals",
        "defaultedTable": False,
        "records": [
            {
                "id": "9007199254740994",
                "dealname": "Deal 1, Ærø & Søn",
                "amount": None,
                "archived": False,
                "archivedAt": None,
            },
            {
                "id": "9007199254740995",
                "dealname": "Deal 2, Ærø & Søn",
                "amount": "50000.10",
                "archived": False,
                "archivedAt": None,
            },
        ],
        "pagination": {
            "total": 5,
            "limit": 2,
            "offset": 0,
            "hasMore": True,
            "returned": 2,
            "nextCursor": data["pagination"]["nextCursor"],
        },
        "availableTables": ["users", "deals", "pipeline_stages"],
        "columns": DEAL_COLUMNS,
        "snapshot": 1,
    }


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 1000])
def test_the_documented_loop_reads_every_record_once(client, completed, limit):
    offset, ids = 0, []
    while True:
        data = page(client, tableName="deals", limit=limit, offset=offset).json()["data"]
        ids += [record["id"] for record in data["records"]]
        if not data["pagination"]["hasMore"]:
            break
        offset += limit

    assert ids == [str(9_007_199_254_740_993 + number) for number in range(1, 6)]


def test_the_other_spelling_of_a_parameter_means_the_same(client, completed):
    data = page(client, table_name="deals", page=1, pageSize=2).json()["data"]

    assert (data["tableName"], data["pagination"]["limit"]) == ("deals", 2)


def test_without_a_name_the_users_are_served_and_the_answer_says_so(client, completed):
    data = page(client).json()["data"]

    assert (data["tableName"], data["defaultedTable"]) == ("users", True)
    assert data["pagination"]["limit"] == 100
    assert data["records"][0] == {
        "id": "1",
        "email": "1@example.com",
        "created_at": "2024-01-15T10:00:00.000Z",
        "teams": [{"id": 1}],
    }


def test_a_stored_decimal_is_text_without_the_padding_of_its_column(client, completed):
    (stage,) = page(client, tableName="pipeline_stages").json()["data"]["records"]

    assert stage == {"id": "won", "probability": "0.2", "is_closed": False}


def test_rows_of_a_package_without_a_chunk_are_never_served(client, database, completed):
    add_deal(database, "scan-1", 6, "killed-load")

    data = page(client, tableName="deals", limit=1000).json()["data"]

    assert data["pagination"]["returned"] == 5


def test_a_page_past_the_end_is_empty(client, completed):
    data = page(client, tableName="deals", offset=2**63 - 1 - 1000).json()["data"]

    assert data["records"] == []
    assert data["pagination"]["hasMore"] is False


@pytest.mark.parametrize("offset", [2**15 - 1, 2**31 - 1, 2**63 - 1 - 1_000])
def test_the_end_of_a_page_may_need_a_wider_number_than_its_offset(client, completed, offset):
    for limit in (1, 1_000):
        answer = page(client, tableName="deals", offset=offset, limit=limit)

        assert (answer.status_code, answer.json()["data"]["records"]) == (200, [])


@pytest.mark.parametrize("outcome", [None, "failed", "cancelled"])
def test_results_of_a_scan_that_is_not_completed_are_refused(client, database, outcome):
    add_scan(database, "scan-2", outcome)
    status = outcome or "resuming"

    for path in ("tables", "result"):
        answer = client.get(f"/api/v1/results/scan-2/{path}")
        assert answer.status_code == 400
        assert f"its status is {status}" in answer.json()["message"]


@pytest.mark.parametrize("name", ["", "nobody", "scans", "Deals", "deals--", "a\x00b"])
def test_an_unknown_table_is_refused_with_those_that_exist(client, completed, name):
    answer = page(client, tableName=name)

    assert answer.status_code == 400
    assert answer.json()["message"].endswith("available: users, deals, pipeline_stages")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"offset": -1}, "offset"),
        ({"offset": 2**63}, "offset"),
        ({"limit": "ten"}, "limit"),
        ({"limit": 1.5}, "limit"),
    ],
)
def test_faulty_paging_is_named_at_its_parameter(client, completed, query, name):
    answer = page(client, **query)

    assert answer.status_code == 400
    assert list(answer.json()["validation_errors"]) == [name]


def test_both_paging_faults_are_named_at_once(client, completed):
    answer = page(client, limit=0, offset=-1)

    assert set(answer.json()["validation_errors"]) == {"limit", "offset"}


def test_a_head_request_has_the_headers_of_the_page_and_no_body(client, completed):
    url = "/api/v1/results/scan-1/result"

    head, get = client.head(url), client.get(url)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


def test_pages_of_one_snapshot_are_refused_once_a_rerun_has_replaced_it(
    client, completed, database
):
    snapshot = page(client, tableName="deals", limit=2).json()["data"]["snapshot"]
    second = page(client, tableName="deals", limit=2, offset=2, snapshot=snapshot)
    for table in ("scans", "scan_tables", "scan_chunks"):
        database.execute(f"UPDATE hubspot_deals.{table} SET generation = 2")

    refused = page(client, tableName="deals", limit=2, offset=4, snapshot=snapshot)
    afresh = page(client, tableName="deals", limit=2)

    assert (second.status_code, second.json()["data"]["snapshot"]) == (200, snapshot)
    assert (refused.status_code, refused.json()["error_code"]) == (409, "SNAPSHOT_REPLACED")
    assert "start over" in refused.json()["message"]
    assert (afresh.status_code, afresh.json()["data"]["snapshot"]) == (200, 2)


@pytest.mark.parametrize("snapshot", ["0", "-1", "1.5", "latest", ""])
def test_a_snapshot_that_cannot_be_one_is_a_fault_of_the_request(client, completed, snapshot):
    answer = page(client, tableName="deals", snapshot=snapshot)

    assert answer.status_code == 400
    assert list(answer.json()["validation_errors"]) == ["snapshot"]


def test_a_scan_that_takes_a_removed_ones_id_is_not_mistaken_for_it(client, completed, database):
    before = page(client, tableName="deals").json()["data"]
    database.execute("DELETE FROM hubspot_deals.scans WHERE scan_id = 'scan-1'")
    database.execute("DELETE FROM hubspot_deals_extraction.deals")
    add_scan(database, "scan-1", outcome="completed")
    add_table(database, "scan-1", "deals", 1, ["id", "dealname"])
    add_chunk(database, "scan-1", "deals", 1, "load-1", first_row=1, rows=1)
    add_deal(database, "scan-1", 1, "load-1")

    after = page(client, tableName="deals").json()["data"]

    assert (before["pagination"]["total"], before["columns"]) == (5, DEAL_COLUMNS)
    assert (after["pagination"]["total"], after["columns"]) == (1, ["id", "dealname"])
    assert after["records"] == [{"id": "9007199254740994", "dealname": "Deal 1, Ærø & Søn"}]
    assert after["availableTables"] == ["deals"]


def test_a_completed_scan_without_tables_has_none(client, database):
    add_scan(database, "scan-1", outcome="completed")

    assert client.get("/api/v1/results/scan-1/tables").json()["data"]["tables"] == []
    assert page(client).json()["error_code"] == "UNKNOWN_TABLE"
