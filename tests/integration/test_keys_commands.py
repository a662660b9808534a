"""`hubspot-deals keys` and `audit`, and what their keys open, on a real PostgreSQL."""

import json

import pytest
from click.testing import CliRunner

from hubspot_deals.cli.main import cli
from tests.integration.access_cases import bearer


@pytest.fixture
def run(database_url, tmp_path):
    """Runs a command on the test's database."""

    def run(*arguments, **environment):
        variables = {
            "HUBSPOT_DEALS_DATABASE_URL": database_url,
            "HUBSPOT_DEALS_DATA_DIR": str(tmp_path),
        }
        return CliRunner().invoke(cli, arguments, env=variables | environment)

    return run


def test_a_key_is_shown_once_and_opens_what_it_is_for(run, service, database):
    made = run("keys", "create", "--name", "etl", "--organization", "org-1", "--level", "run")
    key = made.stdout.strip()

    assert made.exit_code == 0
    assert len(key) == len("hsd_") + 8 + 1 + 43
    answer = service.get("/scan/list?organizationId=org-1", headers=bearer(key))
    assert answer.status_code == 200
    assert service.get("/scan/list?organizationId=org-2", headers=bearer(key)).status_code == 403
    stored = database.execute("SELECT t::text FROM hubspot_deals.api_keys t").fetchall()
    assert key.rpartition("_")[2] not in str(stored)
    listed = run("keys", "list")
    assert key.split("_")[1] in listed.stdout
    assert key.rpartition("_")[2] not in listed.stdout

    (known,) = json.loads(run("keys", "list", "--json").stdout)
    assert (known["name"], known["level"], known["state"]) == ("etl", "run", "valid")
    assert known["organizations"] == ["org-1"]
    assert known["lastUsedAt"] is not None
    assert known["expiresAt"] is not None


def test_two_keys_have_nothing_in_common(run):
    arguments = ("keys", "create", "--name", "n", "--all-organizations", "--never-expires")
    made = [json.loads(run(*arguments, "--json").stdout) for _ in range(2)]

    assert made[0]["key"] != made[1]["key"]
    assert made[0]["keyId"] != made[1]["keyId"]
    assert {(key["organizations"], key["level"], key["expiresAt"]) for key in made} == {
        ("*", "read", None)
    }


def test_a_revoked_key_is_listed_as_such_and_revoked_once(run):
    made = json.loads(run("keys", "create", "--name", "n", "--all-organizations", "--json").stdout)

    assert run("keys", "revoke", made["keyId"]).exit_code == 0
    again = run("keys", "revoke", made["keyId"])
    assert again.exit_code == 1
    assert "keys list" in again.stderr
    (known,) = json.loads(run("keys", "list", "--json").stdout)
    assert known["state"] == "revoked"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--name", "n"),
        ("--name", "n", "--organization", "a", "--all-organizations"),
        ("--name", "n", "--organization", "*"),
        ("--name", "n", "--organization", "a\nb"),
        ("--name", "", "--all-organizations"),
        ("--name", "n" * 256, "--all-organizations"),
        ("--name", "n", "--all-organizations", "--level", "root"),
        ("--name", "n", "--all-organizations", "--days", "0"),
    ],
)
def test_a_key_that_nobody_can_mean_is_not_made(run, database, arguments):
    assert run("keys", "create", *arguments).exit_code == 2
    assert database.execute("SELECT count(*) FROM hubspot_deals.api_keys").fetchone() == (0,)


def test_the_audit_log_can_be_read_and_filtered(run, service):
    made = json.loads(run("keys", "create", "--name", "n", "--all-organizations", "--json").stdout)
    service.post("/api/v1/maintenance/cleanup", headers=bearer(made["key"]))
    run("keys", "revoke", made["keyId"])

    entries = json.loads(run("audit", "--json").stdout)
    told = [(entry["actor"], entry["action"], entry["outcome"]) for entry in entries]
    assert told[:1] == [("operator", "revoke_key", "done")]
    assert told[-1:] == [("operator", "create_key", "done")]
    assert "operator" in run("audit").stdout
    for option, value, count in (
        ("--actor", "operator", 2),
        ("--action", "create_key", 1),
        ("--scan", made["keyId"], 2),
        ("--outcome", "failed", 0),
        ("--since", "2099-01-01", 0),
        ("--until", "2099-01-01T00:00:00", 2),
    ):
        actor = () if option == "--actor" else ("--actor", "operator")
        found = json.loads(run("audit", option, value, *actor, "--json").stdout)
        assert len(found) == count, option


def test_what_callers_have_written_into_the_log_steers_no_terminal(run, database):
    database.execute(
        "INSERT INTO hubspot_deals.audit_log (at, actor, action, outcome, object_id)"
        " VALUES (now(), 'a', 'b', 'done', %s)",
        ("\x1b]0;x\x07\nkey:1f2e3d4c",),
    )
    shown = run("audit").stdout
    assert r"\x1b]0;x\x07\nkey:1f2e3d4c" in shown
    assert "\x1b" not in shown
    (entry,) = json.loads(run("audit", "--json").stdout)
    assert set(entry) == {
        "at",
        "actor",
        "action",
        "organization_id",
        "object_id",
        "outcome",
        "status",
        "request_id",
    }


def test_without_a_prepared_database_it_is_said_what_to_do(run, database):
    assert (
        "set HUBSPOT_DEALS_DATABASE_URL"
        in run("keys", "list", HUBSPOT_DEALS_DATABASE_URL="").stderr
    )
    database.execute("DROP TABLE hubspot_deals.api_keys")
    result = run("keys", "list")
    assert result.exit_code == 2
    assert "hubspot_deals.warehouse.migrate" in result.stderr
