"""Health checks and scrapes answer within a second while any part, or all of them, hangs."""

import contextlib
import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import psutil
import psycopg
import pytest
from pydantic import HttpUrl, SecretStr

from api.main import create_app
from api.settings import ApiSettings
from api.testing import serve
from hubspot_deals.local.throwaway import throwaway_postgres
from hubspot_deals.warehouse import signs
from hubspot_deals.warehouse.migrate import migrate
from tests.conftest import TEST_KEYS
from tests.pace import within

PATHS = ("/api/v1/health", "/api/v1/health/ready", "/api/v1/health/live", "/health", "/metrics")
FIRST_SECONDS = 1.0


@contextlib.contextmanager
def silent_server():
    """Accepts every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        taken = []

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in taken:
                connection.close()


@pytest.fixture(scope="module")
def own_postgres():
    """A cluster that can be stopped without stopping anybody else's."""
    with throwaway_postgres() as server:
        migrate(SecretStr(server.url))
        yield server


@contextlib.contextmanager
def frozen(url):
    """Stop every process of a PostgreSQL, as a machine that is out of memory does."""
    with psycopg.connect(url) as connection:
        pid = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
        main = psutil.Process(pid).parent()
    family = [main, *main.children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def api(url, **more):
    values = {"hubspot_url": "http://127.0.0.1:9", "dagster_url": "http://127.0.0.1:9"} | more
    settings = ApiSettings(
        database_url=SecretStr(url),
        encryption_keys=TEST_KEYS,
        **{name: HttpUrl(value) for name, value in values.items()},
    )
    with serve(create_app(settings)) as client:
        yield client


def slowest(client, turns=3):
    """Ask for each path, also all at once, and return the answers and the longest time.

    By plain sockets: a client that prepares itself for TLS takes longer than the answers.
    """
    address = (client.base_url.host, client.base_url.port)
    took, answers = [], {}

    def ask(path):
        began = time.monotonic()
        connection = HTTPConnection(*address, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        answers[path] = (answer.status, answer.read().decode())
        took.append(time.monotonic() - began)
        connection.close()

    for path in PATHS:
        ask(path)
    with ThreadPoolExecutor(len(PATHS)) as threads:
        for _ in range(turns):
            list(threads.map(ask, PATHS))
    return answers, max(took)


def test_a_dagster_and_a_hubspot_that_never_answer_cost_less_than_a_second(own_postgres):
    with (
        silent_server() as dagster,
        silent_server() as hubspot,
        api(own_postgres.url, dagster_url=dagster, hubspot_url=hubspot) as client,
    ):
        answers, seconds = slowest(client)

    assert seconds < within(FIRST_SECONDS)
    assert {path: status for path, (status, _) in answers.items()} == dict.fromkeys(PATHS, 200)
    checks = json.loads(answers["/health"][1])["checks"]
    assert checks["database"] == "healthy"
    assert checks["dagster"] == "unhealthy: Dagster did not answer"
    assert checks["external_api"] == "degraded: high latency"
    assert checks["daemon"] == checks["code_location"] == "unknown: Dagster does not answer"
    assert 'hubspot_deals_part_up{part="dagster"} 0.0' in answers["/metrics"][1]


def test_a_postgresql_that_is_stopped_costs_less_than_a_second_and_is_found_again(own_postgres):
    with api(own_postgres.url) as client:
        assert client.get("/health/ready").status_code == 200
        client.get("/metrics")
        with frozen(own_postgres.url):
            answers, seconds = slowest(client)
        assert seconds < within(FIRST_SECONDS)
        codes = {path: status for path, (status, _) in answers.items()}
        assert codes == {
            "/api/v1/health": 503,
            "/api/v1/health/ready": 503,
            "/api/v1/health/live": 200,
            "/health": 503,
            "/metrics": 200,
        }
        assert json.loads(answers["/api/v1/health/live"][1]) == {"status": "alive"}
        assert json.loads(answers["/api/v1/health/ready"][1]) == {
            "status": "unready",
            "database": "unhealthy: Database did not answer",
        }
        assert 'hubspot_deals_part_up{part="database"} 0.0' in answers["/metrics"][1]
        deadline = time.monotonic() + 10
        while client.get("/health/ready").status_code != 200:
            assert time.monotonic() < deadline, "the database was not found again"
            time.sleep(0.05)


def test_a_database_that_accepts_and_never_answers_costs_less_than_a_second():
    with silent_server() as nobody:
        url = nobody.replace("http://", "postgresql://user:secret-word@") + "/none"
        with api(url) as client:
            answers, seconds = slowest(client)
    assert seconds < within(FIRST_SECONDS)
    assert answers["/api/v1/health/live"][0] == 200
    assert answers["/api/v1/health/ready"][0] == 503
    assert not [text for _, text in answers.values() if "secret-word" in text]


def test_parts_tell_of_themselves_through_the_database(own_postgres):
    url = SecretStr(own_postgres.url)
    signs.show(url, {signs.SENSORS: None, signs.RUN_HOST: "it does not answer"})
    with api(own_postgres.url) as client, psycopg.connect(own_postgres.url, autocommit=True) as sql:
        checks = client.get("/health").json()["checks"]
        assert checks["sensors"] == "healthy"
        assert checks["run_host"] == "unhealthy: it does not answer"
        sql.execute("UPDATE hubspot_deals.parts SET seen_at = now() - interval '90 seconds'")
        checks = client.get("/health").json()["checks"]
        assert checks["sensors"] == "unhealthy: last seen 90 seconds ago"
        assert checks["run_host"] == "unknown: not looked at lately"
