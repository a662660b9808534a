"""Labels beside the ids of deals, on pages and in files, on a real PostgreSQL."""

import io
import json

import openpyxl
import pytest
from pyarrow import parquet

from tests.integration.test_api_pages import URL, add_scan, get


def test_labels_are_of_the_deals_own_pipeline_owner_and_snapshot(client, database):
    add_scan(database, "scan-1", 4)
    add_labels(database)
    plain = get(client, "scan-1").json()["data"]
    page = get(client, "scan-1", expand="labels", sort="amount").json()["data"]
    users = client.get(URL.format("scan-1"), params={"tableName": "users", "expand": "labels"})
    database.execute("UPDATE hubspot_deals_extraction.deals SET pipeline = NULL")
    unknown = get(client, "scan-1", expand="labels").json()["data"]["records"]
    database.execute("UPDATE hubspot_deals_extraction.deals SET pipeline = 'main'")
    csv = client.get(
        "/api/v1/results/scan-1/download/csv",
        params={
            "tableName": "deals",
            "columns": "id,dealstage_label,pipeline_label,owner_email",
            "expand": "labels",
        },
    )
    unexpanded = client.get(
        "/api/v1/results/scan-1/download/csv",
        params={"tableName": "deals", "columns": "id,owner_email"},
    )

    new = ["dealstage_label", "pipeline_label", "owner_email"]
    assert page["columns"] == [*plain["columns"], *new]
    assert [list(record) for record in page["records"]] == [page["columns"]] * 4
    assert {record["id"]: [record[name] for name in new] for record in page["records"]} == {
        "1": [None, "Main", "one@example.com"],
        "2": ["=Two", "Main", None],
        "3": ["Three", "Main", None],
        "4": [None, "Main", "zero@example.com"],
    }
    assert [
        {name: value for name, value in record.items() if name not in new}
        for record in sorted(page["records"], key=lambda record: record["id"])
    ] == plain["records"]
    # Two pipelines have a stage-2.
    assert [record["dealstage_label"] for record in unknown] == [None, None, "Three", None]
    assert "owner_email" not in users.json()["data"]["columns"]
    assert csv.text.splitlines() == [
        '"id","dealstage_label","pipeline_label","owner_email"',
        '"1",,"Main","one@example.com"',
        '"2","\'=Two","Main",',
        '"3","Three","Main",',
        '"4",,"Main","zero@example.com"',
    ]
    assert (unexpanded.status_code, unexpanded.json()["error_code"]) == (400, "UNKNOWN_COLUMN")


def add_labels(database):
    """Store what the ids stand for, beside the same ids elsewhere and rows that do not count."""
    rows = [
        ("pipelines", "load-p", {"id": "main", "label": "Main"}),
        ("pipelines", "dead", {"id": "main", "label": "Dead"}),
        ("pipeline_stages", "load-s", {"id": "stage-2", "pipeline_id": "other", "label": "No"}),
        ("pipeline_stages", "load-s", {"id": "stage-2", "pipeline_id": "main", "label": "=Two"}),
        ("pipeline_stages", "load-s", {"id": "stage-3", "pipeline_id": "main", "label": "Three"}),
        ("pipeline_stages", "dead", {"id": "stage-4", "pipeline_id": "main", "label": "Dead"}),
        ("users", "load-u", {"id": "owner-0", "email": "zero@example.com"}),
        ("users", "load-u", {"id": "owner-1", "email": "one@example.com"}),
        ("users", "load-u", {"id": "owner-2", "email": None}),
    ]
    for number, (table, load, values) in enumerate(rows, 1):
        values |= {"scan_id": "scan-1", "row_no": number, "_dlt_load_id": load}
        database.execute(
            f"INSERT INTO hubspot_deals_extraction.{table} ({', '.join(values)})"
            f" VALUES ({', '.join(['%s'] * len(values))})",
            list(values.values()),
        )
    for table, load in (
        ("pipelines", "load-p"),
        ("pipeline_stages", "load-s"),
        ("users", "load-u"),
    ):
        database.execute(
            "INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no,"
            " load_id, first_row, row_count, epoch) VALUES ('scan-1', 1, %s, 1, %s, 1, 9, 1)",
            (table, load),
        )
        database.execute(
            "INSERT INTO hubspot_deals.scan_tables VALUES ('scan-1', 1, %s, 9, 9, '{id}')", (table,)
        )


def test_a_property_of_a_labels_name_stays_what_it_is(client, database):
    add_scan(database, "scan-1", 1)
    database.execute("UPDATE hubspot_deals.scan_tables SET columns = columns || '{owner_email}'")
    database.execute(
        "UPDATE hubspot_deals_extraction.deals"
        """ SET properties = properties || '{"owner_email": "theirs"}'"""
    )
    data = get(client, "scan-1", expand="labels").json()["data"]

    assert data["columns"][-3:] == ["owner_email", "dealstage_label", "pipeline_label"]
    assert data["records"][0]["owner_email"] == "theirs"
    assert data["records"][0]["pipeline_label"] is None


@pytest.mark.parametrize("form", ["json", "ndjson", "excel", "parquet"])
def test_files_of_every_form_have_labels(client, database, form):
    add_scan(database, "scan-1", 4)
    add_labels(database)
    params = {"tableName": "deals", "columns": "id,owner_email", "expand": "labels"}
    sent = client.get(f"/api/v1/results/scan-1/download/{form}", params=params)

    assert sent.status_code == 200
    assert rows_of(form, sent.content)[:2] == [("1", "one@example.com"), ("2", None)]


def rows_of(form, content):
    if form == "parquet":
        return [tuple(row.values()) for row in parquet.read_table(io.BytesIO(content)).to_pylist()]
    if form == "excel":
        sheet = openpyxl.load_workbook(io.BytesIO(content)).active
        return list(sheet.iter_rows(min_row=2, values_only=True))
    texts = content.splitlines() if form == "ndjson" else None
    records = json.loads(content) if texts is None else map(json.loads, texts)
    return [tuple(record.values()) for record in records]
