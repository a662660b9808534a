"""Pages that PostgreSQL writes hold what Python made of the same rows before.

The reference is that earlier way: rows are read as Python values and written by orjson.
"""

import asyncio
import json
from collections import Counter
from datetime import datetime
from decimal import Decimal

import orjson
import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from api.schemas import format_timestamp
from hubspot_deals.source.arrow import deals_to_arrow, rows_to_arrow
from hubspot_deals.tables import CORE_PROPERTIES, TABLES
from hubspot_deals.warehouse.results import ResultTable, Snapshot, find_page

ODD_TEXTS = [
    "",
    " ",
    "null",
    "true",
    'say "hi"',
    "it's",
    "back\\slash \\u0041 \\n",
    "%s %(x)s {} {0} $1",
    "tab\tline\nreturn\rbell\x07 delete\x7f",
    "nul\x00inside",
    "Ærø, 東京, 😀, \u2028, \ufeff, e\u0301",
    "9007199254740993",
    "12345678901234567890.123456789012345678",
    "1e400",
    "-0.00",
    "00123",
    "x" * 20_000,
]
ODD_VALUES = [*ODD_TEXTS, None, True, False, 7, 0.1, -1.5, [], {}, [1, {"a": None}], {"b": ["x"]}]
DEAL_COLUMNS = [
    "id",
    "amount",
    "dealname",
    'quoted"name\\%s',
    "prénom{}",
    "never_sent",
    "archivedAt",
    "archived",
]
MANY_COLUMNS = ["id", *(f"property_{number}" for number in range(250)), "dealname"]


def deal(number, **properties):
    return {
        "id": str(9_007_199_254_740_993 + number),
        "createdAt": "2024-01-15T10:00:00.123Z",
        "updatedAt": None,
        "archived": number % 2 == 0,
        "archivedAt": "2024-02-01T23:59:59.999Z" if number % 2 == 0 else None,
        "properties": properties,
    }


def odd_deals():
    for number, value in enumerate(ODD_VALUES):
        yield deal(number, dealname=value, amount=value, **{'quoted"name\\%s': value})
    yield deal(100)
    # Beside what a deal has itself, properties of these names do not show.
    yield deal(101, id="other", archived="other", archivedAt="other", **{"prénom{}": "é"})
    yield deal(102, **{f"property_{number}": "wide " * 40 for number in range(250)})


def odd_cell(kind, place):
    text = ODD_TEXTS[place % len(ODD_TEXTS)]
    choices = {
        "text": [text, None],
        "bigint": ["0", "-1", "9223372036854775807", "-9223372036854775808", None],
        "decimal": [
            "0",
            "100",
            "0.2",
            "12345678901234567890.12",
            "-0.000000000000000001",
            "99999999999999999999.999999999999999999",
            None,
        ],
        "bool": ["true", "false", None],
        "timestamp": [
            "2024-01-15T12:00:00Z",
            "2024-01-15T12:00:00.123456Z",
            "1999-12-31T23:59:59.999999Z",
            "1970-01-02T00:00:00Z",
            None,
        ],
        "json": [[], {}, [{"id": 1, "text": text}], {"é": [True, None, 1.5]}, "text", None],
    }[kind]
    return choices[place % len(choices)]


def odd_rows(table):
    columns = TABLES[table].columns.items()
    for number in range(len(ODD_TEXTS) * 2):
        yield {
            name: odd_cell(kind.value, number + place) for place, (name, kind) in enumerate(columns)
        }


@pytest.fixture
def database(database_url):
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def store(database, table, batch):
    """Store a batch as a completed scan's only package of the table; returns its row count."""
    database.execute(
        "INSERT INTO hubspot_deals.scans (scan_id, organization_id, config, request_hash, outcome,"
        " generation) VALUES ('scan-1', 'org-1', '{}', '', 'completed', 1) ON CONFLICT DO NOTHING"
    )
    database.execute(
        "INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no, load_id,"
        " first_row, row_count, epoch) VALUES ('scan-1', 1, %s, 1, 'load', 1, %s, 1)",
        (table, batch.num_rows),
    )
    names = ["scan_id", "row_no", "_dlt_load_id", *batch.column_names]
    statement = sql.SQL("INSERT INTO hubspot_deals_extraction.{} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, names)),
        sql.SQL(", ").join(sql.Placeholder() * len(names)),
    )
    for number, row in enumerate(batch.to_pylist(), 1):
        database.execute(statement, ["scan-1", number, "load", *row.values()])
    return batch.num_rows


def new_page(database_url, table, columns, *, limit=1_000, offset=0):
    async def read():
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            shown = ResultTable(table, 1, 1, list(columns))
            snapshot = Snapshot("scan-1", 1, 1, [shown])
            return await find_page(connection, snapshot, shown, limit=limit, offset=offset)

    page = asyncio.run(read())
    return read_exactly(b"[%b]" % page.records), page.returned


