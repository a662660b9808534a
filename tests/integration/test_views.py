"""Views for BI tools: the latest full scan of each organization, and one view for each."""

import threading
from datetime import UTC, date, datetime
from decimal import Decimal

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from hubspot_deals.contract import DateRange, ScanFilters
from hubspot_deals.warehouse import views
from hubspot_deals.warehouse.removal import remove_marked_rows
from hubspot_deals.warehouse.views import keep_view, refresh_view, view_name

PROPERTIES = [
    ("amount", "number"),
    ("budget", "number"),
    ("signed", "bool"),
    ("renewed_at", "datetime"),
    ("due", "date"),
    ("colour", "enumeration"),
    ("remark", "string"),
]


@pytest.fixture
def database(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def add_scan(database, scan_id, *, organization="org-1", ended="2024-01-01", config=None, **more):
    """Store a completed scan of one deal, and what explains it."""
    database.execute(
        "INSERT INTO hubspot_deals.scans (scan_id, organization_id, config, request_hash, outcome,"
        " generation, ended_at) VALUES (%s, %s, %s, '', 'completed', 1, %s)",
        (scan_id, organization, Jsonb(config or {"filters": {}}), ended),
    )
    for table in ("deals", "users", "pipelines", "pipeline_stages", "deal_properties"):
        database.execute(
            "INSERT INTO hubspot_deals.scan_chunks (scan_id, generation, table_name, chunk_no,"
            " load_id, first_row, row_count, epoch) VALUES (%s, 1, %s, 1, %s, 1, 1, 1)",
            (scan_id, table, f"load-{scan_id}"),
        )
    database.execute(
        "INSERT INTO hubspot_deals.scan_tables VALUES (%s, 1, 'deals', 1, 1, '{id}')", (scan_id,)
    )
    define(database, scan_id, more.pop("properties", PROPERTIES))
    for row in (
        {"table": "users", "id": "o1", "email": "ann@example.com"},
        {"table": "pipelines", "id": "default", "label": "Sales"},
        {"table": "pipeline_stages", "id": "won", "pipeline_id": "default", "label": "Won!"},
        {"table": "pipeline_stages", "id": "won", "pipeline_id": "other", "label": "Other"},
    ):
        add_row(database, scan_id, **row)
    add_deal(database, scan_id, "1", more.get("deal", {}))


def define(database, scan_id, properties):
    for name, kind in properties:
        add_row(
            database, scan_id, table="deal_properties", name=name, type=kind, hubspot_defined=False
        )


def add_deal(database, scan_id, deal_id, properties):
    typed = {
        "amount": Decimal("1.5"),
        "dealstage": "won",
        "pipeline": "default",
        "hubspot_owner_id": "o1",
    }
    add_row(database, scan_id, table="deals", id=deal_id, properties=Jsonb(properties), **typed)


def add_row(database, scan_id, *, table, package=None, **values):
    values |= {"scan_id": scan_id, "row_no": 1, "_dlt_load_id": package or f"load-{scan_id}"}
    names = sql.SQL(", ").join(map(sql.Identifier, values))
    marks = sql.SQL(", ").join([sql.Placeholder()] * len(values))
    into = sql.Identifier("hubspot_deals_extraction", table)
    database.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(into, names, marks), [*values.values()]
    )


def rows_of(database, organization="org-1", columns="*"):
    cursor = database.cursor(row_factory=psycopg.rows.dict_row)
    name = sql.Identifier("hubspot_deals_views", view_name(organization))
    cursor.execute(sql.SQL("SELECT {} FROM {}").format(sql.SQL(columns), name))
    return cursor.fetchall()


def left_out(database):
    return database.execute(
        "SELECT view_name, left_out FROM hubspot_deals_views.organization_views"
    ).fetchall()


def test_each_property_is_a_typed_column(database):
    deal = {
        "budget": "-1234567890.123456789012345678901",
        "signed": "TRUE",
        "renewed_at": "2024-02-29T10:30:00.123Z",
        "due": "1709164800000",
        "colour": "red;green",
        "remark": "",
    }
    add_scan(database, "s1", deal=deal)
    refresh_view(database, "org-1")

    (row,) = rows_of(database)

    assert (
        row
        | {
            "scan_id": "s1",
            "id": "1",
            "dealstage_label": "Won!",
            "pipeline_label": "Sales",
            "owner_email": "ann@example.com",
            "amount": Decimal("1.5"),
            "budget": Decimal("-1234567890.123456789012345678901"),
            "signed": True,
            "renewed_at": datetime(2024, 2, 29, 10, 30, 0, 123_000, UTC),
            "due": date(2024, 2, 29),
            "colour": "red;green",
            "remark": "",
        }
        == row
    )
    assert left_out(database) == [(view_name("org-1"), [])]


