import json
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from hubspot_deals.cli.main import cli
from hubspot_deals.cli.settings import CommandLine

pytestmark = pytest.mark.usefixtures("no_settings")


SUMMARY = {
    "old": {"scanId": "a", "filters": {"includeArchived": False}},
    "new": {"scanId": "b", "filters": {"includeArchived": True}},
    "properties": {"compared": ["amount"], "onlyInOld": ["dealtype"], "onlyInNew": []},
    "summary": {
        "added": 1,
        "removed": 1,
        "changed": 1,
        "unchanged": 1_000,
        "byProperty": {"amount": 1},
    },
}
PAGES: list[list[dict[str, Any]]] = [
    [{"kind": "changed", "id": "1", "changes": {"amount": {"old": "5", "new": None}}}],
    [],
    [
        {"kind": "added", "id": "2", "record": {"id": "2", "amount": "7"}},
        {"kind": "removed", "id": "3", "record": {"id": "3", "dealname": "Gone"}},
    ],
]


def answer(request: httpx.Request) -> httpx.Response:
    """One page after the other, the second one empty."""
    assert request.url.path == "/api/v1/results/a/diff/b"
    params = request.url.params
    if params.get("summary") == "true":
        return httpx.Response(200, json={"success": True, "data": SUMMARY})
    number = int(params.get("cursor", 0))
    changes = PAGES[number][: int(params["limit"])]
    is_last = number == len(PAGES) - 1
    pagination = {"hasMore": not is_last, "nextCursor": None if is_last else str(number + 1)}
    data = {"changes": changes, "pagination": pagination}
    return httpx.Response(200, json={"success": True, "data": data})


def run(*arguments: str) -> Result:
    transport = httpx.MockTransport(answer)
    return CliRunner().invoke(cli, ["diff", "a", "b", *arguments], obj=CommandLine(transport))


def test_numbers_and_changes_are_shown() -> None:
    result = run()

    assert result.exit_code == 0, result.output
    shown = [line.split() for line in result.output.splitlines()]
    assert ["unchanged", "1,000"] in shown
    assert ["1", "changed", "amount", "5"] in [line[:4] for line in shown]
    assert ["2", "added", "amount", "7"] in shown
    assert ["3", "removed", "dealname", "Gone"] in shown
    assert "read only by the old scan, not compared: dealtype" in result.output
    assert "different filters" in result.output
    assert "of 3 changes" not in result.output


def test_as_many_changes_as_asked_for_are_shown() -> None:
    result = run("--limit", "2")
    assert "2 of 3 changes" in result.output
    assert "Gone" not in result.output


def test_programs_get_numbers_and_changes() -> None:
    found = json.loads(run("--json").output)
    assert found["summary"] == SUMMARY["summary"]
    assert found["changes"] == [change for page in PAGES for change in page]


def test_the_numbers_alone() -> None:
    assert json.loads(run("--json", "--limit", "0").output)["changes"] == []
    assert run("--limit", "-1").exit_code == 2
