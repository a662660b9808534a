"""How `hubspot-deals results` shows tables and rows, all of them or some in another order."""

import json

import pytest

from hubspot_deals.cli.results import _echo_page
from tests.unit.cli_service import FakeService, run

pytestmark = pytest.mark.usefixtures("no_settings")


def test_results_lists_tables_then_shows_rows() -> None:
    tables = run(FakeService(), "results", "s1")
    rows = run(FakeService(), "results", "s1", "--table", "deals", "--limit", "2")

    assert "deals" in tables.stdout
    assert "2 of 3 rows" in rows.stdout


def test_all_rows_come_as_ndjson_page_after_page() -> None:
    service = FakeService(rows=1201)

    result = run(service, "results", "s1", "--table", "deals", "--all")

    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [
        str(number) for number in range(1201)
    ]
    assert len(service.requests) == 3


def test_all_rows_are_of_the_first_pages_snapshot() -> None:
    service = FakeService(rows=1201)

    run(service, "results", "s1", "--table", "deals", "--all")

    asked = [request.url.params.get("snapshot") for request in service.requests]
    assert asked == [None, "4", "4"]


def test_a_result_that_is_replaced_while_it_is_read_is_to_be_read_again() -> None:
    service = FakeService(rows=1201, rerun_at=500)

    result = run(service, "results", "s1", "--table", "deals", "--all")

    assert result.exit_code == 5
    assert "start over" in result.stderr


def test_all_rows_come_as_csv_with_one_header() -> None:
    service = FakeService(rows=501)

    result = run(service, "results", "s1", "--table", "deals", "--all", "--format", "csv")

    lines = result.stdout.splitlines()
    assert lines[:3] == ["id,amount", "0,1.50", "1,"]
    assert len(lines) == 502


@pytest.mark.parametrize(
    "arguments", [("--all",), ("--format", "csv"), ("--table", "deals", "--all", "--json")]
)
def test_results_refuses_what_makes_no_sense(arguments: tuple[str, ...]) -> None:
    assert run(FakeService(), "results", "s1", *arguments).exit_code == 2


def test_filters_and_sorting_are_asked_for_on_every_page() -> None:
    service = FakeService(rows=501)
    chosen = ("--filter", "dealstage=won,lost", "--filter", "amount >=10", "--sort", "-amount")

    run(service, "results", "s1", "--table", "deals", "--all", *chosen, "--expand-labels")

    assert len(service.requests) == 2
    for request in service.requests:
        asked = request.url.params
        assert asked["filter[dealstage]"] == "won,lost"
        assert asked["filter[amount][gte]"] == "10"
        assert (asked["sort"], asked["expand"]) == ("-amount", "labels")


def test_labels_that_were_asked_for_are_shown_instead_of_other_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [*"abcdefghij", "dealstage_label", "pipeline_label", "owner_email"]
    pagination = {"returned": 1, "total": 1, "offset": 0}
    page = {"columns": names, "records": [{"owner_email": "a@b.c"}], "pagination": pagination}

    _echo_page(page, None, 3)

    shown = capsys.readouterr().out
    assert shown.split()[:7] == ["a", "b", "c", "d", *names[-3:]]
    assert "a@b.c" in shown
    assert "6 more columns" in shown


@pytest.mark.parametrize(
    "options",
    [
        ("--table", "deals", "--filter", "amount"),
        ("--table", "deals", "--filter", "=1"),
        ("--table", "deals", "--filter", "a=1", "--filter", "a=2"),
        ("--sort", "amount"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_before_anything_is_asked(
    options: tuple[str, ...],
) -> None:
    service = FakeService()

    assert run(service, "results", "s1", *options).exit_code == 2
    assert service.requests == []
