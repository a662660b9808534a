"""Every way to page reads every record once: by offset, by number and by cursor.

With filters and sorting too, whose ties and missing values must not move between pages.
"""

import asyncio
import re

import psycopg
import pytest
from pydantic import SecretStr

from api.dagster.testing import InMemoryDagsterGateway
from api.database import build_pool
from api.main import create_app
from api.results import selected_rows
from api.results.filters import read_selection
from api.settings import ApiSettings
from api.testing import serve
from hubspot_deals.warehouse.selections import _rows_query
from tests.conftest import TEST_KEYS

COLUMNS = ["id", "amount", "dealstage", "pipeline", "closedate", "hubspot_owner_id", "archived"]
URL = "/api/v1/results/{}/result"
SIZES = [0, 1, 100, 1_001, 5_000]
LIMITS = {0: [1, 1000], 1: [1, 2, 1000], 100: [1, 7, 99, 100, 101], 1_001: [7, 100, 999, 1000]}


@pytest.fixture(scope="module")
def url(postgres):
    """One database for the module: a completed scan of each size, which no test changes."""
    with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE pages TEMPLATE template_migrated OWNER hubspot_deals")
        url = postgres.url.replace("/hubspot_deals?", "/pages?")
        with psycopg.connect(url, autocommit=True) as database:
            for size in SIZES:
                add_scan(database, f"scan-{size}", size)
        yield url
        admin.execute("DROP DATABASE pages WITH (FORCE)")


@pytest.fixture(scope="module")
def client(url):
    settings = ApiSettings(
        database_url=SecretStr(url), encryption_keys=TEST_KEYS, rate_limits="off"
    )
    with serve(create_app(settings, gateway=InMemoryDagsterGateway())) as client:
        yield client


def add_scan(database, scan_id, size):
    """Store deals in chunks of 300, some without values, among rows that do not count."""
    database.execute(
        "INSERT INTO hubspot_deals.scans (scan_id, organization_id, config, request_hash, outcome,"
        " generation, started_at, ended_at) VALUES (%s, 'org-1', '{}', '', 'completed', 1, now(),"
        " now())",
        (scan_id,),
    )
    database.execute(
        "INSERT INTO hubspot_deals.scan_tables VALUES (%s, 1, 'deals', %s, %s, %s)",
        (scan_id, size, size, COLUMNS),
    )
    database.execute(
        "INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no, load_id,"
        " first_row, row_count, epoch) SELECT %s, 1, 'deals', 1 + n / 300, 'load-' || n / 300,"
        " n + 1, least(300, %s - n), 1 FROM generate_series(0, %s - 1, 300) n",
        (scan_id, size, size),
    )
    for load in ("'load-' || (n - 1) / 300", "'dead'"):
        database.execute(
            f"INSERT INTO hubspot_deals_extraction.deals (scan_id, row_no, _dlt_load_id, id,"
            " archived, amount, dealstage, pipeline, closedate, hubspot_owner_id, properties)"
            f" SELECT scan, n, {load}, n::text, archived, amount, stage, 'main', closed, owner,"
            " jsonb_build_object('amount', amount::text, 'dealstage', stage, 'pipeline', 'main',"
            " 'closedate', closed, 'hubspot_owner_id', owner) FROM generate_series(1, %s) n,"
            " LATERAL (SELECT %s AS scan, n %% 5 = 0 AS archived,"
            " CASE WHEN n %% 3 > 0 THEN n %% 11 END AS amount,"
            " CASE n %% 7 WHEN 0 THEN NULL WHEN 1 THEN repeat('long ', 700) ELSE 'stage-' || n %% 7"
            " END AS stage, timestamptz '2024-01-01 00:00Z' + n %% 30 * interval '1 day' AS closed,"
            " 'owner-' || n %% 4 AS owner) v",
            (size, scan_id),
        )


def rows_of(url, scan_id, where="true", order="row_no"):
    """The ids that a table without any paging has."""
    with psycopg.connect(url) as database:
        found = database.execute(
            "SELECT id FROM hubspot_deals_extraction.deals WHERE scan_id = %s"
            f" AND _dlt_load_id <> 'dead' AND ({where}) ORDER BY {order}",
            (scan_id,),
        )
        return [id_ for (id_,) in found]


def get(client, scan_id, **params):
    answer = client.get(URL.format(scan_id), params={"tableName": "deals"} | params)
    assert answer.status_code == 200, answer.text
    return answer