def test_the_view_shows_the_full_scan_that_completed_last(database):
    add_scan(database, "first", ended="2024-01-01", deal={"remark": "first"})
    refresh_view(database, "org-1")
    assert [row["remark"] for row in rows_of(database)] == ["first"]

    part = {"filters": {"dateRange": {"startDate": "2024-01-01", "endDate": None}}}
    add_scan(database, "part", ended="2024-03-01", config=part)
    add_scan(database, "foreign", organization="org-2", ended="2024-04-01")
    add_scan(database, "second", ended="2024-02-01", deal={"remark": "second"})
    assert [row["remark"] for row in rows_of(database)] == ["second"]
    whole = {"filters": {"dateRange": {"startDate": None, "endDate": None}}}
    add_scan(database, "third", ended="2024-02-02", config=whole, deal={"remark": "third"})
    assert [row["remark"] for row in rows_of(database)] == ["third"]

    database.execute(
        "UPDATE hubspot_deals.scans SET results_removed_at = now() WHERE scan_id = 'third'"
    )
    assert [row["remark"] for row in rows_of(database)] == ["second"]
    latest = "SELECT organization_id, scan_id FROM hubspot_deals_views.latest_{} ORDER BY 1"
    for table in ("scans", "deals", "users", "pipelines", "deal_properties"):
        found = dict(database.execute(latest.format(table)).fetchall())
        assert found == {"org-1": "second", "org-2": "foreign"}, table


def test_rows_that_do_not_count_are_neither_shown_nor_labels(database):
    add_scan(database, "s1")
    add_row(database, "s1", table="deals", package="dead", id="2", properties=Jsonb({}))
    add_row(database, "s1", table="users", package="dead", id="o1", email="dead@example.com")
    refresh_view(database, "org-1")

    assert [(row["id"], row["owner_email"]) for row in rows_of(database)] == [
        ("1", "ann@example.com")
    ]


def test_new_properties_become_columns_behind_the_others(database):
    add_scan(database, "s1", properties=[("zeal", "number")])
    refresh_view(database, "org-1")
    mine = sql.SQL("CREATE VIEW mine AS SELECT zeal FROM hubspot_deals_views.{}").format(
        sql.Identifier(view_name("org-1"))
    )
    database.execute(mine)

    add_scan(database, "s2", ended="2025-01-01", properties=[("apt", "bool"), ("zeal", "number")])
    refresh_view(database, "org-1")

    assert list(rows_of(database)[0])[-2:] == ["zeal", "apt"]
    assert database.execute("SELECT count(*) FROM mine").fetchone() == (1,)


def test_a_property_that_is_gone_or_has_another_type_makes_the_view_anew(database):
    add_scan(database, "s1", properties=[("size", "number"), ("gone", "string")])
    refresh_view(database, "org-1")
    add_scan(database, "s2", ended="2025-01-01", properties=[("size", "string")])

    # Until then, the old columns show what they can.
    assert rows_of(database, columns="size, gone") == [{"size": None, "gone": None}]
    refresh_view(database, "org-1")

    add_deal(database, "s2", "2", {"size": "large"})
    assert {row["size"] for row in rows_of(database)} == {None, "large"}
    assert "gone" not in rows_of(database)[0]


def test_a_view_whose_properties_are_the_same_is_left_alone(database):
    def number():
        return database.execute(
            "SELECT xmin::text FROM hubspot_deals_views.organization_views"
        ).fetchone()

    add_scan(database, "s1")
    refresh_view(database, "org-1")
    before = number()
    add_scan(database, "s2", ended="2025-01-01")
    refresh_view(database, "org-1")
    assert number() == before


HOSTILE = ['"', "a'b", "%s %(x)s {}", "x" * 100, "é" * 60, "select", "\\", "a.b", "x" * 99 + "y"]


def test_hostile_property_names_are_columns_of_their_own(database):
    add_scan(
        database,
        "s1",
        properties=[(name, "string") for name in [*HOSTILE, "", "scan_id", "archived"]],
        deal={name: f"value of {name}" for name in HOSTILE},
    )
    refresh_view(database, "org-1")

    (row,) = rows_of(database)

    assert {value for value in row.values() if str(value).startswith("value of ")} == {
        f"value of {name}" for name in HOSTILE
    }
    assert left_out(database)[0][1] == ["", "archived", "scan_id"]
    assert row["scan_id"] == "s1"


