import json
import socket
import stat
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

ANY_PORTS = ("--api-port", "0", "--dagster-port", "0")
REFUSED = 2


@pytest.fixture
def refused_in_one_line(run_to_end):
    return partial(_refused_in_one_line, run_to_end)


def _refused_in_one_line(run_to_end, *options: str, data_dir: Path, **variables: str) -> str:
    """Run `up`, check that it refused without leaving anything behind, and return what it said."""
    result = run_to_end("up", "--data-dir", str(data_dir), *options, **variables)

    assert result.returncode == REFUSED, result.stdout + result.stderr
    assert not (data_dir / "stack.json").exists()
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    users = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in users if any(str(data_dir) in word for word in line)]
    return lines[0]


@pytest.mark.parametrize(
    ("option", "other"), [("--api-port", "--dagster-port"), ("--dagster-port", "--api-port")]
)
def test_a_port_in_use_is_named(
    refused_in_one_line, tmp_path: Path, option: str, other: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = refused_in_one_line(option, str(port), other, "0", data_dir=tmp_path / "data")

    assert f"Port {port} is in use" in said
    assert option in said


def test_a_folder_that_cannot_be_written_is_named(refused_in_one_line, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    said = refused_in_one_line(*ANY_PORTS, data_dir=tmp_path / "file" / "data")

    assert str(tmp_path / "file" / "data") in said


def test_a_database_that_does_not_answer_is_reported_without_its_password(
    refused_in_one_line, tmp_path: Path
) -> None:
    url = "postgresql://somebody:hidden-word@127.0.0.1:1/nothing"

    for options, variables in (
        (("--database-url", url), {}),
        ((), {"HUBSPOT_DEALS_DATABASE_URL": url}),
    ):
        said = refused_in_one_line(*ANY_PORTS, *options, data_dir=tmp_path / "d", **variables)
        assert "does not answer" in said
        assert "hidden-word" not in said


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--database-url", "mysql://h/d", "postgresql://"),
        ("--hubspot-url", "api.hubapi.com", "must look like"),
        ("--hubspot-url", "http://127.0.0.1:1", "Nothing answers"),
    ],
)
def test_a_url_that_cannot_be_used_is_reported(
    refused_in_one_line, tmp_path: Path, option: str, value: str, reason: str
) -> None:
    assert reason in refused_in_one_line(*ANY_PORTS, option, value, data_dir=tmp_path / "data")


def test_a_second_stack_on_the_same_folder_is_refused(run_to_end, stack) -> None:
    result = run_to_end("up", *ANY_PORTS, "--data-dir", str(stack.data_dir))

    assert result.returncode == REFUSED
    assert f"already running on {stack.data_dir} (process {stack.pids['supervisor']})" in (
        result.stderr
    )
    assert (stack.data_dir / "stack.json").exists()


def test_the_stack_file_names_every_part(stack) -> None:
    assert set(stack.urls) == {"api", "dagster", "database", "hubspot"}
    assert set(stack.pids) == {
        "supervisor",
        "postgres",
        "sandbox",
        "run_host",
        "code_server",
        "sync_server",
        "daemon",
        "webserver",
        "api",
    }
    assert stack.pids["supervisor"] == stack.process.pid
    assert all(psutil.pid_exists(pid) for pid in stack.pids.values())
    file = stack.data_dir / "stack.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(json.loads(file.read_text())) >= {"started_at", "data_dir", "logs"}


def test_every_address_of_a_ready_stack_answers(stack) -> None:
    assert httpx.get(f"{stack.urls['api']}/api/v1/health").status_code == 200
    assert httpx.get(f"{stack.urls['dagster']}/server_info").status_code == 200
    assert httpx.get(stack.urls["hubspot"]).status_code < 500
    with psycopg.connect(stack.urls["database"]) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("hubspot_deals",)


def test_what_up_prints_leads_to_the_documentation(stack) -> None:
    printed = stack.output.read_text()

    assert f"{stack.urls['api']}/api/v1/docs" in printed
    assert stack.urls["dagster"] in printed


def test_no_port_of_the_stack_is_open_to_the_network(stack) -> None:
    family = psutil.Process(stack.process.pid).children(recursive=True)

    assert {address for process in family for address in listening(process)} == {"127.0.0.1"}


def listening(process: psutil.Process) -> set[str]:
    connections = []
    # A run may end meanwhile.
    with suppress(psutil.NoSuchProcess, FileNotFoundError):
        connections = process.net_connections("inet")
    return {
        # gRPC listens on an IPv6 socket, on IPv4's loopback address.
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in connections
        if connection.status == psutil.CONN_LISTEN
    }


def test_the_command_line_finds_the_stack(run_to_end, stack) -> None:
    folder = {"HUBSPOT_DEALS_DATA_DIR": str(stack.data_dir)}

    listed = run_to_end("scan", "list", "--json", **folder)
    selected = run_to_end("sql", "SELECT 6 * 7 AS answer", **folder)

    assert listed.returncode == 0, listed.stderr
    assert "scans" in json.loads(listed.stdout)
    assert "42" in selected.stdout, selected.stderr