def by_offset(client, scan_id, limit, **params):
    offset, ids = 0, []
    while True:
        data = get(client, scan_id, limit=limit, offset=offset, **params).json()["data"]
        ids += [record["id"] for record in data["records"]]
        if not data["pagination"]["hasMore"]:
            return ids, data["pagination"]["total"]
        offset += limit


def by_number(client, scan_id, limit, **params):
    ids, number, total = [], 1, None
    while total is None or (number - 1) * limit < total:
        data = get(client, scan_id, page=number, page_size=limit, **params).json()["data"]
        ids += [record["id"] for record in data["records"]]
        total = data["pagination"]["total"]
        number += 1
    return ids, total


def by_cursor(client, scan_id, limit, **params):
    cursor, ids = {}, []
    while True:
        data = get(client, scan_id, limit=limit, **cursor, **params).json()["data"]
        ids += [record["id"] for record in data["records"]]
        if (following := data["pagination"]["nextCursor"]) is None:
            return ids, data["pagination"]["total"]
        cursor = {"cursor": following}


def by_link(client, scan_id, limit, **params):
    answer, ids = get(client, scan_id, limit=limit, **params), []
    while True:
        data = answer.json()["data"]
        ids += [record["id"] for record in data["records"]]
        if "next" not in answer.links:
            return ids, data["pagination"]["total"]
        answer = client.get(answer.links["next"]["url"])
        assert answer.status_code == 200


WAYS = [by_offset, by_number, by_cursor, by_link]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
def test_the_pages_together_are_the_table(client, url, size, way):
    wanted = rows_of(url, f"scan-{size}")
    assert len(wanted) == size

    for limit in LIMITS.get(size, [333, 999, 1000]):
        assert way(client, f"scan-{size}", limit) == (wanted, size)


@pytest.mark.parametrize("way", [by_offset, by_number, by_cursor])
def test_the_pages_together_are_the_table_at_every_limit(client, url, way):
    """Those above 100 rows make one page of a table of 100; below, every number of pages."""
    wanted = rows_of(url, "scan-100")

    few = [1, 2, 3, 7, 33, 34, 49, 50, 51, 99, 100, 101, 500, 1000]
    for limit in range(1, 1001) if way is by_cursor else few:
        assert way(client, "scan-100", limit) == (wanted, 100)


SELECTIONS = [
    ({"sort": "amount"}, "true", "amount ASC NULLS LAST, row_no"),
    ({"sort": "-amount"}, "true", "amount DESC NULLS LAST, row_no"),
    (
        {"sort": "dealstage,-closedate"},
        "true",
        'dealstage COLLATE "C" NULLS LAST, closedate DESC NULLS LAST, row_no',
    ),
    ({"filter[dealstage]": "stage-2,stage-3"}, "dealstage IN ('stage-2', 'stage-3')", "row_no"),
    ({"filter[dealstage]": "nowhere"}, "false", "row_no"),
    ({"filter[amount]": "5,7.0"}, "amount IN (5, 7)", "row_no"),
    ({"filter[archived]": "true"}, "archived", "row_no"),
    (
        {"filter[amount][gte]": "3", "filter[amount][lt]": "9.5", "sort": "-closedate,amount"},
        "amount >= 3 AND amount < 9.5",
        "closedate DESC NULLS LAST, amount NULLS LAST, row_no",
    ),
    (
        {"filter[closedate][gt]": "2024-01-10", "filter[closedate][lte]": "2024-01-20"},
        "closedate >= '2024-01-11Z' AND closedate < '2024-01-21Z'",
        "row_no",
    ),
    (
        {"filter[hubspot_owner_id]": "owner-1", "filter[pipeline]": "main", "sort": "amount"},
        "hubspot_owner_id = 'owner-1' AND pipeline = 'main'",
        "amount NULLS LAST, row_no",
    ),
]


# By number is by offset, and by cursor what links lead along.
@pytest.mark.parametrize("way", [by_offset, by_link])
@pytest.mark.parametrize(("params", "where", "order"), SELECTIONS)
@pytest.mark.parametrize("size", [0, 100, 1_001])
def test_the_pages_of_a_selection_together_are_what_it_selects(
    client, url, size, params, where, order, way
):
    wanted = rows_of(url, f"scan-{size}", where, order)

    for limit in (23, 1000) if size <= 100 else (100, 1000):
        assert way(client, f"scan-{size}", limit, **params) == (wanted, len(wanted))


