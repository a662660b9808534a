"""Which of HubSpot's texts the views read as values, in PostgreSQL itself."""

import psycopg
import pytest


@pytest.fixture
def database(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


BAD = {
    "number": [
        "",
        " ",
        "1,5",
        "NaN",
        "Infinity",
        "1e9999",
        "\u0663",
        "0x1F",
        "1_0",
        "-",
        "9" * 5000,
    ],
    "truth": ["", "yes", "1", "t", "truefalse"],
    "moment": [
        "",
        "2024-02-30",
        "2023-02-29T00:00:00Z",
        "2024-13-01",
        "0000-01-01",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T00:00:00+25:00",
        "today",
        "infinity",
        "epoch",
        "12",
        "999999999999999",
        "-999999999999999",
        "2024-01-01 BC",
        "\u0662\u0660\u0662\u0664-\u0660\u0661-\u0660\u0661",
        "2024-01-01T00:00:00Z\n; DROP",
    ],
    "day": ["", "tomorrow", "2024-04-31", "99999-01-01"],
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_null(database, name):
    database.execute("SET TimeZone = 'Pacific/Kiritimati'")
    call = f"SELECT hubspot_deals.to_{name}(%s)"

    read = {text: database.execute(call, (text,)).fetchone() for text in BAD[name]}

    assert read == dict.fromkeys(BAD[name], (None,))


GOOD = [
    ("number", " 1.50 ", "1.50"),
    ("number", "+.5", "0.5"),
    ("number", "7.", "7"),
    ("number", "1e-7", "0.0000001"),
    ("number", "2.5E3", "2500"),
    ("truth", " False", "false"),
    ("moment", "2024-01-15", "2024-01-15 00:00:00+00"),
    ("moment", "2024-01-15T10:30:00+05:30", "2024-01-15 05:00:00+00"),
    ("moment", "2024-01-15 10:30", "2024-01-15 10:30:00+00"),
    ("moment", "1705314600123", "2024-01-15 10:30:00.123+00"),
    ("moment", "-62135596800000", "0001-01-01 00:00:00+00"),
    ("moment", "9999-12-31T23:59:59.999Z", "9999-12-31 23:59:59.999+00"),
    ("day", "2024-02-29", "2024-02-29"),
    ("day", "2024-02-29T23:30:00Z", "2024-02-29"),
]


def test_what_can_be_read_is_read_whatever_the_session_is_set_to(database):
    database.execute("SET DateStyle = 'SQL, DMY'")
    kinds = {"number": "numeric", "truth": "boolean", "moment": "timestamptz", "day": "date"}
    for function, text, value in GOOD:
        call = f"SELECT hubspot_deals.to_{function}(%s) = %s::text::{kinds[function]}"
        assert database.execute(call, (text, value)).fetchone() == (True,), text
