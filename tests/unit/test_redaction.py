"""What is written anywhere carries no secret, whoever formats it."""

import base64
import io
import json
import logging
import subprocess
import sys
import threading
import time
from contextvars import copy_context

import dagster as dg
import orjson
import pytest
from dagster._utils.error import serializable_error_info_from_exc_info
from pydantic import SecretStr

from hubspot_deals import logs, redaction
from hubspot_deals.defs.failures import secrets_kept
from hubspot_deals.errors import LoadFailedError
from hubspot_deals.redaction import HIDDEN, redact, redact_json
from tests.pace import within

KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture(autouse=True)
def own_state(monkeypatch):
    """Gives back the process's record factory, hooks and known secrets."""
    factory = logging.getLogRecordFactory()
    monkeypatch.setattr(redaction, "_known", set())
    here = redaction._known_here.set(frozenset())
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    yield
    logging.setLogRecordFactory(factory)
    redaction._known_here.reset(here)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token pat-na1-CANARY00-1111 was refused", f"token {HIDDEN} was refused"),
        ("{'Authorization': 'Bearer CANARY.x_y-1'}", f"{{'Authorization': 'Bearer {HIDDEN}'}}"),
        ("authorization: basic Q0FOQVJZOng=", f"authorization: basic {HIDDEN}"),
        (f"key hsd_1f2e3d4c_{'CANARY-_' * 5}abc", f"key hsd_1f2e3d4c_{HIDDEN}"),
        ("GET /scan/hsd_1f2e3d4c_CANARY012/status", f"GET /scan/hsd_1f2e3d4c_{HIDDEN}/status"),
        ("whsec_Q0FOQVJZQ0FOQVJZ+/=", HIDDEN),
        ("eyJhbGciOi.eyJzdWIiOi.CANARY-_", HIDDEN),
        (f"k1:{KEY},k2:{KEY}", f"k1:{HIDDEN},k2:{HIDDEN}"),
        ("postgresql://u:CANARY@h:1/d", f"postgresql://u:{HIDDEN}@h:1/d"),
        ("postgresql+psycopg2://u:CA@NA/RY@h/d is", f"postgresql+psycopg2://u:{HIDDEN}@h/d is"),
        ("host=h password=CANARY dbname=d", f"host=h password={HIDDEN} dbname=d"),
        ("password='CAN ARY' user=u", f"password={HIDDEN} user=u"),
        ("?sslpassword=CANARY&x=1", f"?sslpassword={HIDDEN}&x=1"),
        ('{"accessToken": "CANARY", "x": 1}', f'{{"accessToken": {HIDDEN}, "x": 1}}'),
        ("access_token=CANARY", f"access_token={HIDDEN}"),
        ("client_secret: CANARY", f"client_secret: {HIDDEN}"),
    ],
)
def test_a_text_that_has_the_form_of_a_secret_is_taken_out(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "GET /api/v1/scan/pattern-of-2025/status 200",
        "http://127.0.0.1:5000/api and somebody@example.com",
        "properties hd_stage, hs_lastmodifieddate",
        "the password is wrong; the token was refused",
        "basic extraction with bearer tokens. It is so",
        "load 1764000000.1234567 of deals",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_an_ordinary_text_stays_as_it_is(text):
    assert redact(text) == text


@pytest.mark.parametrize("secret", ["CANARY of any form", 'with "quotes" and \\', "ä/ö?ü=CANARY"])
def test_a_known_secret_is_taken_out_in_every_spelling(secret):
    redaction.hide(SecretStr(secret))
    spelt = [secret, json.dumps({"a": secret}), redaction.quote(secret, safe="")]
    assert [text for text in map(redact, spelt) if HIDDEN not in text or "CANARY" in text] == []


def test_the_secrets_of_settings_are_known_afterwards():
    redaction.hide_settings(
        SecretStr("postgresql://u:CANARY%21password@h/d"), SecretStr("k1:short-CANARY,k2:other")
    )
    text = redact("CANARY!password, CANARY%21password, short-CANARY")
    assert text == f"{HIDDEN}, {HIDDEN}, {HIDDEN}"


def test_a_secret_of_one_request_is_hidden_in_it_and_costs_the_others_nothing():
    def request():
        redaction.hide_here(SecretStr("only-here-CANARY"))
        return redact("only-here-CANARY")

    assert copy_context().run(request) == HIDDEN
    assert redact("only-here-CANARY") == "only-here-CANARY"


def test_a_caller_cannot_break_another_secret_up():
    def request():
        redaction.hide_here(SecretStr("na1-CANARY"))
        return redact("pat-na1-CANARY00-1111")

    assert copy_context().run(request) == HIDDEN


def test_json_stays_json():
    document = json.dumps(
        {
            "a": ["postgresql://u:CANARY@h/d", 1, None],
            "b": 'password="CANARY\\"x',
            "c": {"d": "x@y"},
        }
    )
    clean = redact_json(document)
    assert json.loads(clean)["c"] == {"d": "x@y"}
    assert "CANARY" not in clean
    assert redact_json('{"a": 1}') == '{"a": 1}'


def log_to(formatter, name="somebody.elses.logger"):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger(name)
    logger.handlers = [handler]
    return logger, stream


def broken():
    return LoadFailedError("load", "it broke")


def fail_twice(second):
    try:
        int("postgresql://u:CANARY@h/d")
    except ValueError as error:
        raise second from error


FORMATTERS = [
    logging.Formatter("%(message)s"),
    logs.PlainFormatter(),
    logs.JsonFormatter(),
]


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_any_log_line_is_clean(formatter):
    redaction.install()
    logger, stream = log_to(formatter)
    logger.warning("trying %s with %d", "pat-na1-CANARY00-1111", 3)
    logger.warning("pat-na1-CANARY00-1111 %s %s", *["too few"])
    logger.warning("x", extra={"path": "/?access_token=CANARY"}, stack_info=False)
    try:
        fail_twice(KeyError("Bearer CANARY01"))
    except KeyError:
        logger.exception("failed")
    lines = stream.getvalue()
    assert "CANARY" not in lines
    assert lines.count(HIDDEN) >= 4
    assert "KeyError" in lines
    assert "ValueError" in lines


def test_what_a_caller_puts_into_a_path_neither_ends_a_line_nor_steers_a_terminal():
    logger, stream = log_to(logs.PlainFormatter())
    path = "/a\x1b[2J\nb\x85c\u2028d\x9be\u202ef\ud800 é"
    logger.warning("request", extra={"path": path})
    assert stream.getvalue().endswith(r"path=/a\x1b[2J\nb\x85c\u2028d\x9be\u202ef\ud800 é" + "\n")
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    "piece", ["-eyJ", "://:", "-eyJaaaaa.a", "bearer ", "password='", "api_key", "pat-aa-", "a"]
)
@pytest.mark.parametrize("end", ["", "@", "="])
def test_no_text_that_a_caller_can_send_takes_long(piece, end):
    """A query string of 60 KB took 16 seconds, in which the process served nobody."""
    text = end + piece * (60_000 // len(piece)) + end
    began = time.perf_counter()
    redact(text)
    assert time.perf_counter() - began < within(1)


def test_a_json_line_carries_the_ids_of_its_request_and_its_run():
    logger, stream = log_to(logs.JsonFormatter())
    asked = logs.request_id.set("req-1")
    ids = logs.run_ids.set((("scan_id", "scan-1"), ("run_id", "run-1")))
    logger.error("done", extra={"seconds": 1.5})
    logs.run_ids.reset(ids)
    logs.request_id.reset(asked)
    line = orjson.loads(stream.getvalue())
    assert (line["request_id"], line["scan_id"], line["run_id"], line["seconds"]) == (
        "req-1",
        "scan-1",
        "run-1",
        1.5,
    )


PROGRAM = """
import sys, threading, logging
from hubspot_deals import redaction
redaction.install(); redaction.install()
def fail():
    raise RuntimeError("access_token=CANARY")
thread = threading.Thread(target=fail, name="worker")
thread.start(); thread.join()
logging.getLogger("x").error("no handler: %s", "Bearer CANARY01")
fail()
"""


def test_the_last_words_of_a_process_and_of_its_threads_are_clean():
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 1
    assert "CANARY" not in ended.stderr + ended.stdout
    assert ended.stderr.count("RuntimeError: access_token=[hidden]") == 2
    assert "Exception in thread worker" in ended.stderr


def test_what_dagster_would_store_of_an_error_is_clean():
    with pytest.raises(dg.Failure) as raised, secrets_kept():
        fail_twice(broken())

    stored = serializable_error_info_from_exc_info(
        (raised.type, raised.value, raised.value.__traceback__)
    )
    assert "CANARY" not in str(stored)
    assert "it broke" in raised.value.description


def test_an_error_without_secrets_goes_through_as_it_is():
    with pytest.raises(LoadFailedError), secrets_kept():
        raise broken()