def test_a_selected_page_has_the_records_of_an_ordinary_one(client):
    ordinary = get(client, "scan-100", limit=100).json()["data"]
    sorted_ = get(client, "scan-100", limit=100, sort="-amount").json()["data"]

    assert sorted(sorted_["records"], key=lambda record: int(record["id"])) == ordinary["records"]
    assert sorted_.keys() == ordinary.keys()


def test_headers_say_where_a_page_lies(client):
    answer = get(client, "scan-1001", limit=100, offset=300)
    scans = client.get("/api/v1/scan/list?limit=2&offset=2")

    names = [f"X-Pagination-{name}" for name in ("Page", "Limit", "Total", "Pages")]
    assert [answer.headers[name] for name in names] == ["4", "100", "1001", "11"]
    assert [scans.headers[name] for name in names] == ["2", "2", "5", "3"]


def test_a_cursor_is_bound_to_its_list(client):
    first = get(client, "scan-1001", limit=10, sort="amount").json()["data"]["pagination"]
    cursor = {"cursor": first["nextCursor"]}

    again = get(client, "scan-1001", limit=500, sort="amount", **cursor).json()["data"]
    assert again["pagination"]["offset"] == 10
    for scan_id, other in [
        ("scan-1001", {}),
        ("scan-1001", {"sort": "-amount"}),
        ("scan-1001", {"sort": "amount", "filter[archived]": "true"}),
        ("scan-100", {"sort": "amount"}),
    ]:
        answer = client.get(URL.format(scan_id), params={"tableName": "deals", **cursor, **other})
        assert answer.status_code == 400
        assert "of another scan, table, filter or sorting" in answer.json()["message"]


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "../..", "é", "A" * 10_000, "\x00", "' OR 1"])
def test_a_garbled_cursor_is_refused(client, cursor):
    answer = client.get(URL.format("scan-100"), params={"tableName": "deals", "cursor": cursor})

    assert answer.status_code == 400
    assert list(answer.json()["validation_errors"]) == ["cursor"]


@pytest.mark.parametrize(
    ("params", "place"),
    [
        ({"cursor": "x", "offset": 0}, "cursor"),
        ({"cursor": "x", "page": 1}, "cursor"),
        ({"page": 1, "offset": 0}, "page"),
        ({"page_size": 1, "limit": 1}, "page_size"),
        ({"page": 0}, "page"),
        ({"page": 2**62}, "page"),
        ({"page_size": 1001}, "page_size"),
        ({"expand": "everything"}, "expand"),
    ],
)
def test_a_place_is_said_in_one_way(client, params, place):
    answer = client.get(URL.format("scan-100"), params={"tableName": "deals"} | params)

    assert answer.status_code == 400
    assert list(answer.json()["validation_errors"]) == [place]


def test_the_last_page_leads_nowhere(client):
    answer = get(client, "scan-100", limit=100)

    assert "link" not in answer.headers
    assert answer.json()["data"]["pagination"]["nextCursor"] is None


def test_the_link_repeats_what_was_asked_for(client):
    answer = get(
        client, "scan-100", page_size=7, page=2, sort="amount", **{"filter[amount][gt]": 1}
    )

    link = answer.links["next"]["url"]
    assert re.search(r"[?&](page|offset)=", link) is None
    assert "page_size=7" in link
    assert "filter%5Bamount%5D%5Bgt%5D=1" in link
    assert client.get(link).json()["data"]["pagination"]["offset"] == 14


def test_what_a_scan_has_not_read_cannot_be_filtered(client):
    answer = client.get(URL.format("scan-100"), params={"tableName": "deals", "sort": "createdate"})

    assert answer.status_code == 400
    assert "has not read createdate" in answer.json()["message"]


HOSTILE = [
    "'",
    "';--",
    '"',
    "\\",
    "%",
    "$1",
    "{}",
    "{0}",
    "\x00",
    "a" * 5000,
    "é",
    "NULL",
    "\n",
    "]",
]


