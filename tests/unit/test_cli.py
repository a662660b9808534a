import json
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.testing import serve
from hubspot_deals.cli.client import ServiceClient
from hubspot_deals.cli.output import echo_table
from hubspot_deals.cli.stack import psql_call
from hubspot_deals.local.ports import free_ports
from hubspot_deals.local.readiness import check_hubspot_url
from tests.unit.cli_service import FakeService, run

pytestmark = pytest.mark.usefixtures("no_settings")

TOKEN = "canary-token-0000"


def test_start_sends_what_the_options_say() -> None:
    service = FakeService()

    result = run(
        service,
        *("scan", "start", "--scan-id", "s1", "--organization", "o", "--token-file", "-"),
        *("--property", "dealname", "--property", "amount", "--include-archived"),
        *("--start-date", "2026-01-01", "--end-date", "2026-01-31", "--date-field", "closedate"),
        *("--idempotency-key", "k"),
        input=f"{TOKEN}\n",
    )

    assert result.exit_code == 0, result.output
    assert service.requests[0].headers["Idempotency-Key"] == "k"
    assert json.loads(service.requests[0].content)["config"] == {
        "scanId": "s1",
        "organizationId": "o",
        "type": ["user"],
        "auth": {"accessToken": TOKEN},
        "filters": {
            "properties": ["dealname", "amount"],
            "includeArchived": True,
            "dateRange": {
                "startDate": "2026-01-01",
                "endDate": "2026-01-31",
                "field": "closedate",
            },
        },
    }


def test_start_without_an_id_makes_one_and_prints_it_for_programs() -> None:
    service = FakeService()

    result = run(service, "scan", "start", "--json", "--token-file", "-", input=TOKEN)

    sent = json.loads(service.requests[0].content)["config"]
    assert json.loads(result.stdout) == {"scanId": sent["scanId"], "message": "accepted"}
    assert sent["filters"] == {"includeArchived": False}


def test_a_start_that_is_repeated_with_its_key_alone_is_the_same_request() -> None:
    service = FakeService()
    for organization, key in (("o", "k"), ("o", "k"), ("o", "other"), ("p", "k")):
        arguments = ("--organization", organization, "--idempotency-key", key, "--token-file", "-")
        assert run(service, "scan", "start", *arguments, input=TOKEN).exit_code == 0

    first, again, *others = (request.content for request in service.requests)
    assert first == again
    ids = {json.loads(content)["config"]["scanId"] for content in (first, *others)}
    assert len(ids) == 3


def test_an_empty_variable_is_an_absent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBSPOT_DEALS_ACCESS_TOKEN", "")
    monkeypatch.setenv("HUBSPOT_DEALS_API_URL", "")

    assert "No HubSpot access token" in run(FakeService(), "scan", "start").stderr


def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBSPOT_DEALS_ACCESS_TOKEN", TOKEN)
    service = FakeService()

    assert run(service, "scan", "start").exit_code == 0
    assert json.loads(service.requests[0].content)["config"]["auth"] == {"accessToken": TOKEN}


def test_start_without_a_token_says_where_to_put_one_and_sends_nothing() -> None:
    service = FakeService()

    result = run(service, "scan", "start")

    assert result.exit_code == 2
    assert "HUBSPOT_DEALS_ACCESS_TOKEN" in result.stderr
    assert service.requests == []


def test_a_token_is_not_accepted_as_an_option() -> None:
    assert run(FakeService(), "scan", "start", "--access-token", TOKEN).exit_code == 2


