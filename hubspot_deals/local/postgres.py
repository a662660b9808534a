"""The embedded PostgreSQL: a durable cluster of its own, listening on loopback with passwords."""

import json
import os
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

import psutil
import psycopg
from psycopg import sql

from hubspot_deals.errors import ConfigurationError
from hubspot_deals.local.folder import DataFolder, write_private
from hubspot_deals.local.ports import LOOPBACK, free_ports, is_free
from hubspot_deals.local.processes import Command
from hubspot_deals.local.server_files import (
    MAJOR_VERSION,
    ServerAccount,
    cluster_folder,
    programs_folder,
)

DATABASE: Final = "hubspot_deals"
ROLE: Final = "hubspot_deals"
_ADMINISTRATOR: Final = "postgres"
_STOP_SECONDS: Final = 20.0

_SERVER_SETTINGS: Final = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "64MB",
    # Sized for two small cores that the pipeline shares. Durability stays on: fsync and
    # synchronous_commit keep their defaults.
    "max_parallel_workers": "2",
    "max_parallel_workers_per_gather": "1",
    "jit": "off",
    # Nothing replicates from here, and COPY into a fresh table then writes less.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "cluster_name": "hubspot-deals",
    # Makes guessing a stolen digest's password dear, and each connection with it; ours cannot be
    # guessed, they are 192 random bits.
    "scram_iterations": "1",
}


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """One cluster and the way to run it; made by `prepare`."""

    cluster: Path
    port: int
    programs: Path
    account: ServerAccount
    passfile: Path
    admin_passfile: Path

    @classmethod
    def prepare(cls, folder: DataFolder) -> "EmbeddedPostgres":
        """Return the data folder's cluster, created at its first use.

        The caller holds the folder's lock. A server that a killed supervisor left behind is ended.
        """
        account = ServerAccount.of_this_process()
        record = folder.path / "postgres.json"
        known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        cluster = Path(known.get("cluster") or cluster_folder(account, folder.path))
        _end_leftover_server(cluster)
        _end_leftover_sessions(cluster)
        server = cls(
            cluster=cluster,
            port=_port(known.get("port")),
            programs=programs_folder(account),
            account=account,
            passfile=folder.path / "postgres.pgpass",
            admin_passfile=folder.path / "postgres-admin.pgpass",
        )
        write_private(record, json.dumps({"cluster": str(cluster), "port": server.port}) + "\n")
        if not (cluster / "PG_VERSION").exists():
            server._initialize()
        server._check_version()
        return server

    @property
    def url(self) -> str:
        """The product's database, as a libpq URL that names a password file, not a password."""
        return self._url(ROLE, DATABASE, self.passfile)

    @property
    def admin_url(self) -> str:
        """The same server for its administrator."""
        return self._url(_ADMINISTRATOR, _ADMINISTRATOR, self.admin_passfile)

    def command(self) -> Command:
        """Return the server itself, to be run as a child that ends with its parent."""
        settings = {**_SERVER_SETTINGS, "port": str(self.port)}
        return Command(
            name="postgres",
            arguments=[
                str(self.programs / "postgres"),
                "-D",
                str(self.cluster),
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            environment=_environment(),
            working_folder=Path("/"),
            run_as=self.account.system_user,
            # PostgreSQL's fast shutdown: sessions end, everything is written.
            stop_signal=signal.SIGINT,
            stop_seconds=_STOP_SECONDS,
        )

    def end_leftovers(self) -> None:
        """End the sessions of a server that was killed: the next one does not start beside them."""
        _end_leftover_sessions(self.cluster)

    def is_ready(self) -> bool:
        """Tell whether the server accepts sessions."""
        try:
            psycopg.connect(self.admin_url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def ensure_database(self) -> None:
        """Create the product's role and database unless they are there."""
        role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
        with psycopg.connect(self.admin_url, autocommit=True) as admin:
            if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
                admin.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                        role, sql.Literal(_password_in(self.passfile))
                    )
                )
            known = "SELECT 1 FROM pg_database WHERE datname = %s"
            if not admin.execute(known, [DATABASE]).fetchone():
                admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))

    def _url(self, role: str, database: str, passfile: Path) -> str:
        query = urlencode({"passfile": str(passfile)}, quote_via=quote, safe="/")
        return f"postgresql://{role}@{LOOPBACK}:{self.port}/{database}?{query}"

    def _initialize(self) -> None:
        """Make the cluster under a draft name: an interrupted start leaves no half of one."""
        draft = self.cluster.with_name(f"{self.cluster.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self.account.give(draft)
        _write_passfile(self.passfile, ROLE)
        _write_passfile(self.admin_passfile, _ADMINISTRATOR)
        password = self.cluster.with_name(f"{self.cluster.name}.password")
        write_private(password, _password_in(self.admin_passfile))
        self.account.give(password)
        try:
            self._run_initdb(draft, password)
        finally:
            password.unlink()
        draft.rename(self.cluster)

    def _run_initdb(self, cluster: Path, password: Path) -> None:
        user = self.account.system_user
        arguments = [
            str(self.programs / "initdb"),
            f"--pgdata={cluster}",
            f"--username={_ADMINISTRATOR}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # Sorts alike on every machine, whatever its locales.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
        ]
        result = subprocess.run(  # noqa: S603 - the command is ours
            arguments,
            env=_environment(),
            cwd="/",
            user=user.user_id if user else None,
            group=user.group_id if user else None,
            extra_groups=[] if user else None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            # Away from the terminal's Ctrl-C: the supervisor decides what ends when.
            start_new_session=True,
        )
        if result.returncode != 0:
            shutil.rmtree(cluster, ignore_errors=True)
            msg = f"PostgreSQL's cluster cannot be created: {result.stderr.strip()}"
            raise ConfigurationError(msg)

    def _check_version(self) -> None:
        found = (self.cluster / "PG_VERSION").read_text(encoding="utf-8").strip()
        if found != str(MAJOR_VERSION):
            msg = (
                f"{self.cluster} was written by PostgreSQL {found}, this is {MAJOR_VERSION}: "
                "name another --data-dir, or dump and restore it."
            )
            raise ConfigurationError(msg)


def check_database(url: str) -> None:
    """Raise ConfigurationError, with the server's own words, unless this database answers."""
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            connection.execute("SELECT 1")
    except psycopg.ProgrammingError:
        msg = "--database-url is no libpq URL such as postgresql://user:password@host/name."
        # Not chained: libpq quotes the text that it cannot read, with the password in it.
        raise ConfigurationError(msg) from None
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        msg = f"The database of --database-url does not answer: {reason}"
        raise ConfigurationError(msg) from None


def _environment() -> dict[str, str]:
    """Return nothing of ours: libpq variables or locales of the caller would change the server."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _port(known: int | None) -> int:
    """Keep the port between starts, so that a saved connection goes on working."""
    return known if known and is_free(known) else free_ports(1)[0]


def _write_passfile(passfile: Path, role: str) -> None:
    # The port may change between starts, so the entry is good for any.
    write_private(passfile, f"{LOOPBACK}:*:*:{role}:{secrets.token_urlsafe(24)}\n")


def _password_in(passfile: Path) -> str:
    return passfile.read_text(encoding="utf-8").strip().rpartition(":")[2]


def _end_leftover_server(cluster: Path) -> None:
    """End a server that outlived its supervisor; the folder's lock says that nobody else has it."""
    try:
        pid = int((cluster / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        server = psutil.Process(pid)
        if server.name() != "postgres" or str(cluster) not in server.cmdline():
            return
        with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            os.kill(pid, signal.SIGINT)
            server.wait(_STOP_SECONDS)
    except (OSError, ValueError, IndexError, psutil.Error):
        return


def _end_leftover_sessions(cluster: Path) -> None:
    """Kill what a killed server left: PostgreSQL recovers from that as from a loss of power.

    They are in sessions of their own, under names of their own, but in the cluster's folder.
    """
    left = [process for process in psutil.process_iter() if _works_in(process, cluster)]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=_STOP_SECONDS)


def _works_in(process: psutil.Process, cluster: Path) -> bool:
    try:
        return process.name() == "postgres" and process.cwd() == str(cluster.resolve())
    except psutil.Error:
        return False
