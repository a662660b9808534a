"""Every format holds what the table holds, on a real PostgreSQL."""

import csv
import hashlib
import io
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

import openpyxl
import psycopg
import pyarrow as pa
import pyarrow.parquet
import pytest
from psycopg.rows import dict_row

from hubspot_deals.exports.__main__ import export
from hubspot_deals.exports.order import ExportFormat, ExportOrder
from hubspot_deals.source.arrow import deals_to_arrow, rows_to_arrow
from hubspot_deals.tables import CORE_PROPERTIES, TABLES
from hubspot_deals.warehouse.exports import ResultsHiddenError
from tests.integration.test_result_json import (
    DEAL_COLUMNS,
    MANY_COLUMNS,
    deal,
    odd_deals,
    odd_rows,
    old_page,
    read_exactly,
    store,
)

FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "\t=1+1",
    "  =1",
    "\r=1",
    "\n=1",
    "\u00a0=1",
    "\uff1d1+1",
]
NO_FORMULAS = ["-5", "-5.00", "+5", "-.5", "-1e-3", "+1E5", "5", "a=1", "", "x-1", "'=1", "é=1"]


@pytest.fixture
def database(database_url):
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def write(database_url, tmp_path):
    """Exports a stored table and returns the file's bytes."""
    numbers = iter(range(1_000))

    def write(form, table="deals", columns=DEAL_COLUMNS, *, rows, raw=False):
        order = ExportOrder(
            ExportFormat(form), "scan-1", 1, 1, "", table, tuple(columns), rows, raw
        )
        path = tmp_path / f"file-{next(numbers)}"
        with psycopg.connect(database_url, autocommit=True) as connection:
            whole = export(connection, order, path, lambda _: None)
        content = path.read_bytes()
        assert whole.sha256 == hashlib.sha256(content).hexdigest()
        assert (whole.rows, whole.size) == (rows, len(content))
        return content

    return write


def store_deals(database, deals):
    return store(database, "deals", deals_to_arrow(deals, frozenset(CORE_PROPERTIES), Counter()))


def store_odd(database, table):
    if table == "deals":
        return store_deals(database, list(odd_deals()))
    return store(database, table, rows_to_arrow(TABLES[table], list(odd_rows(table))))


def columns_of(table):
    return DEAL_COLUMNS if table == "deals" else list(TABLES[table].columns)


def read_csv_cell(text, value):
    """Read a cell as the value that JSON has for it, with all digits of numbers as text."""
    if isinstance(value, bool):
        return {"true": True, "false": False}[text]
    if isinstance(value, list | dict):
        return json.loads(text, parse_float=str, parse_int=str)
    return text