def old_page(database, table, columns, *, limit=1_000, offset=0):
    rows = database.execute(
        f"SELECT * FROM hubspot_deals_extraction.{table}"
        " WHERE row_no > %s AND row_no <= %s ORDER BY row_no",
        (offset, offset + limit),
    ).fetchall()
    if table == "deals":
        records = [old_deal(row, columns) for row in rows]
    else:
        records = [{name: row[name] for name in columns} for row in rows]
    return read_exactly(
        orjson.dumps(records, default=old_text, option=orjson.OPT_PASSTHROUGH_DATETIME)
    )


def old_deal(row, columns):
    own = {"id": row["id"], "archived": row["archived"], "archivedAt": row["archived_at"]}
    return {name: own[name] if name in own else row["properties"].get(name) for name in columns}


def old_text(value):
    if isinstance(value, datetime):
        return format_timestamp(value)
    assert isinstance(value, Decimal)
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def read_exactly(text):
    """Read JSON with the order of its keys and the digits of its numbers."""
    return json.loads(text, object_pairs_hook=list, parse_float=str, parse_int=str)


@pytest.mark.parametrize("columns", [DEAL_COLUMNS, MANY_COLUMNS, DEAL_COLUMNS[::-1], ["id"]])
def test_deals_with_odd_properties_are_served_as_before(database, database_url, columns):
    batch = deals_to_arrow(list(odd_deals()), frozenset(CORE_PROPERTIES), Counter())
    rows = store(database, "deals", batch)

    records, returned = new_page(database_url, "deals", columns)

    assert returned == rows == len(records)
    assert records == old_page(database, "deals", columns)


@pytest.mark.parametrize("table", sorted(TABLES.keys() - {"deals"}))
def test_rows_of_the_other_tables_are_served_as_before(database, database_url, table):
    rows = store(database, table, rows_to_arrow(TABLES[table], list(odd_rows(table))))

    records, returned = new_page(database_url, table, TABLES[table].columns)

    assert returned == rows == len(records)
    assert records == old_page(database, table, TABLES[table].columns)


def test_nul_is_served_as_the_replacement_character(database, database_url):
    batch = deals_to_arrow([deal(1, dealname="a\x00b")], frozenset(CORE_PROPERTIES), Counter())
    store(database, "deals", batch)

    assert new_page(database_url, "deals", ["dealname"])[0] == [[("dealname", "a\ufffdb")]]


def test_a_number_is_served_with_all_its_digits(database, database_url):
    store(database, "deals", deals_to_arrow([deal(1)], frozenset(CORE_PROPERTIES), Counter()))
    database.execute(
        "UPDATE hubspot_deals_extraction.deals SET properties ="
        """ '{"amount": 12345678901234567890123.4500}'"""
    )

    records, _ = new_page(database_url, "deals", ["amount"])

    # Python made a float of it, and thirteen digits less.
    assert records == [[("amount", "12345678901234567890123.4500")]]


def test_deals_without_any_properties_are_all_null(database, database_url):
    store(database, "deals", deals_to_arrow([deal(1)], frozenset(CORE_PROPERTIES), Counter()))
    database.execute("UPDATE hubspot_deals_extraction.deals SET properties = NULL")

    assert new_page(database_url, "deals", ["amount"])[0] == [[("amount", None)]]


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 9, 10, 11, 2**63 - 1 - 1_000])
@pytest.mark.parametrize("limit", [1, 3, 1_000])
def test_a_page_takes_rows_of_all_chunks_it_spans_and_of_no_other_package(
    database, database_url, limit, offset
):
    deals = [deal(number) for number in range(11)]
    store(database, "deals", deals_to_arrow(deals, frozenset(CORE_PROPERTIES), Counter()))
    database.execute("DELETE FROM hubspot_deals.scan_chunks")
    for number, (first, last) in enumerate([(1, 3), (4, 3), (4, 4), (5, 10)], 1):
        database.execute(
            "INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no,"
            " load_id, first_row, row_count, epoch) VALUES ('scan-1', 1, 'deals', %s, %s, %s, %s,"
            " 1)",
            (number, f"load-{number}", first, last - first + 1),
        )
        database.execute(
            "UPDATE hubspot_deals_extraction.deals SET _dlt_load_id = %s"
            " WHERE row_no BETWEEN %s AND %s",
            (f"load-{number}", first, last),
        )

    records, returned = new_page(database_url, "deals", ["id"], limit=limit, offset=offset)

    # The eleventh is of a package that never counted.
    wanted = [[("id", one["id"])] for one in deals[:10][offset : offset + limit]]
    assert (records, returned) == (wanted, len(wanted))


@pytest.mark.parametrize(("width", "prepared"), [(30, 1), (300, 1), (301, 0), (2_000, 0)])
def test_the_plans_of_very_wide_pages_are_not_kept(database, database_url, width, prepared):
    store(database, "deals", deals_to_arrow([deal(1)], frozenset(CORE_PROPERTIES), Counter()))
    shown = ResultTable("deals", 1, 1, [f"property_{number}" for number in range(width)])

    async def read_often():
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            for _ in range(8):
                await find_page(
                    connection, Snapshot("scan-1", 1, 1, [shown]), shown, limit=1, offset=0
                )
            kept = await connection.execute(
                "SELECT FROM pg_prepared_statements WHERE statement LIKE '%property_1%'"
            )
            return kept.rowcount

    assert asyncio.run(read_often()) == prepared