def test_every_fault_of_a_refused_request_gets_its_own_line() -> None:
    faults = {"config": {"scanId": ["too long", "bad character"], "auth": "missing"}}
    refusal = httpx.Response(
        400,
        json={
            "success": False,
            "message": f"Input validation failed: {faults}",
            "validation_errors": faults,
        },
    )

    result = run(FakeService(refusal=refusal), "scan", "start", "--token-file", "-", input=TOKEN)

    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "Error: Input validation failed",
        "  config.scanId: too long",
        "  config.scanId: bad character",
        "  config.auth: missing",
    ]
    assert TOKEN not in result.output


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (httpx.Response(404, json={"message": "No scan found"}), 4),
        (httpx.Response(409, json={"message": "already exists"}), 5),
        (httpx.Response(500, json={"message": "internal"}), 3),
        (httpx.Response(502, text="<html>bad gateway</html>"), 3),
        (httpx.Response(200, text="<html>a proxy's page</html>"), 3),
    ],
)
def test_refusals_have_exit_codes_of_their_own(answer: httpx.Response, code: int) -> None:
    result = run(FakeService(refusal=answer), "scan", "status", "s1")

    assert result.exit_code == code
    assert result.stderr.startswith("Error: ")


def test_an_api_that_cannot_be_reached_has_its_own_exit_code() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        reason = "Connection refused"
        raise httpx.ConnectError(reason, request=request)

    result = run(refuse, "scan", "status", "s1")

    assert result.exit_code == 3
    assert "hubspot-deals up" in result.stderr


