"""With what callers say who they are, over HTTP on a real PostgreSQL."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import jwt
from pydantic import SecretStr

from api.access import credentials
from api.access.credentials import KEY_SECONDS
from api.main import create_app
from api.testing import serve
from hubspot_deals.redaction import HIDDEN, redact
from tests.integration.access_cases import add_key, bearer, told
from tests.pace import within
from tests.unit import test_access_tokens as tokens


def test_a_token_and_a_key_are_taken_in_each_documented_place(api_settings, gateway, database):
    secret = "r8Yw2-Zq5LxN0vKp7TfHs3JdB6mGcE1uA9oRiQ4"
    settings = api_settings.model_copy(
        update={
            "auth_mode": "required",
            "jwt_secret": SecretStr(secret),
            "jwt_issuer": "issuer",
            "jwt_audience": "deals",
        }
    )
    claims = {"iss": "issuer", "aud": "deals", "sub": "me", "exp": time.time() + 60}
    claims |= {"organizations": ["org-1"], "level": "read"}
    token, forged = (jwt.encode(claims, key, "HS256") for key in (secret, secret[::-1]))
    key, _ = add_key(database, organizations=["org-1"], level="read")

    def status(*headers):
        return client.get("/api/v1/scan/list", headers=headers).status_code

    with serve(create_app(settings, gateway=gateway)) as client:
        for good in (f"Bearer {token}", f"bearer  {token}", f"Bearer {key}"):
            assert status(("Authorization", good)) == 200
        assert status(("X-API-Key", key)) == 200
        for bad in (f"Bearer {forged}", f"Basic {key}", key, "Bearer", "Bearer " + "A" * 20_000):
            assert status(("Authorization", bad)) == 401
        assert status(("X-API-Key", key), ("Authorization", f"Bearer {key}")) == 401
        assert status(("X-API-Key", key), ("X-API-Key", key)) == 401
        assert redact(f"what signs is {secret}") == f"what signs is {HIDDEN}"


def test_a_key_that_is_revoked_or_runs_out_is_refused_after_a_moment(service, database):
    revoked, key_id = add_key(database, organizations=["org-1"])
    short, _ = add_key(database, organizations=["org-1"], expires="1.5 seconds")
    for key in (revoked, short):
        assert service.get("/scan/list", headers=bearer(key)).status_code == 200
    used = database.execute("SELECT count(last_used_at) FROM hubspot_deals.api_keys").fetchone()
    assert used == (2,)
    database.execute("UPDATE hubspot_deals.api_keys SET last_used_at = now() - interval '50 s'")
    database.execute(
        "UPDATE hubspot_deals.api_keys SET revoked_at = now() WHERE key_id = %s", (key_id,)
    )

    began = time.monotonic()
    for key in (short, revoked):
        while service.get("/scan/list", headers=bearer(key)).status_code != 401:
            assert time.monotonic() < began + KEY_SECONDS + 2
            time.sleep(0.05)
    # It was looked up again since, and written at most once a minute.
    fresh = (
        "SELECT count(*) FROM hubspot_deals.api_keys WHERE last_used_at > now() - interval '45 s'"
    )
    assert database.execute(fresh).fetchone() == (0,)


def test_keys_that_somebody_made_up_take_no_connection_from_callers(service, database, monkeypatch):
    """Each is looked up, before anything is limited: a flood of them would hold the whole pool."""
    key, _ = add_key(database, organizations=None, level="read")
    assert service.get("/scan/list", headers=bearer(key)).status_code == 200
    find = credentials.find_key

    async def find_slowly(connection, *parts):
        if (found := await find(connection, *parts)) is None:
            await asyncio.sleep(0.3)
        return found

    monkeypatch.setattr(credentials, "find_key", find_slowly)

    def ask(number):
        return service.get("/scan/list", headers=bearer(f"hsd_{number:08x}_{'x' * 43}")).status_code

    with ThreadPoolExecutor(30) as flood:
        refused = [flood.submit(ask, number) for number in range(30)]
        time.sleep(0.2)
        began = time.monotonic()
        answer = service.get("/scan/list", headers=bearer(key))
        took = time.monotonic() - began
        statuses = {one.result() for one in refused}

    assert (answer.status_code, took < within(1)) == (200, True), took
    # Who waited for too long is told to come again.
    assert statuses <= {401, 500}
    assert 401 in statuses


def test_open_mode_says_to_a_caller_behind_a_proxy_what_to_do(client):
    answer = client.get("/api/v1/scan/list", headers={"X-Forwarded-For": "203.0.113.7"})

    assert (answer.status_code, answer.json()["error_code"]) == (403, "FORBIDDEN")
    assert "HUBSPOT_DEALS_AUTH_MODE=required" in answer.json()["message"]
    assert client.get("/api/v1/scan/list").status_code == 200
    assert client.get("/health", headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 200


def test_health_is_told_while_nobody_can_look_keys_up(api_settings, gateway):
    settings = api_settings.model_copy(
        update={
            "auth_mode": "required",
            "database_url": SecretStr("postgresql://nobody@127.0.0.1:1/none"),
        }
    )
    key = "hsd_00000001_" + "0" * 43
    with serve(create_app(settings, gateway=gateway)) as client:
        began = time.monotonic()
        assert client.get("/health", headers=bearer(key)).status_code == 503
        assert time.monotonic() < began + 2.5
        answer = client.get("/scan/list", headers=bearer(key))
        assert (answer.status_code, answer.json()["code"]) == (500, "DATABASE_UNAVAILABLE")


def test_forged_tokens_are_refused_over_http_in_one_and_the_same_way(api_settings, gateway):
    settings = api_settings.model_copy(
        update={
            "auth_mode": "required",
            "jwt_secret": SecretStr(tokens.SECRET),
            "jwt_issuer": tokens.ISSUER,
            "jwt_audience": tokens.AUDIENCE,
        }
    )
    # What a header can hold at all.
    forged = [text for text in tokens.FORGED.values() if text.isascii() and 0 < len(text) < 60_000]
    with serve(create_app(settings, gateway=gateway)) as client:
        answers = [client.get("/scan/list", headers=bearer(token)) for token in forged]
        good = client.get("/scan/list", headers=bearer(tokens.shared()))

    assert len(forged) >= 50
    assert good.status_code == 200
    assert {answer.status_code for answer in answers} == {401}
    assert len({told(answer, "-")[2] for answer in answers}) == 1
