import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import psycopg2
import pytest
import sqlalchemy

from hubspot_deals.errors import ConfigurationError
from hubspot_deals.local.environment import dagster_storage_url
from hubspot_deals.local.folder import DataFolder
from hubspot_deals.local.postgres import EmbeddedPostgres, check_database
from hubspot_deals.local.processes import Child, wait_until_ready
from hubspot_deals.local.server_files import ServerAccount, cluster_folder, psql_program
from hubspot_deals.local.throwaway import running_postgres, throwaway_postgres

READY_SECONDS = 30


@contextmanager
def data_folder(mode: int) -> Iterator[DataFolder]:
    """A folder below one of this mode; pytest's own are closed to PostgreSQL's user under root."""
    with tempfile.TemporaryDirectory(prefix="hubspot-deals-") as parent:
        Path(parent).chmod(mode)
        folder = DataFolder(Path(parent) / "data")
        folder.create()
        yield folder


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with throwaway_postgres() as server:
        yield server


def test_psycopg_reads_the_password_file(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url) as connection:
        facts = connection.execute(
            "SELECT current_user, current_database(), rolsuper, current_setting('fsync'),"
            " pg_get_userbyid(datdba) FROM pg_roles, pg_database"
            " WHERE rolname = current_user AND datname = current_database()"
        ).fetchone()
    assert facts == ("hubspot_deals", "hubspot_deals", False, "on", "hubspot_deals")


def test_psycopg2_reads_the_password_file(server: EmbeddedPostgres) -> None:
    connection = psycopg2.connect(server.url)
    assert connection.info.dbname == "hubspot_deals"
    connection.close()


def test_dagsters_url_reaches_its_own_schema(server: EmbeddedPostgres) -> None:
    engine = sqlalchemy.create_engine(dagster_storage_url(server.url))
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SHOW search_path")) == "dagster"
    engine.dispose()


def test_psql_reads_the_password_file(server: EmbeddedPostgres) -> None:
    psql = [str(psql_program()), server.url, "-Atc", "SELECT 6 * 7"]
    assert subprocess.run(psql, capture_output=True, text=True, check=True).stdout == "42\n"


def test_secrets_are_for_their_owner_alone(server: EmbeddedPostgres) -> None:
    for file in (server.passfile, server.admin_passfile):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not list(server.cluster.parent.glob("*.password"))
    assert "password" not in server.url


@pytest.mark.parametrize("role", ["hubspot_deals", "postgres"])
@pytest.mark.parametrize("password", ["", "wrong"])
def test_a_wrong_password_does_not_come_in(
    server: EmbeddedPostgres, role: str, password: str
) -> None:
    url = f"postgresql://{role}:{password}@127.0.0.1:{server.port}/postgres?passfile=/dev/null"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url)


def test_a_database_that_refuses_is_reported_in_one_line(server: EmbeddedPostgres) -> None:
    with pytest.raises(ConfigurationError, match="does not answer") as refusal:
        check_database(f"postgresql://hubspot_deals:wrong@127.0.0.1:{server.port}/hubspot_deals")
    assert "\n" not in str(refusal.value)
    assert ":wrong" not in str(refusal.value)


def test_a_throwaway_server_leaves_nothing() -> None:
    with throwaway_postgres() as server:
        parent = server.passfile.parent.parent
        assert server.cluster.is_relative_to(parent)
    assert not parent.exists()


def test_a_restart_keeps_rows_port_and_password() -> None:
    with data_folder(0o755) as folder:
        with running_postgres(folder) as first, psycopg.connect(first.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        with running_postgres(folder) as second, psycopg.connect(first.url) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        assert second.port == first.port


def test_a_server_that_outlived_its_supervisor_is_replaced() -> None:
    with data_folder(0o755) as folder:
        server = EmbeddedPostgres.prepare(folder)
        leftover = Child(server.command(), folder.logs / "leftover.log")
        wait_until_ready({leftover: server.is_ready}, [leftover], READY_SECONDS, lambda: None)

        # A real one is init's child by now, so init has reaped it.
        leftover.process.poll()
        with running_postgres(folder) as second, psycopg.connect(second.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert leftover.process.wait(READY_SECONDS) == 0


def test_an_interrupted_first_start_leaves_nothing_in_the_way() -> None:
    with data_folder(0o755) as folder:
        half = folder.path / "postgres.new"
        half.mkdir()
        (half / "PG_VERSION").write_text("18\n")

        with running_postgres(folder) as server:
            assert not half.exists()
            assert server.is_ready()


def test_a_cluster_of_another_version_is_refused() -> None:
    with data_folder(0o755) as folder:
        (folder.path / "postgres").mkdir()
        (folder.path / "postgres" / "PG_VERSION").write_text("16\n")

        with pytest.raises(ConfigurationError, match="PostgreSQL 16"):
            EmbeddedPostgres.prepare(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_a_closed_home_stays_closed() -> None:
    with data_folder(0o700) as folder:
        with running_postgres(folder) as server:
            psycopg.connect(server.url).close()
        shutil.rmtree(server.cluster)

        assert not server.cluster.is_relative_to(folder.path)
        assert stat.S_IMODE(folder.path.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() == 0, reason="root runs the server as another user")
def test_an_ordinary_user_keeps_everything_in_the_data_folder() -> None:
    with data_folder(0o700) as folder:
        account = ServerAccount.of_this_process()
        assert account.system_user is None
        assert cluster_folder(account, folder.path) == folder.path / "postgres"
