from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from hubspot_deals.errors import ConfigurationError
from hubspot_deals.local.environment import (
    StackAddresses,
    child_environment,
    connection_environment,
    dagster_storage_url,
    libpq_url,
    plain_environment,
    split_password,
    without_password,
)
from hubspot_deals.local.postgres import check_database

ADDRESSES = StackAddresses(
    database_url="postgresql://u@127.0.0.1:5/d?passfile=/x",
    hubspot_url="http://127.0.0.1:9",
    code_server_port=4000,
    sync_server_port=4001,
    dagster_port=3000,
    api_port=5000,
)


def build(caller: dict[str, str]) -> dict[str, str]:
    return child_environment(caller, ADDRESSES, Path("/data/dagster_home"), "k1:key")


def test_what_the_stack_decides_replaces_the_callers_settings() -> None:
    environment = build(
        {
            "PATH": "/bin",
            "HUBSPOT_DEALS_DATABASE_URL": "postgresql://other",
            "HUBSPOT_DEALS_HUBSPOT_URL": "https://api.hubapi.com",
            "DAGSTER_HOME": "/elsewhere",
        }
    )

    assert environment["PATH"] == "/bin"
    assert environment["HUBSPOT_DEALS_DATABASE_URL"] == ADDRESSES.database_url
    assert environment["HUBSPOT_DEALS_HUBSPOT_URL"] == "http://127.0.0.1:9"
    assert environment["DAGSTER_HOME"] == "/data/dagster_home"
    assert environment["HUBSPOT_DEALS_DAGSTER_URL"] == "http://127.0.0.1:3000"
    assert environment["HUBSPOT_DEALS_CODE_SERVER_PORT"] == "4000"
    assert environment["HUBSPOT_DEALS_SYNC_SERVER_PORT"] == "4001"
    assert environment["RUNTIME__DLTHUB_TELEMETRY"] == "false"


@pytest.mark.parametrize(
    ("organization", "expected"), [("org-1", {"HUBSPOT_DEALS_ACCESS_TOKEN": "secret"}), ("", {})]
)
def test_only_with_an_organization_the_token_is_of_a_connection(
    organization: str, expected: dict[str, str]
) -> None:
    caller = {"HUBSPOT_DEALS_ACCESS_TOKEN": "secret", "HUBSPOT_DEALS_ORGANIZATION_ID": organization}
    assert connection_environment(caller) == expected


def test_tuning_of_the_caller_is_kept() -> None:
    assert build({"HUBSPOT_DEALS_CHUNK_ROWS": "500"})["HUBSPOT_DEALS_CHUNK_ROWS"] == "500"


@pytest.mark.parametrize(
    "name", ["HUBSPOT_DEALS_ACCESS_TOKEN", "DAGSTER_CLOUD_URL", "DAGSTER_GRPC_SOCKET"]
)
def test_a_token_or_another_dagster_of_the_caller_stays_out(name: str) -> None:
    assert name not in build({name: "x"})


def test_processes_that_are_not_ours_get_no_settings_at_all() -> None:
    caller = {"HOME": "/h", "HUBSPOT_DEALS_CHUNK_ROWS": "500", "DAGSTER_HOME": "/d"}

    assert plain_environment(caller) == {
        "HOME": "/h",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        ({"HTTP_PROXY": "http://127.0.0.1:1"}, "127.0.0.1,localhost"),
        ({"NO_PROXY": "corp, .lan"}, "corp,.lan,127.0.0.1,localhost"),
        ({"no_proxy": "a,localhost", "NO_PROXY": "b"}, "a,localhost,b,127.0.0.1"),
        ({"NO_PROXY": "*"}, "*"),
    ],
)
def test_the_parts_of_a_stack_meet_without_the_callers_proxy(
    caller: dict[str, str], expected: str
) -> None:
    environment = build(caller)

    assert environment["NO_PROXY"] == environment["no_proxy"] == expected
    assert environment.get("HTTP_PROXY") == caller.get("HTTP_PROXY")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%40ss@h:5/d",
        "postgresql://u@h:5/d?passfile=/a%20b/p",
        "postgresql://u@h:5/d?sslmode=require&options=-cstatement_timeout%3D5",
    ],
)
def test_dagsters_url_is_the_same_database_with_its_own_schema(url: str) -> None:
    libpq = psycopg.conninfo.conninfo_to_dict(url)
    storage = make_url(dagster_storage_url(url))

    assert storage.drivername == "postgresql+psycopg2"
    assert (storage.username, storage.host, storage.port, storage.database) == (
        libpq["user"],
        libpq["host"],
        int(str(libpq["port"])),
        libpq["dbname"],
    )
    assert storage.password == libpq.get("password")
    query = dict(storage.query)
    options = str(query.pop("options")).split(" -c")
    assert options[-2].removeprefix("-c") == "search_path=dagster"
    assert options[-1] == "timezone=UTC"
    assert query == {key: libpq[key] for key in ("passfile", "sslmode") if key in libpq}


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_the_scheme_is_understood(scheme: str) -> None:
    assert libpq_url(f"{scheme}://u@h/d") == "postgresql://u@h/d"


@pytest.mark.parametrize(
    "url",
    ["mysql://u:secret@h/d", "secret", "postgresql://u:secret@h", "postgresql://u:secret@[h/d"],
)
def test_what_is_no_database_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--database-url") as refusal:
        libpq_url(url)
    assert "secret" not in str(refusal.value)


def test_a_url_is_printed_without_its_password() -> None:
    assert without_password("postgresql://u:secret@h:5/d?a=b") == "postgresql://u:***@h:5/d?a=b"
    assert without_password("http://127.0.0.1:1") == "http://127.0.0.1:1"
    assert (
        without_password("postgresql://u:secret@h/d?a=b&pass%77ord=secret&sslpassword=secret")
        == "postgresql://u:***@h/d?a=b&pass%77ord=***&sslpassword=***"
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@h:5/d?passfile=/a%20b/p",
        "postgresql://u:p%40s+s@h:5/d",
        "postgresql://u@h:5/d?password=p%40s+s&sslmode=require",
        "postgresql://u:other@h:5/d?sslmode=require&pass%77ord=p%40s+s",
    ],
)
def test_a_split_url_means_the_same_to_libpq(url: str) -> None:
    address, password = split_password(url)

    apart = psycopg.conninfo.conninfo_to_dict(address)
    assert "password" not in apart
    assert apart | ({} if password is None else {"password": password}) == (
        psycopg.conninfo.conninfo_to_dict(url)
    )


def test_a_url_that_libpq_cannot_read_is_refused_without_quoting_it() -> None:
    with pytest.raises(ConfigurationError, match="no libpq URL") as refusal:
        check_database("postgresql://u:secret@h/d?secret")
    assert "secret" not in str(refusal.value)
    assert refusal.value.__cause__ is None