@pytest.mark.parametrize("url", ["localhost:5000", "http://[not-a-host", "ftp://h"])
def test_an_ill_formed_api_url_is_a_configuration_fault(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HUBSPOT_DEALS_API_URL", url)

    result = run(FakeService(), "scan", "list")

    assert result.exit_code == 2
    assert "HUBSPOT_DEALS_API_URL" in result.stderr


def test_the_api_of_the_running_stack_is_found(tmp_path: Any) -> None:
    (tmp_path / ".hubspot-deals").mkdir()
    stack = {"urls": {"api": "http://127.0.0.1:4711"}}
    (tmp_path / ".hubspot-deals" / "stack.json").write_text(json.dumps(stack))
    service = FakeService()

    run(service, "scan", "list")

    assert service.requests[0].url.port == 4711


@pytest.mark.parametrize("scan_id", ["../list", "..", "a/b", "a b?c"])
def test_a_strange_id_stays_one_path_segment(scan_id: str) -> None:
    service = FakeService()

    run(service, "scan", "status", scan_id)

    segments = service.requests[0].url.raw_path.decode().split("/")
    assert segments[:4] == ["", "api", "v1", "scan"]
    assert segments[5:] == ["status"]


def test_watch_follows_to_the_end() -> None:
    service = FakeService(statuses=["pending", "running", "completed"])

    result = run(service, "scan", "watch", "s1")

    assert result.exit_code == 0
    assert "completed: 1,234 records" in result.stderr
    assert "completed" in result.stdout


@pytest.mark.parametrize("status", ["failed", "cancelled", "crashed"])
def test_watch_of_a_scan_that_does_not_complete_fails(status: str) -> None:
    result = run(FakeService(statuses=[status]), "scan", "watch", "s1", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["status"] == status


def test_start_can_watch_and_names_the_reason_of_a_failure() -> None:
    service = FakeService(statuses=["failed"])
    arguments = ("scan", "start", "--scan-id", "s1", "--watch", "--token-file", "-")

    result = run(service, *arguments, input=TOKEN)

    assert result.exit_code == 1
    assert "Error: Scan s1 failed: no scope" in result.stderr


def test_who_stops_watching_is_told_that_the_scan_goes_on() -> None:
    service = FakeService()

    def interrupt(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/status"):
            raise KeyboardInterrupt
        return service(request)

    arguments = ("scan", "start", "--watch", "--token-file", "-")
    result = run(interrupt, *arguments, input=TOKEN)

    scan_id = json.loads(service.requests[0].content)["config"]["scanId"]
    assert result.exit_code == 130
    assert f"{scan_id}: accepted" in result.stderr
    assert f"hubspot-deals scan watch {scan_id}" in result.stderr


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_token_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)

    result = run(FakeService(), "scan", "start", "--token-file", str(file))

    assert result.exit_code == 2
    assert f"cannot be read from --token-file {file}" in result.stderr


def test_an_address_of_something_else_is_named() -> None:
    page = FakeService(refusal=httpx.Response(200, text="<html>Dagster</html>"))

    result = run(page, "scan", "list")

    assert "Is this the address of the REST API? HUBSPOT_DEALS_API_URL" in result.stderr


def test_a_narrow_terminal_takes_from_the_widest_column(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")

    echo_table(
        ("scan", "status", "records"), [("s" * 30 + "x" * 30, "completed", "25,000")], "", 60
    )

    shown = capsys.readouterr().out
    assert "completed" in shown
    assert "25,000" in shown
    assert "xxx…" in shown


def test_list_shows_scans() -> None:
    result = run(FakeService(), "scan", "list", "--organization", "o")

    assert "s1" in result.stdout
    assert "1 of 1" in result.stdout


def test_sql_without_a_stack_says_so() -> None:
    result = run(FakeService(), "sql", "SELECT 1")

    assert result.exit_code == 2
    assert "hubspot-deals up" in result.stderr


@pytest.mark.parametrize(
    "url", [f"postgresql://u:{TOKEN}@h:5/d?a=b", f"postgresql://u:x@h:5/d?password={TOKEN}&a=b"]
)
def test_sql_hands_psql_the_password_where_other_users_cannot_read_it(url: str) -> None:
    arguments, environment = psql_call(Path("/bin/psql"), url, "SELECT 1", {"HOME": "/h"})

    address, *once = arguments[1:]
    assert (arguments[0], address) == ("/bin/psql", "postgresql://u@h:5/d?a=b")
    assert once == ["--pset", "pager=off", "--command", "SELECT 1"]
    assert environment == {"HOME": "/h", "PGPASSWORD": TOKEN}


def test_sql_leaves_psql_its_own_ways_to_a_password() -> None:
    url = "postgresql://u@h:5/d?passfile=/a%20b"

    assert psql_call(Path("/bin/psql"), url, None, {}) == (["/bin/psql", url], {})


def test_a_proxy_does_not_come_between_the_command_line_and_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_ports(1)[0]}")
    app = FastAPI()
    app.get("/api/v1/scan/s1/status")(lambda: {"success": True, "data": {"status": "completed"}})

    with serve(app) as client, closing(ServiceClient(str(client.base_url))) as service:
        assert service.get_scan("s1") == {"status": "completed"}
        assert check_hubspot_url(f"{service.url}/api/v1/scan/s1/status")


def test_help_names_the_exit_codes() -> None:
    assert "Exit codes:" in run(FakeService(), "--help").stdout


@pytest.mark.parametrize("group", [(), ("scan",), ("connection",), ("webhook",), ("keys",)])
def test_help_says_what_each_command_does_without_breaking_off(group: tuple[str, ...]) -> None:
    said = run(FakeService(), *group, "--help", env={"COLUMNS": "80"}).stdout

    (_, *commands) = said.partition("Commands:")
    assert "..." not in "".join(commands)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--sandbox", "--hubspot-url", "http://h"),
        ("--api-port", "65536"),
        ("--sandbox-deals", "-1"),
    ],
)
def test_up_refuses_options_that_make_no_sense(arguments: tuple[str, ...]) -> None:
    assert run(FakeService(), "up", *arguments).exit_code == 2


def test_the_key_of_the_environment_goes_with_every_request_and_into_no_output() -> None:
    service = FakeService()
    key = "hsd_1f2e3d4c_secret"

    keyed = run(service, "scan", "list", env={"HUBSPOT_DEALS_API_KEY": f"{key}\n"})
    plain = run(service, "scan", "list")

    assert (keyed.exit_code, plain.exit_code) == (0, 0)
    assert key not in keyed.output
    sent = [request.headers.get("Authorization") for request in service.requests]
    assert sent == [f"Bearer {key}", None]


def test_a_missing_key_is_a_refused_request() -> None:
    text = "This request needs an API key or a token"
    service = FakeService(refusal=httpx.Response(401, json={"message": text}))

    result = run(service, "scan", "list")

    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {text}. Put one into HUBSPOT_DEALS_API_KEY")
