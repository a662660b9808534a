"""HubSpot's texts as typed columns: what fits is exact, the rest is counted, nothing raises."""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

import orjson
import pyarrow as pa
import pytest

from hubspot_deals.source.arrow import (
    deals_to_arrow,
    parse_bool,
    parse_decimal,
    parse_integer,
    parse_timestamp,
    rows_to_arrow,
)
from hubspot_deals.tables import CORE_PROPERTIES, DEALS, PIPELINES, TABLES, USERS, ColumnType

ALL_TYPED = frozenset(CORE_PROPERTIES)
MIDNIGHT = datetime(2024, 1, 31, tzinfo=UTC)


def deal(number=1, **properties):
    return {"id": str(number), "properties": properties}


def column(name, *texts):
    """The values of one typed column and the number that did not fit it."""
    unfit = Counter()
    deals = [deal(number, **{name: text}) for number, text in enumerate(texts)]
    table = deals_to_arrow(deals, ALL_TYPED, unfit)
    assert table.schema == DEALS.arrow_schema()
    return table[name].to_pylist(), unfit[name]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-31", MIDNIGHT),
        ("2024-01-31T00:00:00Z", MIDNIGHT),
        ("2024-01-31T00:00:00.000Z", MIDNIGHT),
        ("2024-01-31T00:00:00", MIDNIGHT),
        ("2024-01-31T01:00:00+01:00", MIDNIGHT),
        ("2024-01-30T18:30:00.000-05:30", MIDNIGHT),
        ("2024-01-31T00:00:00.001Z", MIDNIGHT.replace(microsecond=1_000)),
        ("2024-01-31T00:00:00.123456Z", MIDNIGHT.replace(microsecond=123_456)),
        ("1706659200000", MIDNIGHT),
        ("1706659200001", MIDNIGHT.replace(microsecond=1_000)),
        ("-86400000000", datetime(1967, 4, 7, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("1899-12-30", datetime(1899, 12, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_in_every_form_that_hubspot_sends(text, moment):
    assert parse_timestamp(text) == moment
    assert column("closedate", text) == ([moment], 0)


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-30",
        "2024-02-31T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-01-01T25:00:00Z",
        "2024-01-01T00:00:60Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "10000-01-01T00:00:00Z",
        "1706659200",
        "2024",
        "12",
        "--12345678901",
        "-",
        "9" * 16,
        "9" * 5_000,
        "٣" * 11,
        "soon",
        "31/01/2024",
        "2024-01-31T00:00:00Z;2024-02-01T00:00:00Z",
        " ",
        "\x00",
    ],
)
def test_what_is_no_moment_is_null_and_counted(text):
    assert parse_timestamp(text) is None
    assert column("closedate", text) == ([None], 1)


@pytest.mark.parametrize("bad", ["2024-02-31T00:00:00Z", "2024-01-01T99:00:00.000Z", "soon"])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_bad_date_does_not_null_its_neighbours(bad, position):
    texts = ["2024-01-31T00:00:00Z", "2024-01-31T00:00:00.5Z"]
    texts.insert(position, bad)
    good = [MIDNIGHT, MIDNIGHT.replace(microsecond=500_000)]
    good.insert(position, None)
    assert column("createdate", *texts) == (good, 1)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("0.00", "0"),
        ("1500.00", "1500"),
        ("-1500.5", "-1500.5"),
        ("+7", "7"),
        (" 12.5 ", "12.5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("6.800000000000001", "6.800000000000001"),
        ("1e3", "1000"),
        ("1.5E-7", "0.00000015"),
        ("1e19", "10000000000000000000"),
        ("1E-18", "0.000000000000000001"),
        ("0e9999", "0"),
        ("99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
        ("+99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
        ("1.5000000000000000000000000000", "1.5"),
        ("00000000000000000000000000000001.5", "1.5"),
        ("1" + "0" * 19 + ".0" + "0" * 60, "1" + "0" * 19),
    ],
)
def test_a_number_is_exact(text, number):
    assert parse_decimal(text) == Decimal(number)
    assert column("amount", text) == ([Decimal(number)], 0)


@pytest.mark.parametrize(
    "text",
    [
        "1,000",
        "1.000,50",
        "7;8",
        "134376773869;137654776000",
        "1 000",
        "1_000",
        "$5",
        "٣",
        "nan",
        "NaN",
        "sNaN",
        "Infinity",
        "-inf",
        "1e20",
        "1e999999999",
        "1e-19",
        "1e-999999999",
        "1e99999999999999999999",
        "100000000000000000000",
        "0.1234567890123456789",
        "12345678901.1234567890123456789",
        "9" * 100_000,
        "1e",
        ".",
        "-",
        "e5",
        "1.2.3",
        "0x10",
        "true",
        " ",
        "\x00",
    ],
)
def test_what_is_no_number_or_too_long_is_null_and_counted(text):
    assert parse_decimal(text) is None
    assert column("amount", text) == ([None], 1)


def test_an_odd_number_does_not_disturb_the_plain_ones_beside_it():
    texts = ("1", "1,000", None, "", "2.50", "1e2", "1e20")
    expected = [Decimal(1), None, None, None, Decimal("2.5"), Decimal(100), None]
    assert column("amount", *texts) == (expected, 2)


@pytest.mark.parametrize("text", ["true", "TRUE", "True", " true "])
def test_a_flag_is_read_in_any_case(text):
    assert parse_bool(text) is True
    assert column("hs_is_closed", text, text.replace("r", "R")) == ([True, True], 0)
    assert column("hs_is_closed", "false", "False", "FALSE") == ([False] * 3, 0)


@pytest.mark.parametrize("text", ["yes", "1", "0", "t", "truee", "true;false"])
def test_what_is_no_flag_is_null_and_counted(text):
    assert parse_bool(text) is None
    assert column("hs_is_closed", text, "true") == ([None, True], 1)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("-3", -3),
        ("3.0", 3),
        ("1e2", 100),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        ("1.5", None),
        ("first", None),
    ],
)
def test_an_order_is_a_whole_number_of_64_bits(text, number):
    assert parse_integer(text) == number
    rows = rows_to_arrow(PIPELINES, [{"id": "1", "display_order": text}])
    assert rows["display_order"].to_pylist() == [number]


@pytest.mark.parametrize(
    ("name", "cleared"),
    [("dealname", ""), ("amount", None), ("closedate", None), ("hs_is_closed", None)],
)
def test_cleared_values_are_no_faults_and_stay_apart_from_null_in_properties(name, cleared):
    unfit = Counter()
    deals = [deal(1, **{name: ""}), deal(2, **{name: None}), deal(3)]
    table = deals_to_arrow(deals, ALL_TYPED, unfit)
    assert table[name].to_pylist() == [cleared, None, None]
    assert [orjson.loads(text) for text in table["properties"].to_pylist()] == [
        {name: ""},
        {name: None},
        {},
    ]
    assert not unfit


@pytest.mark.parametrize(
    "text",
    ['a\\b"\n\té😀', "\\u0000", "\\\\u0000", "\\", "𝄞", "  padded  ", "a\u2028b", "'; DROP TABLE"],
)
def test_a_text_is_kept_to_the_letter(text):
    assert column("dealname", text) == ([text], 0)
    raw = deals_to_arrow([deal(1, dealname=text)], ALL_TYPED, Counter())["properties"][0].as_py()
    assert orjson.loads(raw) == {"dealname": text}


def test_a_nul_character_is_replaced_where_postgresql_could_not_hold_it():
    deals = [deal(1, dealname="a\x00b\\u0000", extra="\x00", **{"k\x00": "v"})]
    table = deals_to_arrow(deals, ALL_TYPED, Counter())
    assert table["dealname"].to_pylist() == ["a\ufffdb\\u0000"]
    assert orjson.loads(table["properties"][0].as_py()) == {
        "dealname": "a\ufffdb\\u0000",
        "extra": "\ufffd",
        "k\ufffd": "v",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (1.5, "1.5"), (True, "true"), (["a", 1], '["a",1]'), ({"a": None}, '{"a":null}')],
)
def test_a_value_that_is_no_text_becomes_its_json(value, text):
    assert column("dealname", value) == ([text], 0)


