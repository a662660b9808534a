"""Which requests for a page are read without FastAPI, and which are left to it."""

import pytest
from fastapi import Request

from api.cursors import Cursor, mark_of
from api.results.page_route import read_page_request
from api.results.service import PageRequest


def read(query, scan_id="scan-1"):
    scope = {"type": "http", "query_string": query.encode(), "path_params": {"scan_id": scan_id}}
    return read_page_request(Request(scope))


def test_an_ordinary_request_is_read_whole():
    request = read("tableName=deals&limit=1000&offset=900000&snapshot=3")

    assert request == PageRequest("scan-1", "deals", 1000, 900_000, 3)


def test_a_cursor_says_where_the_page_begins_and_of_what():
    cursor = Cursor(3, 900_000, mark_of("deals"))

    request = read(f"tableName=deals&limit=7&cursor={cursor.to_text()}")

    assert request == PageRequest("scan-1", "deals", 7, 900_000, 3, cursor.mark)
    assert read(f"snapshot=3&cursor={cursor.to_text()}") is not None
    assert read(f"snapshot=2&cursor={cursor.to_text()}") is None
    assert read(f"offset=0&cursor={cursor.to_text()}") is None


def test_what_is_absent_has_its_default():
    assert read("") == PageRequest("scan-1", None, 100, 0, None)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=ten",
        "limit=+5",
        "limit=%205",
        "limit=",
        "limit=1.0",
        "limit=٣",
        "limit=1&limit=2",
        "offset=-1",
        f"offset={2**63}",
        "snapshot=0",
        "tableName=",
        "tableName=Deals",
        "tableName=deals%00",
        "tablename=deals",
        "unknown=1",
        "cursor=",
        "cursor=x",
        "page=1",
        "page_size=10",
        "sort=amount",
        "filter[amount]=1",
        "expand=labels",
    ],
)
def test_whatever_is_not_plainly_in_order_is_left_to_fastapi(query):
    assert read(query) is None


@pytest.mark.parametrize("scan_id", ["", "a b", "a\n", "x" * 256, "é"])
def test_an_id_that_no_scan_can_have_is_left_to_fastapi(scan_id):
    assert read("", scan_id) is None
