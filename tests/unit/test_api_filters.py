"""How filters, sorting and cursors are read, and what is refused with which words."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from fastapi.exceptions import RequestValidationError

from api.cursors import Cursor, mark_of
from api.errors import nest_faults
from api.results.filters import read_selection
from hubspot_deals.warehouse.selections import Condition, Operator, Selection, SortKey

HOSTILE = [
    "",
    "'",
    '"; DROP TABLE x; --',
    "\x00",
    "%00",
    "NaN",
    "Infinity",
    "1e400",
    "٣",
    "a" * 999,
]


def faults_of(*given):
    with pytest.raises(RequestValidationError) as caught:
        read_selection(given)
    return nest_faults(caught.value.errors())


def test_values_become_what_their_column_holds():
    selection = read_selection(
        [
            ("tableName", "deals"),
            ("filter[dealstage]", "won,lost,won"),
            ("filter[amount]", "-0.50"),
            ("filter[amount][gte]", "10"),
            ("filter[archived]", "false"),
            ("sort", "-amount,closedate"),
        ]
    )

    assert selection == Selection(
        (
            Condition("amount", Operator.GTE, (Decimal(10),)),
            Condition("amount", Operator.IN, (Decimal("-0.5"),)),
            Condition("archived", Operator.IN, (False,)),
            Condition("dealstage", Operator.IN, ("won", "lost")),
        ),
        (SortKey("amount", descending=True), SortKey("closedate")),
    )


@pytest.mark.parametrize(("compared", "operator", "day"), [("gte", "gte", 31), ("lt", "lt", 31)])
def test_a_day_begins_at_midnight(compared, operator, day):
    (condition,) = read_selection([(f"filter[closedate][{compared}]", "2024-01-31")]).conditions

    assert condition == Condition(
        "closedate", Operator(operator), (datetime(2024, 1, day, tzinfo=UTC),)
    )


@pytest.mark.parametrize(("compared", "operator"), [("gt", "gte"), ("lte", "lt")])
def test_a_day_is_a_whole_day(compared, operator):
    (condition,) = read_selection([(f"filter[closedate][{compared}]", "2024-01-31")]).conditions

    assert condition.operator == operator
    assert condition.values == (datetime(2024, 2, 1, tzinfo=UTC),)


def test_a_moment_is_exact():
    given = [("filter[createdate][gt]", "2024-01-31T12:00:00.5+02:00")]

    (condition,) = read_selection(given).conditions

    assert condition.values == (datetime(2024, 1, 31, 10, 0, 0, 500_000, UTC),)


def test_the_order_of_parameters_makes_no_difference():
    given = [("filter[amount][gt]", "1"), ("filter[pipeline]", "a"), ("sort", "amount")]

    assert read_selection(given) == read_selection(given[::-1])


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", ["filter[amount]", "filter[amount][gt]", "filter[closedate][lt]"])
def test_what_is_no_number_and_no_moment_is_refused_at_its_place(name, value):
    faults = faults_of((name, value))

    assert list(faults) == ["filter"]


@pytest.mark.parametrize(
    "name", ["filter", "filter[", "filter[]]", "filter[a][b][c]", "filter[a]b"]
)
def test_a_filter_of_another_form_is_refused(name):
    assert faults_of((name, "1")) == {
        "filter": ["Write filter[column]=value or filter[column][gte]=value"]
    }


@pytest.mark.parametrize("name", ["", "Amount", "properties", "id; --", "a" * 999])
def test_an_unknown_column_is_refused_with_those_that_are_possible(name):
    (text,) = faults_of((f"filter[{name}]", "1"))["filter"].popitem()[1]

    assert text.startswith("Filters are possible on dealstage, pipeline")


@pytest.mark.parametrize("text", ["", "-", "--amount", "amount,", "amount,-amount", "id", "a b"])
def test_sorting_by_anything_else_is_refused(text):
    assert list(faults_of(("sort", text))) == ["sort"]


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("filter[amount][ne]", "1", "ne"),
        ("filter[dealstage][gt]", "a", "gt"),
        ("filter[closedate]", "2024-01-31", "closedate"),
        ("filter[closedate][lte]", "9999-12-31", "lte"),
        ("filter[closedate][lte]", "2024-01-31T12:00:00", "lte"),
        ("filter[dealstage]", "a,,b", "dealstage"),
        ("filter[dealstage]", ",".join(map(str, range(101))), "dealstage"),
        ("filter[archived]", "1", "archived"),
    ],
)
def test_what_a_column_cannot_be_compared_with_is_refused(name, value, place):
    assert f"'{place}': [" in str(faults_of((name, value)))


def test_all_faults_are_named_at_once():
    faults = faults_of(
        ("sort", "x"), ("filter[amount]", "y"), ("filter[amount]", "z"), ("sort", "x")
    )

    assert len(faults["sort"]) == 2
    assert len(faults["filter"]["amount"]) == 2


@pytest.mark.parametrize("position", [0, 1, 2**31, 2**63 - 1 - 1000])
def test_a_cursor_is_read_as_it_was_written(position):
    cursor = Cursor(7, position, mark_of("scan", 1))

    text = cursor.to_text()

    assert Cursor.from_text(text) == cursor
    assert text.replace("-", "").replace("_", "").isalnum()


def test_no_character_of_a_cursor_can_be_changed():
    text = Cursor(1, 1000, mark_of("scan")).to_text()

    for place in range(len(text)):
        for other in "A9-_ é=+/":
            if other != text[place]:
                assert Cursor.from_text(text[:place] + other + text[place + 1 :]) is None
        assert Cursor.from_text(text[:place]) is None
        assert Cursor.from_text(text + text[: place + 1]) is None


def test_lists_of_other_parts_have_other_marks():
    assert len({mark_of("a", 1), mark_of("a", "1"), mark_of("a1"), mark_of("a", None)}) == 4
