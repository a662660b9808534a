"""Migrating: again, by several at once, and where it can't be done."""

import base64
import os
import subprocess
import sys
import uuid

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from api.dagster.testing import InMemoryDagsterGateway
from api.main import create_app
from api.settings import ApiSettings
from api.testing import serve
from benchmarks.serving_data import BIG_SCAN, add_deals
from hubspot_deals.errors import ConfigurationError
from hubspot_deals.warehouse import migrate as migrations
from hubspot_deals.warehouse.migrate import migrate
from tests.conftest import TEST_KEYS


@pytest.fixture
def empty_database_url(postgres):
    """A database that nobody has migrated."""
    name = sql.Identifier(f"empty_{uuid.uuid4().hex}")
    with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER hubspot_deals").format(name))
        yield postgres.url.replace("/hubspot_deals?", f"/{name.as_string(None)[1:-1]}?")
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def start(url):
    return subprocess.Popen(
        [sys.executable, "-m", "hubspot_deals.warehouse.migrate"],
        env={"HUBSPOT_DEALS_DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_second_migration_has_nothing_to_do(database_url):
    assert migrate(SecretStr(database_url)) == []


def test_four_processes_at_once_apply_each_file_once(empty_database_url):
    processes = [start(empty_database_url) for _ in range(4)]
    ends = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert [code for _, code in ends] == [0] * 4, ends
    done = sorted(output for (output, _), _ in ends)
    assert sum("0001_scans.sql" in output for output in done) == 1
    assert sum("nothing to do" in output for output in done) == 3
    with psycopg.connect(empty_database_url) as connection:
        applied = connection.execute("SELECT name FROM hubspot_deals.migrations").fetchall()
    assert len(applied) == len(set(applied)) >= 2


def test_what_was_scanned_before_certificates_is_served_in_every_way(
    empty_database_url, monkeypatch
):
    url = SecretStr(empty_database_url)
    known = migrations._migration_files()
    with monkeypatch.context() as earlier:
        files = [file for file in known if file.name < "0007"]
        earlier.setattr(migrations, "_migration_files", lambda: files)
        assert len(migrate(url)) == 6
    add_deals(empty_database_url, 500)

    processes = [start(empty_database_url) for _ in range(2)]
    ends = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0], ends

    settings = ApiSettings(database_url=url, encryption_keys=TEST_KEYS)
    with serve(create_app(settings, gateway=InMemoryDagsterGateway())) as client:
        results = f"/api/v1/results/{BIG_SCAN}"

        def get(path):
            answer = client.get(f"{results}/{path}")
            assert answer.status_code == 200, answer.text
            return answer.json()["data"]

        found = get("certificate")
        assert (found["certificate"], found["audit"]["differences"]) == (None, [])
        assert {table["unhashedChunks"] for table in found["audit"]["tables"]} == {1}
        page = get("result?tableName=deals&filter[amount][gt]=100&sort=-amount&limit=1")
        assert page["pagination"]["total"] == 401
        assert page["records"][0]["amount"] == "500.50"
        summary = get(f"diff/{BIG_SCAN}?summary=true")["summary"]
        assert (summary["unchanged"], summary["changed"]) == (500, 0)
        lines = client.get(f"{results}/download/ndjson?tableName=deals").text.splitlines()
        assert len(lines) == 500
    with psycopg.connect(empty_database_url) as connection:
        latest = "SELECT scan_id, deals FROM hubspot_deals_views.latest_scans"
        assert connection.execute(latest).fetchall() == [(BIG_SCAN, 500)]
        counted = "SELECT count(*) FROM hubspot_deals_views.latest_deals"
        assert connection.execute(counted).fetchall() == [(500,)]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://someone:canary@127.0.0.1:1/nothing",
        "postgresql//someone:canary@127.0.0.1/nothing",
        "postgresql://someone:canary@127.0.0.1/nothing?no_such_option=1",
        "canary",
    ],
)
def test_a_database_that_does_not_answer_is_one_line_without_its_password(url):
    with pytest.raises(ConfigurationError, match="HUBSPOT_DEALS_DATABASE_URL") as raised:
        migrate(SecretStr(url))
    assert "\n" not in str(raised.value)
    assert "canary" not in str(raised.value)


def test_the_command_says_it_in_one_line_and_ends_with_an_error():
    process = start("postgresql://someone:canary@127.0.0.1:1/nothing")
    output, complaint = process.communicate(timeout=60)
    assert (process.returncode, output, complaint.count("\n")) == (2, "", 1)


def test_a_role_that_may_not_migrate_is_told_so_in_one_line(postgres, database_url):
    password = base64.b16encode(os.urandom(8)).decode()
    role = sql.Identifier(f"reader_{uuid.uuid4().hex[:8]}")
    with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password))
        try:
            limited = psycopg.conninfo.make_conninfo(
                database_url, user=role.as_string(None)[1:-1], password=password
            )
            with pytest.raises(ConfigurationError, match="permission denied") as raised:
                migrate(SecretStr(limited))
        finally:
            admin.execute(sql.SQL("DROP ROLE {}").format(role))
    assert "\n" not in str(raised.value)
