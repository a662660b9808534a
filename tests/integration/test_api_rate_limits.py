# ruff: noqa: F811 - a fixture is imported, then asked for
"""Requests are limited exactly, however many processes serve them."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from pydantic import HttpUrl, SecretStr

from api.dagster.testing import InMemoryDagsterGateway
from api.main import create_app
from api.settings import ApiSettings
from api.testing import serve
from tests.conftest import TEST_KEYS
from tests.integration.test_api_control import put_scan
from tests.integration.test_api_process import KEYS, start_api, wait_until_it_answers  # noqa: F401
from tests.pace import within

CLIENTS = 20
LIST = "/api/v1/scan/list?limit=1"
NAMES = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


@pytest.fixture
def build(database_url):
    """Serves the API in this process, with these settings."""
    with ExitStack() as stack:

        def build(**settings):
            chosen = ApiSettings(
                **{"database_url": SecretStr(database_url)} | settings,
                encryption_keys=TEST_KEYS,
                hubspot_url=HttpUrl("http://127.0.0.1:9"),
            )
            app = create_app(chosen, gateway=InMemoryDagsterGateway())
            return stack.enter_context(serve(app))

        yield build


def rates(answer):
    return tuple(int(answer.headers[name]) for name in NAMES)


def test_every_limited_answer_says_where_the_caller_stands(build):
    client = build(rate_limit_results="3/hour")
    before = time.time()

    answers = [client.get(path) for path in (LIST, "/api/v1/scan/none/status", "/nowhere", LIST)]

    assert [answer.status_code for answer in answers] == [200, 404, 404, 429]
    assert [rates(answer)[:2] for answer in answers] == [(3, 2), (3, 1), (3, 0), (3, 0)]
    resets = {rates(answer)[2] for answer in answers}
    assert len(resets) == 1
    assert before + 3_599 <= resets.pop() <= time.time() + 3_602


def test_one_too_many_is_answered_as_documented(build):
    client = build(rate_limit_results="1/hour")
    client.get(LIST)

    answer = client.get(LIST)

    body = answer.json()
    seconds = int(answer.headers["Retry-After"])
    assert 3_590 <= seconds <= 3_600
    assert body["success"] is False
    assert body["message"] == f"Rate limit exceeded. Please retry after {seconds} seconds."
    assert body["error"] == "Rate limit exceeded"
    assert body["retry_after"] == seconds
    assert body["error_code"] == "RATE_LIMIT_EXCEEDED"
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_one_too_many_is_told_as_a_problem_to_who_asks_for_it(build):
    client = build(rate_limit_results="1/hour")
    client.get(LIST)

    answer = client.get(LIST, headers={"Accept": "application/problem+json"})

    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["title"], body["type"]) == (
        429,
        "Too Many Requests",
        "about:blank",
    )


def test_limits_do_not_draw_on_one_another(build):
    client = build(
        rate_limit_scans="1/hour",
        rate_limit_results="2/hour",
        rate_limit_maintenance="3/hour",
        rate_limit_health="4/hour",
    )
    asked = [
        ("POST", "/api/v1/scan/none/cancel"),
        ("GET", LIST),
        ("POST", "/api/v1/maintenance/cleanup"),
        ("GET", "/api/v1/health"),
    ]

    seen = [[client.request(*one).status_code for _ in range(5)] for one in asked]

    assert [codes.index(429) for codes in seen] == [1, 2, 3, 4]


def test_what_is_refused_has_not_been_done(build, database):
    client = build(rate_limit_scans="1/hour")
    client.post("/api/v1/scan/none/cancel")
    body = {
        "config": {
            "scanId": "scan-1",
            "organizationId": "org-1",
            "type": ["user"],
            "auth": {"accessToken": "pat-na1-0123456789"},
        }
    }

    assert client.post("/api/v1/scan/start", json=body).status_code == 429

    assert database.execute("SELECT count(*) FROM hubspot_deals.scans").fetchone() == (0,)


def test_what_is_sent_in_pieces_is_refused_as_a_whole(build, database):
    put_scan(database, "completed")
    one, other = build(rate_limit_results="2/hour"), build(rate_limit_results="2/hour")
    path = "/api/v1/results/is-completed/download/csv?tableName=deals"
    assert one.get(path).status_code == 200
    assert one.get(LIST).status_code == 200

    # This process does not know yet that the window is used up.
    answers = [other.get(path), other.get(path)]

    assert [answer.status_code for answer in answers] == [429, 429]
    assert [rates(answer)[1] for answer in answers] == [0, 0]


def test_a_window_ends_and_the_next_one_begins(build):
    client = build(rate_limit_results="2/second")
    codes = []
    deadline = time.monotonic() + 20
    while codes.count(429) < 3:
        assert time.monotonic() < deadline
        answer = client.get(LIST)
        codes.append(answer.status_code)
        if answer.status_code == 429:
            time.sleep(int(answer.headers["Retry-After"]))
    assert codes == [200, 200, 429] * 3


def test_a_shorter_window_in_the_settings_counts_at_once(build):
    assert build(rate_limit_results="1/day").get(LIST).status_code == 200

    answer = build(rate_limit_results="1/minute").get(LIST)

    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) <= 60


def test_windows_that_are_over_are_forgotten(build, database, monkeypatch):
    database.execute(
        "INSERT INTO hubspot_deals.rate_limits VALUES ('old', 5, now() - interval '1 s')"
    )
    monkeypatch.setattr("api.edge.counter._FORGET_SECONDS", 0)

    build().get(LIST)

    keys = database.execute("SELECT key FROM hubspot_deals.rate_limits").fetchall()
    assert keys == [("results/address:127.0.0.1",)]


def test_limits_that_are_off_say_nothing(build):
    answer = build(rate_limits="off", rate_limit_results="1/hour").get(LIST)

    assert not set(NAMES) & set(answer.headers)


def test_while_postgresql_is_away_nothing_is_limited_and_health_answers_at_once(build, caplog):
    client = build(
        database_url=SecretStr("postgresql://127.0.0.1:1/none"), rate_limit_health="1/hour"
    )
    for _ in range(3):
        began = time.monotonic()
        answer = client.get("/health/nowhere")
        assert answer.status_code == 404
        assert time.monotonic() - began < within(0.9)
    deadline = time.monotonic() + 10
    while "Rate limits are not applied" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start_two(start_api, database_url, **settings):
    urls = []
    for _ in range(2):
        process, url, log = start_api(
            database_url=database_url,
            encryption_keys=KEYS,
            dagster_url="http://127.0.0.1:1",
            **settings,
        )
        wait_until_it_answers(process, url, log)
        urls.append(url)
    return urls


@pytest.mark.parametrize(
    ("method", "path", "setting", "most"),
    [
        ("GET", LIST, "rate_limit_results", 1_000),
        ("POST", "/api/v1/scan/none/cancel", "rate_limit_scans", 100),
    ],
)
def test_of_20_clients_on_2_processes_exactly_the_limit_is_served(
    start_api, database_url, method, path, setting, most
):
    urls = start_two(start_api, database_url, **{setting: f"{most}/hour"})
    share = most // CLIENTS + 5

    def ask(number):
        with httpx.Client(base_url=urls[number % 2], trust_env=False, timeout=30) as client:
            return [client.request(method, path) for _ in range(share)]

    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = [answer for answers in clients.map(ask, range(CLIENTS)) for answer in answers]

    codes = Counter(answer.status_code for answer in answers)
    served = [answer for answer in answers if answer.status_code != 429]
    assert codes[429] == CLIENTS * share - most
    assert len(served) == most
    assert sorted(rates(answer)[1] for answer in served) == list(range(most))
    assert len({rates(answer)[2] for answer in answers}) == 1


def test_the_documented_client_that_polls_for_an_hour_is_never_refused(
    start_api, database_url, database
):
    """Every 10 s for an hour: 360 requests, and those around them, with the default limits."""
    urls = start_two(start_api, database_url)
    with httpx.Client(trust_env=False, timeout=30) as client:
        body = {
            "config": {
                "scanId": "scan-1",
                "organizationId": "org-1",
                "type": ["user"],
                "auth": {"accessToken": "pat-na1-0123456789"},
            }
        }
        codes = [client.post(f"{urls[0]}/api/v1/scan/start", json=body).status_code]
        for turn in range(360):
            # An hour passes in steps of ten seconds: the window moves towards its end.
            database.execute(
                "UPDATE hubspot_deals.rate_limits SET resets_at = resets_at - interval '10 s'"
            )
            codes.append(client.get(f"{urls[turn % 2]}/api/v1/scan/scan-1/status").status_code)
        tables = f"{urls[0]}/api/v1/results/scan-1/tables"
        codes += [client.get(tables).status_code for _ in range(100)]

    assert codes[0] == 202
    assert set(codes[1:361]) == {200}
    assert 429 not in codes
