"""The health check and what stands on it, with a real PostgreSQL that works, hangs or is gone."""

import asyncio
import contextlib
import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from api import database
from api.dagster.gateway import DagsterState
from api.dagster.testing import InMemoryDagsterGateway
from api.database import build_pool, read
from api.main import create_app
from api.settings import ApiSettings
from api.testing import serve
from hubspot_deals.warehouse.results import _page_query
from tests.conftest import TEST_KEYS
from tests.pace import within


class FreezableProxy:
    """Stands before PostgreSQL and stops passing bytes on when told to."""

    def __init__(self, database_url):
        self._target = conninfo_to_dict(database_url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._moving = threading.Event()
        self._moving.set()
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()
        host, port = self._listener.getsockname()
        self.url = make_conninfo(**(self._target | {"host": host, "port": port}))

    def freeze(self):
        self._moving.clear()

    def thaw(self):
        self._moving.set()

    def close(self):
        self._moving.set()
        for end in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = self._connect()
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _connect(self):
        host, port = self._target["host"], int(self._target.get("port", 5432))
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        far = socket.socket(socket.AF_UNIX)
        far.connect(f"{host}/.s.PGSQL.{port}")
        return far

    def _pump(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._moving.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def api(database_url, gateway=None, **settings):
    values = {"hubspot_url": "http://127.0.0.1:9"} | settings
    chosen = ApiSettings(database_url=SecretStr(database_url), encryption_keys=TEST_KEYS, **values)
    with serve(create_app(chosen, gateway=gateway or InMemoryDagsterGateway())) as client:
        yield client


def nowhere():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"postgresql://nobody:hunter22@127.0.0.1:{port}/none"


def test_a_working_service_is_healthy(database_url):
    with api(database_url) as client:
        answer = client.get("/api/v1/health")

    assert answer.status_code == 200
    body = answer.json()
    timestamp, uptime = body.pop("timestamp"), body["data"].pop("uptime")
    assert timestamp.endswith("Z")
    assert 0 <= uptime < 60
    assert body == {
        "success": True,
        "status": "healthy",
        "service": "hubspot_deals_extraction",
        "version": "1.0.0",
        "data": {"status": "healthy", "version": "1.0.0", "timestamp": timestamp},
        "pipeline": {
            "pipeline_name": "hubspot_deals_extraction",
            "database_health": True,
            "supports_checkpoints": True,
        },
        "checks": {
            "database": "healthy",
            "cache": "not_configured",
            "external_api": "unhealthy: connection failed",
            "dagster": "healthy",
            "daemon": "healthy",
            "code_location": "healthy",
            "sensors": "unknown: never seen",
            "run_host": "unknown: not looked at lately",
            "downloads": "healthy",
        },
    }


def test_a_service_without_dagster_still_accepts_scans_so_it_is_healthy(database_url):
    with api(database_url, InMemoryDagsterGateway(is_down=True)) as client:
        health = client.get("/api/v1/health")
        info = client.get("/api/v1/pipeline/info").json()["data"]

    assert health.status_code == 200
    assert health.json()["checks"]["dagster"] == "unhealthy: Dagster connection failed"
    assert (info["is_active"], info["database_health"]) == (False, True)
    assert info["error"] == "Dagster connection failed"


def test_without_the_code_of_syncs_the_service_is_degraded_and_no_more(database_url):
    state = DagsterState("1", sync_location_error="hubspot_deals_syncs is not loaded")
    with api(database_url, InMemoryDagsterGateway(state=state)) as client:
        health = client.get("/health")
        up = client.get("/metrics").text
    assert health.status_code == 200
    assert health.json()["status"] == "healthy"
    told = health.json()["checks"]["code_location"]
    assert told == "degraded: hubspot_deals_syncs is not loaded"
    assert 'hubspot_deals_part_up{part="code_location"} 1.0' in up

    both = replace(state, location_error="hubspot_deals is not loaded")
    with api(database_url, InMemoryDagsterGateway(state=both)) as client:
        told = client.get("/health").json()["checks"]["code_location"]
    assert told == "unhealthy: hubspot_deals is not loaded"


class Upstream(BaseHTTPRequestHandler):
    """Answers the way the test wants it, and counts."""

    status, seconds, asked = 404, 0.0, 0

    def do_GET(self):
        type(self).asked += 1
        time.sleep(self.seconds)
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Keep quiet."""


@pytest.mark.parametrize(
    ("status", "seconds", "shown"),
    [
        (404, 0, "healthy"),
        (401, 0, "healthy"),
        (503, 0, "unhealthy: HTTP 503"),
        (404, 1.1, "degraded: high latency"),
        (404, 2.5, "degraded: high latency"),
    ],
)
def test_hubspots_address_is_asked_once_in_a_while_and_never_waited_for_long(
    database_url, status, seconds, shown
):
    kind = type("Chosen", (Upstream,), {"status": status, "seconds": seconds})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{upstream.server_port}"
        with api(database_url, hubspot_url=url) as client:
            answers = [client.get("/health") for _ in range(3)]
        upstream.shutdown()

    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].json()["checks"]["external_api"] == shown
    assert kind.asked == 1


def test_the_pipeline_is_described_with_the_documented_fields(database_url):
    with api(database_url) as client:
        info = client.get("/api/v1/pipeline/info").json()

    assert info == {
        "success": True,
        "data": {
            "pipeline_name": "hubspot_deals_extraction",
            "destination_type": "postgres",
            "working_dir": ".dlt",
            "dataset_name": "hubspot_deals_extraction",
            "is_active": True,
            "source_type": "hubspot_deals",
            "uses_api_service": True,
            "configuration_method": "config_file",
            "database_health": True,
            "supports_checkpoints": True,
            "error": None,
        },
    }


@pytest.mark.parametrize("status", [500, 503])
def test_a_service_without_its_database_is_unhealthy_with_the_chosen_status(status):
    with api(nowhere(), health_unhealthy_status=status) as client:
        answer = client.get("/api/v1/health")

    assert answer.status_code == status
    body = answer.json()
    assert (body["status"], body["success"]) == ("unhealthy", False)
    assert body["error"] == body["message"] == "Database connection failed"
    assert "hunter22" not in answer.text


def test_a_database_without_tables_is_unhealthy(database_url):
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("DROP SCHEMA hubspot_deals CASCADE")

    with api(database_url) as client:
        body = client.get("/api/v1/health").json()

    assert (body["status"], body["error"]) == ("unhealthy", "Database is not migrated")


def test_a_database_that_hangs_is_reported_within_two_seconds_and_found_again(database_url):
    proxy = FreezableProxy(database_url)
    with contextlib.closing(proxy), api(proxy.url) as client:
        assert client.get("/api/v1/health").status_code == 200
        proxy.freeze()

        began = time.monotonic()
        answers = [client.get("/api/v1/health") for _ in range(2)]
        seconds = (time.monotonic() - began) / 2

        assert [answer.status_code for answer in answers] == [503, 503]
        assert seconds < within(2)
        proxy.thaw()
        deadline = time.monotonic() + 10
        while client.get("/api/v1/health").status_code != 200:
            assert time.monotonic() < deadline, "the database was not found again"


def test_a_database_that_restarts_costs_no_request_an_error(database_url):
    with api(database_url) as client:
        assert client.get("/api/v1/scan/list").status_code == 200
        with psycopg.connect(database_url, autocommit=True) as database:
            database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'hubspot_deals_api'"
                " AND datname = current_database()"
            )

        assert client.get("/api/v1/scan/list").status_code == 200


def test_a_connection_that_ends_while_it_is_read_on_costs_no_error(database_url):
    settings = ApiSettings(database_url=SecretStr(database_url), encryption_keys=TEST_KEYS)
    ends = ["SELECT pg_terminate_backend(pg_backend_pid())", "SELECT 7"]

    async def ask(connection):
        return await (await connection.execute(ends.pop(0))).fetchone()

    async def read_while_it_ends():
        async with build_pool(settings) as pool:
            return await read(pool, ask)

    assert asyncio.run(read_while_it_ends()) == (7,)
    assert ends == []


def test_a_connection_has_the_options_of_its_url_beside_those_of_the_api(database_url):
    url = make_conninfo(
        database_url, options="-c search_path=elsewhere -c jit=on", client_encoding="LATIN1"
    )
    settings = ApiSettings(database_url=SecretStr(url), encryption_keys=TEST_KEYS)
    names = ("search_path", "statement_timeout", "jit", "client_encoding")

    async def ask():
        async with build_pool(settings) as pool, pool.connection() as connection:
            asked = [await connection.execute(f"SHOW {name}") for name in names]
            shown = [(await cursor.fetchone())[0] for cursor in asked]
            return shown, connection.prepared_max, connection.info.get_parameters()

    shown, prepared, parameters = asyncio.run(ask())

    assert (shown, prepared) == (["elsewhere", "30s", "off", "UTF8"], 32)
    assert parameters["tcp_user_timeout"] == "30000"


def test_a_page_is_found_by_its_index_also_by_a_plan_made_while_the_table_was_small(database_url):
    settings = ApiSettings(database_url=SecretStr(database_url), encryption_keys=TEST_KEYS)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO hubspot_deals_extraction.deals (scan_id, row_no, id, _dlt_load_id)"
            " SELECT 'scan-1', n, n::text, 'load' FROM generate_series(1, 3) n; ANALYZE"
        )

    async def explain():
        query = b"EXPLAIN (GENERIC_PLAN) " + _page_query("deals", ("id", "dealname"))
        async with build_pool(settings) as pool, pool.connection() as connection:
            return [line for (line,) in await (await connection.execute(query)).fetchall()]

    assert not [line for line in asyncio.run(explain()) if "Seq Scan" in line]


def test_a_pool_whose_connections_are_all_lent_refuses_and_recovers(database_url, monkeypatch):
    monkeypatch.setattr(database, "_POOL_SECONDS", 0.3)
    with (
        api(database_url, database_pool_size=1) as client,
        psycopg.connect(database_url) as other,
    ):
        other.execute("LOCK TABLE hubspot_deals.scan_counts IN ACCESS EXCLUSIVE MODE")
        holding = threading.Thread(target=client.get, args=("/api/v1/stats",))
        holding.start()
        wait_until_blocked(other)

        refused = client.get("/api/v1/scan/list")
        other.rollback()
        holding.join()

        assert (refused.status_code, refused.json()["error_code"]) == (500, "DATABASE_UNAVAILABLE")
        assert refused.headers["Retry-After"] == "5"
        assert client.get("/api/v1/scan/list").status_code == 200


def wait_until_blocked(connection):
    blocked = "SELECT FROM pg_locks WHERE NOT granted AND pid = ANY(%s)"
    pids = (
        "SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name = 'hubspot_deals_api'"
    )
    deadline = time.monotonic() + 10
    while not connection.execute(blocked, connection.execute(pids).fetchone()).fetchall():
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.01)