def read_csv(content):
    """Read CSV with NULL and the empty text apart."""
    names, types = [], {}
    for name in next(csv.reader(io.StringIO(content.decode(), newline=""))):
        names.append(name)
        types[name] = pa.string()
    table = pa.csv.read_csv(
        pa.BufferReader(content),
        pa.csv.ReadOptions(block_size=1 << 26),
        pa.csv.ParseOptions(newlines_in_values=True),
        pa.csv.ConvertOptions(
            column_types=types,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return names, [list(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize("table", sorted(TABLES))
def test_json_and_ndjson_hold_the_records_of_the_result_pages(database, write, table):
    rows = store_odd(database, table)
    records = old_page(database, table, columns_of(table))

    assert read_exactly(write("json", table, columns_of(table), rows=rows)) == records
    lines = write("ndjson", table, columns_of(table), rows=rows).decode().split("\n")
    assert lines.pop() == ""
    assert [read_exactly(line) for line in lines] == records


def test_json_is_printed_for_people(database, write):
    rows = store_deals(database, [deal(1, dealname="a"), deal(2)])

    assert write("json", columns=["id", "dealname"], rows=rows).decode() == (
        '[\n  {\n    "id": "9007199254740994",\n    "dealname": "a"\n  },\n'
        '  {\n    "id": "9007199254740995",\n    "dealname": null\n  }\n]\n'
    )


@pytest.mark.parametrize("table", sorted(TABLES))
def test_csv_holds_the_records_of_the_result_pages(database, write, table):
    rows = store_odd(database, table)
    lines = write("ndjson", table, columns_of(table), rows=rows).decode().split("\n")[:-1]

    names, found = read_csv(write("csv", table, columns_of(table), rows=rows, raw=True))

    assert names == columns_of(table)
    assert len(found) == rows
    for cells, line in zip(found, lines, strict=True):
        record = json.loads(line, parse_float=str, parse_int=str)
        for name, cell in zip(names, cells, strict=True):
            if cell is not None and table != "deals" and TABLES[table].columns[name] == "json":
                assert json.loads(cell, parse_float=str, parse_int=str) == record[name]
            else:
                assert read_csv_cell(cell, record[name]) == record[name]


@pytest.mark.parametrize("raw", [False, True])
def test_only_what_a_spreadsheet_would_take_for_a_formula_gets_an_apostrophe(database, write, raw):
    rows = store_deals(
        database, [deal(n, dealname=t) for n, t in enumerate(FORMULAS + NO_FORMULAS)]
    )

    _, found = read_csv(write("csv", columns=["dealname", "id"], rows=rows, raw=raw))

    mark = "" if raw else "'"
    assert [row[0] for row in found] == [*(mark + text for text in FORMULAS), *NO_FORMULAS]


def test_names_of_columns_are_no_formulas_either(database, write, tmp_path):
    names = ["=1+1", "{=1}", "@SUM(1)", "-2+3", "http://localhost/", 'a"b,c', "plain"]
    properties = dict.fromkeys(names, "x")
    rows = store_deals(database, [deal(1, **properties)])

    (head,) = csv.reader([write("csv", columns=names, rows=rows).decode().split("\r\n")[0]])
    assert head == ["'=1+1", "{=1}", "'@SUM(1)", "'-2+3", *names[4:]]
    raw = write("csv", columns=names, rows=rows, raw=True)
    assert next(csv.reader([raw.decode().split("\r\n")[0]])) == names
    path = tmp_path / "book.xlsx"
    path.write_bytes(write("excel", columns=names, rows=rows))
    cells = next(openpyxl.load_workbook(path)["deals"].iter_rows())
    assert [(cell.value, cell.data_type, cell.hyperlink) for cell in cells] == [
        (name, "s", None) for name in names
    ]


def test_one_column_of_nulls_still_has_its_rows(database, write):
    rows = store_deals(database, [deal(1, dealname="a"), deal(2), deal(3, dealname="b")])

    assert write("csv", columns=["dealname"], rows=rows) == b'"dealname"\r\n"a"\r\n""\r\n"b"\r\n'
    found = pa.parquet.read_table(
        pa.BufferReader(write("parquet", columns=["dealname"], rows=rows))
    )
    assert found.to_pylist() == [{"dealname": "a"}, {"dealname": None}, {"dealname": "b"}]


@pytest.mark.parametrize("table", sorted(TABLES))
def test_parquet_holds_the_typed_columns(database, write, table):
    rows = store_odd(database, table)
    columns = (
        ["id", *CORE_PROPERTIES, "archived", "archivedAt"]
        if table == "deals"
        else columns_of(table)
    )

    found = pa.parquet.read_table(pa.BufferReader(write("parquet", table, columns, rows=rows)))

    arrow = TABLES[table].arrow_schema()
    names = {"archivedAt": "archived_at"}
    assert found.column_names == columns
    assert [field.type for field in found.schema] == [
        arrow.field(names.get(name, name)).type for name in columns
    ]
    stored = database.execute(
        f"SELECT * FROM hubspot_deals_extraction.{table} ORDER BY row_no"
    ).fetchall()
    for ours, theirs in zip(found.to_pylist(), stored, strict=True):
        for name in columns:
            value = theirs[names.get(name, name)]
            if ours[name] is not None and name in {"teams", "metadata", "options"}:
                assert json.loads(ours[name]) == value
            elif isinstance(value, str) and value[:1] in {"[", "{"}:
                assert json.loads(ours[name]) == json.loads(value)
            else:
                assert ours[name] == value


def test_parquet_keeps_odd_texts_of_properties_without_a_type(database, write):
    rows = store_odd(database, "deals")

    found = pa.parquet.read_table(
        pa.BufferReader(write("parquet", columns=['quoted"name\\%s', "never_sent"], rows=rows))
    )

    lines = write("ndjson", columns=['quoted"name\\%s'], rows=rows).splitlines()
    for cell, line in zip(found['quoted"name\\%s'].to_pylist(), lines, strict=True):
        (value,) = json.loads(line, parse_float=str, parse_int=str).values()
        assert read_csv_cell(cell, value) == value
    assert found["never_sent"].null_count == rows


def test_values_are_exact_in_parquet(database, write):
    rows = store_deals(
        database,
        [
            deal(1, amount="12345678901234567890.123456789012345678", hs_is_closed="true"),
            deal(2, amount="-0.000000000000000001", closedate="2024-01-15T12:00:00.123Z"),
        ],
    )

    found = pa.parquet.read_table(
        pa.BufferReader(
            write("parquet", columns=["amount", "hs_is_closed", "closedate"], rows=rows)
        )
    ).to_pylist()

    assert found == [
        {
            "amount": Decimal("12345678901234567890.123456789012345678"),
            "hs_is_closed": True,
            "closedate": None,
        },
        {
            "amount": Decimal("-0.000000000000000001"),
            "hs_is_closed": None,
            "closedate": datetime(2024, 1, 15, 12, 0, 0, 123_000, tzinfo=UTC),
        },
    ]


def test_excel_holds_texts_as_texts_and_numbers_as_numbers(database, write, tmp_path):
    texts = [text for text in FORMULAS + NO_FORMULAS if text] + ["_x0041_ \x07 <&> 東京 😀"]
    rows = store_deals(
        database, [deal(n, dealname=text, amount="-12.50") for n, text in enumerate(texts)]
    )
    path = tmp_path / "book.xlsx"

    path.write_bytes(write("excel", columns=["dealname", "amount", "id"], rows=rows))

    sheet = openpyxl.load_workbook(path)["deals"]
    found = list(sheet.iter_rows(min_row=2))
    assert [cell.value for cell in next(sheet.iter_rows())] == ["dealname", "amount", "id"]
    assert [openpyxl.utils.escape.unescape(row[0].value) for row in found] == texts
    assert {row[0].data_type for row in found} == {"s"}
    assert {(row[1].value, row[1].data_type) for row in found} == {(-12.5, "n")}
    assert found[0][2].value == "9007199254740993"


@pytest.mark.parametrize("form", list(ExportFormat))
def test_a_file_of_many_batches_is_the_same_each_time(database, write, form):
    deals = [deal(n, dealname="wide " * (n % 97), amount=f"{n}.25") for n in range(1_500)]
    rows = store_deals(database, deals)

    first = write(form, rows=rows)

    assert write(form, rows=rows) == first
    if form in {"json", "ndjson"}:
        lines = first.decode().splitlines()
        found = json.loads(first) if form == "json" else [json.loads(line) for line in lines]
        assert [record["id"] for record in found] == [one["id"] for one in deals]


@pytest.mark.parametrize("form", list(ExportFormat))
def test_a_table_without_rows_is_a_file_without_rows(database, write, form):
    store_deals(database, [])
    content = write(form, rows=0)

    if form == "json":
        assert json.loads(content) == []
    elif form == "parquet":
        assert pa.parquet.read_table(pa.BufferReader(content)).num_rows == 0
    elif form == "excel":
        assert content.startswith(b"PK")
    else:
        assert content.count(b"\n") == (form == "csv")


@pytest.mark.parametrize("form", list(ExportFormat))
def test_very_wide_tables_have_all_their_columns(database, write, form):
    rows = store_deals(database, list(odd_deals()))
    names = [*MANY_COLUMNS, *(f"unset_{number}" for number in range(1_750))]

    content = write(form, columns=names, rows=rows)

    if form == "csv":
        assert read_csv(content)[0] == names
    elif form == "parquet":
        assert pa.parquet.read_schema(pa.BufferReader(content)).names == names
    elif form == "excel":
        assert openpyxl.load_workbook(io.BytesIO(content))["deals"].max_column == len(names)
    else:
        record = json.loads(content)[0] if form == "json" else json.loads(content.split(b"\n")[0])
        assert list(record) == names


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE hubspot_deals.scans SET results_removed_at = now()",
        "UPDATE hubspot_deals.scans SET generation = 2",
        "DELETE FROM hubspot_deals.scans",
    ],
)
@pytest.mark.parametrize("form", list(ExportFormat))
def test_what_is_not_served_any_more_is_not_written(database, write, form, change):
    rows = store_deals(database, [deal(n) for n in range(3)])
    database.execute(change)

    with pytest.raises(ResultsHiddenError):
        write(form, rows=rows)


def test_a_row_that_is_missing_is_an_error_and_not_a_shorter_file(database, write):
    rows = store_deals(database, [deal(n) for n in range(3)])
    database.execute("DELETE FROM hubspot_deals_extraction.deals WHERE row_no = 2")

    with pytest.raises(RuntimeError, match="2 rows after row 0 instead of 3"):
        write("csv", rows=rows)