def test_hostile_values_are_refused_or_match_nothing(client):
    answers = []
    for text in HOSTILE:
        for params in (
            {"filter[dealstage]": text},
            {"filter[pipeline]": f"{text},b"},
            {"filter[amount]": text},
            {"filter[amount][gt]": text},
            {"filter[closedate][lt]": text},
            {"filter[archived]": text},
            {f"filter[{text}]": "1"},
            {f"filter[amount][{text}]": "1"},
            {"sort": text},
            {"sort": f"amount,{text}"},
            {"expand": text},
            {"cursor": text},
            {"page": text},
            {"page_size": text},
            {"tableName": text},
        ):
            answer = client.get(URL.format("scan-100"), params={"tableName": "deals"} | params)
            answers.append(answer)
            if answer.status_code == 200:
                assert answer.json()["data"]["records"] == []
            else:
                assert answer.status_code == 400, (params, answer.text)
    assert len(answers) >= 200


@pytest.mark.parametrize("params", [{}, {"sort": "amount"}])
def test_a_cursor_ends_with_its_snapshot(database_url, params):
    settings = ApiSettings(database_url=SecretStr(database_url), encryption_keys=TEST_KEYS)
    with (
        psycopg.connect(database_url, autocommit=True) as database,
        serve(create_app(settings, gateway=InMemoryDagsterGateway())) as client,
    ):
        add_scan(database, "scan-1", 20)
        first = get(client, "scan-1", limit=10, **params).json()["data"]["pagination"]
        place = params | {"cursor": first["nextCursor"], "tableName": "deals"}
        before = client.get(URL.format("scan-1"), params=place)
        for table in ("scans", "scan_tables", "scan_chunks"):
            database.execute(f"UPDATE hubspot_deals.{table} SET generation = 2")
        after = client.get(URL.format("scan-1"), params=place)
        afresh = get(client, "scan-1", limit=10, **params).json()["data"]
        database.execute("UPDATE hubspot_deals.scans SET removal = 'scan'")
        removed = client.get(URL.format("scan-1"), params=params | {"tableName": "deals"})

    assert before.status_code == 200
    assert (after.status_code, after.json()["error_code"]) == (409, "SNAPSHOT_REPLACED")
    assert afresh["snapshot"] == 2
    assert removed.status_code == 404


def test_a_filter_is_answered_by_its_index_alone(url):
    settings = ApiSettings(database_url=SecretStr(url), encryption_keys=TEST_KEYS)
    selection = read_selection([("filter[dealstage]", "stage-2"), ("sort", "-amount,closedate")])

    async def explain():
        query = b"EXPLAIN (GENERIC_PLAN) " + _rows_query(selection)
        async with build_pool(settings) as pool, pool.connection() as connection:
            return [line for (line,) in await (await connection.execute(query)).fetchall()]

    with psycopg.connect(url, autocommit=True) as database:
        database.execute("VACUUM ANALYZE hubspot_deals_extraction.deals")
    plan = asyncio.run(explain())

    assert not [line for line in plan if "Seq Scan" in line]
    assert [line for line in plan if "Index Only Scan using deals_to_filter on" in line]
    assert [line for line in plan if "deals_too_long_to_filter" in line]


def test_a_filter_that_takes_too_long_or_too_many_rows_is_refused(client, url, monkeypatch):
    params = {"tableName": "deals", "filter[amount]": "4"}
    monkeypatch.setattr(selected_rows, "_SECONDS", 0.2)
    with psycopg.connect(url) as database:
        database.execute("LOCK TABLE hubspot_deals_extraction.deals IN ACCESS EXCLUSIVE MODE")
        slow = client.get(URL.format("scan-100"), params=params)
    monkeypatch.setattr(selected_rows, "_MOST_ROWS", 99)
    large = client.get(URL.format("scan-100"), params=params)

    for answer in (slow, large):
        assert answer.status_code == 400
        assert "download the table instead" in answer.json()["validation_errors"]["filter"][0]


def test_selections_that_are_not_kept_are_made_again(client, url, monkeypatch):
    monkeypatch.setattr(selected_rows, "_MOST_KEPT_ROWS", 250)
    up, down = (
        rows_of(url, "scan-100", order=f"amount {way} NULLS LAST, row_no")
        for way in ("ASC", "DESC")
    )

    for _ in range(3):
        assert by_cursor(client, "scan-100", 40, sort="amount") == (up, 100)
        assert by_cursor(client, "scan-100", 40, sort="-amount") == (down, 100)
        assert by_cursor(client, "scan-100", 40, sort="pipeline") == (rows_of(url, "scan-100"), 100)