def test_numbers_and_flags_that_are_no_texts_still_fit_their_columns():
    assert column("amount", 1500, 0.25, "7") == ([Decimal(1500), Decimal("0.25"), Decimal(7)], 0)
    assert column("hs_is_closed", *[True, False, "true"]) == ([True, False, True], 0)
    assert column("closedate", 1706659200000, None) == ([MIDNIGHT, None], 0)


def test_unfit_values_are_counted_by_column_over_all_batches():
    unfit = Counter()
    for _ in range(2):
        deals_to_arrow(
            [deal(1, amount="x", closedate="y"), deal(2, amount="z", dealname="n")],
            ALL_TYPED,
            unfit,
        )
    assert unfit == {"amount": 4, "closedate": 2}


def test_a_column_whose_definition_disagrees_is_null_without_counting_faults():
    unfit = Counter()
    table = deals_to_arrow([deal(1, amount="7", dealname="n")], frozenset({"dealname"}), unfit)
    assert table["amount"].to_pylist() == [None]
    assert table["dealname"].to_pylist() == ["n"]
    assert not unfit


def test_the_facts_around_the_properties_become_columns_too():
    facts = {
        "id": 9_007_199_254_740_993,
        "createdAt": "2024-01-31T00:00:00Z",
        "updatedAt": "2024-02-31T00:00:00Z",
        "archived": True,
        "archivedAt": "2024-01-31T00:00:00.000Z",
        "properties": {},
    }
    unfit = Counter()
    row = deals_to_arrow([facts, deal(2)], ALL_TYPED, unfit).to_pylist()
    assert row[0]["id"] == "9007199254740993"
    assert (row[0]["archived"], row[1]["archived"]) == (True, False)
    assert (row[0]["created_at"], row[0]["archived_at"]) == (MIDNIGHT, MIDNIGHT)
    assert row[0]["updated_at"] is None
    assert unfit == {"updated_at": 1}


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_every_table_has_its_own_schema_even_without_rows(table):
    assert rows_to_arrow(table, []).schema == table.arrow_schema()
    empty = rows_to_arrow(table, [{}])
    assert empty.num_rows == 1
    assert all(values == [None] for values in empty.to_pydict().values())


def test_every_column_type_has_a_way_from_text():
    for table in TABLES.values():
        batch = rows_to_arrow(table, [dict.fromkeys(table.columns, "?\x00")])
        assert isinstance(batch, pa.Table)
        for name, kind in table.columns.items():
            kept = {ColumnType.TEXT: "?\ufffd", ColumnType.JSON: '"?\ufffd"'}
            assert batch[name].to_pylist() == [kept.get(kind)]


def test_nested_values_are_stored_as_json():
    teams = [{"id": "1", "name": "Süd\x00", "primary": True}]
    rows = rows_to_arrow(USERS, [{"id": "1", "teams": teams}, {"id": "2"}])
    stored = rows["teams"].to_pylist()
    assert orjson.loads(stored[0]) == [{"id": "1", "name": "Süd\ufffd", "primary": True}]
    assert stored[1] is None