@pytest.mark.parametrize(
    "organization", ["o", "Ünïcode 組織", "' OR 1=1 --", '"; DROP', "%s {0}", "-" * 255, "a" * 255]
)
def test_any_organization_has_a_view_of_its_own(database, organization):
    add_scan(database, "s1", organization=organization)
    add_scan(database, "s2", organization=organization[:-1] + "!")
    for one in (organization, organization[:-1] + "!"):
        refresh_view(database, one)

    assert [row["scan_id"] for row in rows_of(database, organization)] == ["s1"]
    assert [row["scan_id"] for row in rows_of(database, organization[:-1] + "!")] == ["s2"]
    assert len(view_name(organization)) <= 63


def test_more_properties_than_a_view_has_columns_are_left_out_by_name(database):
    many = [(f"p{number:04}", "number") for number in range(2_000)]
    add_scan(database, "s1", properties=many, deal={"p0000": "7"})
    refresh_view(database, "org-1")

    (row,) = rows_of(database)

    assert len(row) == views.MOST_COLUMNS
    assert row["p0000"] == 7
    ((_, out),) = left_out(database)
    assert out == [name for name, _ in many if name not in row]


def test_without_definitions_the_standard_properties_are_columns(database):
    add_scan(database, "s1", properties=[])
    refresh_view(database, "org-1")
    assert rows_of(database, columns="amount, dealname") == [
        {"amount": Decimal("1.5"), "dealname": None}
    ]


def test_a_reader_delays_a_new_view_by_seconds_and_no_longer(database, database_url, caplog):
    add_scan(database, "s1", properties=[("size", "number")])
    refresh_view(database, "org-1")
    add_scan(database, "s2", ended="2025-01-01", properties=[("size", "string")])
    with psycopg.connect(database_url) as reader:
        rows_of(reader)
        keep_view(database, "org-1")
        assert "LockNotAvailable" in caplog.text

    assert [row["scan_id"] for row in rows_of(database)] == ["s2"]
    keep_view(database, "org-1")
    assert database.execute(
        "SELECT version FROM hubspot_deals_views.organization_views"
    ).fetchone() == (views._VERSION,)


def test_many_at_once_make_one_view(database, database_url):
    add_scan(database, "s1")
    faults = []

    def refresh():
        with psycopg.connect(database_url, autocommit=True) as connection:
            try:
                for _ in range(5):
                    refresh_view(connection, "org-1")
            except psycopg.Error as error:
                faults.append(error)

    threads = [threading.Thread(target=refresh) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(rows_of(database)) == 1


def test_a_connection_that_is_gone_is_no_fault_of_the_scan(database_url, caplog):
    connection = psycopg.connect(database_url, autocommit=True)
    connection.close()
    keep_view(connection, "org-1")
    assert "OperationalError" in caplog.text


def test_a_scan_makes_its_view_and_the_last_removal_drops_it(accept, ask, run_job, query, settings):
    def views_there_are():
        return query("SELECT view_name FROM hubspot_deals_views.organization_views")

    def remove(scan_id):
        (seq,) = query("SELECT seq FROM hubspot_deals.scans WHERE scan_id = %s", scan_id)[0]
        assert ask("remove", scan_id)
        assert remove_marked_rows(settings.database_url, seq, seconds=30)

    accept("part", filters=ScanFilters(date_range=DateRange(date(2024, 1, 1))))
    assert run_job("part").success
    assert views_there_are() == []
    accept("full")
    assert run_job("full").success
    ((name,),) = views_there_are()
    shown = query(
        "SELECT count(*), count(dealstage_label), count(pipeline_label), count(owner_email) > 0,"
        f" count(closedate) > 0 FROM hubspot_deals_views.{name}"
    )
    assert shown == [(1_000, 1_000, 1_000, True, True)]

    remove("full")
    assert query(f"SELECT count(*) FROM hubspot_deals_views.{name}") == [(0,)]
    remove("part")
    assert views_there_are() == []
    assert query("SELECT to_regclass(%s)", f"hubspot_deals_views.{name}") == [(None,)]


def test_a_stage_without_its_pipeline_has_a_label_only_if_that_is_certain(database):
    add_scan(database, "s1")
    add_row(database, "s1", table="pipeline_stages", id="lost", pipeline_id="other", label="Lost!")
    database.execute("UPDATE hubspot_deals_extraction.deals SET pipeline = NULL")
    refresh_view(database, "org-1")
    assert rows_of(database, columns="dealstage_label") == [{"dealstage_label": None}]

    database.execute("UPDATE hubspot_deals_extraction.deals SET dealstage = 'lost'")
    assert rows_of(database, columns="dealstage_label") == [{"dealstage_label": "Lost!"}]
