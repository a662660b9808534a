"""The `certificate` command against answers of the REST API."""

import json

import httpx
import pytest
from click.testing import CliRunner

from hubspot_deals.cli.main import cli
from hubspot_deals.cli.settings import CommandLine

TABLE = {"name": "deals", "read": 7_000, "committed": 7_000, "stored": 7_000}
GONE = {
    "table": "deals",
    "chunk": 2,
    "kind": "rows_missing",
    "text": "1 of the 4000 rows that were read are gone",
    "rowNumbers": [4_711],
    "keys": ["13501632122"],
}


def run(*arguments, complete=True, differences=(), proof=True):
    statements = ["HubSpot counts 7,000 live deals, as many as are stored."]
    audit = {
        "madeAt": "2026-11-23T15:00:00.000Z",
        "seconds": 0.2,
        "tables": [{"name": "deals", "committed": 7_000, "stored": 6_999, "distinct": 6_999}],
        "differences": list(differences),
    }
    document = {
        "complete": complete,
        "certificate": {"statements": statements, "tables": [TABLE]} if proof else None,
        "audit": audit,
    }

    def answer(request):
        assert request.url.path == "/api/v1/results/s1/certificate"
        return httpx.Response(200, json={"success": True, "data": document})

    command_line = CommandLine(httpx.MockTransport(answer))
    return CliRunner().invoke(cli, ["certificate", "s1", *arguments], obj=command_line)


def test_a_complete_scan_is_told_in_words_and_numbers():
    result = run()
    assert result.exit_code == 0
    assert "as many as are stored" in result.stdout
    assert "7,000" in result.stdout
    assert "Complete, audited at 2026-11-23T15:00:00.000Z" in result.stdout


def test_what_is_gone_is_named_and_is_exit_code_one():
    result = run(complete=False, differences=[GONE])
    assert result.exit_code == 1
    assert "deals, chunk 2: 1 of the 4000 rows that were read are gone" in result.stdout
    assert "rows 4711; ids 13501632122" in result.stdout
    assert "Scan s1 is not complete" in result.stderr


@pytest.mark.parametrize("complete", [True, False])
def test_json_is_the_apis_document(complete):
    result = run("--json", complete=complete)
    assert json.loads(result.stdout)["complete"] is complete
    assert result.exit_code == (not complete)


def test_a_scan_from_before_there_were_certificates_shows_what_is_stored():
    result = run(proof=False)
    assert result.exit_code == 0
    assert "from before there were certificates" in result.stdout
    assert "6,999" in result.stdout
