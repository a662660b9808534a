"""Which limit a request draws on, for whom it counts, and what the settings of the edge take."""

import asyncio
from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from starlette.datastructures import MutableHeaders

from api.edge.limits import caller_of, limit_of
from api.edge.rate_limits import RateLimits
from api.edge.security import add_security_headers
from api.settings import ApiSettings

REQUIRED = {"database_url": "postgresql://", "encryption_keys": "k1:"}


@pytest.mark.parametrize("mount", ["", "/api/v1"])
@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", "/scan/start", "scans"),
        ("POST", "/scan/s-1/cancel", "scans"),
        ("POST", "/scan/cancel/s-1", "scans"),
        ("POST", "/scan/s-1/pause", "scans"),
        ("POST", "/scan/s-1/resume", "scans"),
        ("DELETE", "/scan/s-1/remove", "scans"),
        ("DELETE", "/scan/remove/s-1", "scans"),
        ("POST", "/scan/plan", "scans"),
        ("POST", "/auth/validate", "scans"),
        ("GET", "/scan/s-1/status", "results"),
        ("HEAD", "/scan/s-1/status", "results"),
        ("GET", "/scan/status/s-1", "results"),
        ("GET", "/scan/list", "results"),
        ("GET", "/results/s-1/result", "results"),
        ("GET", "/results/s-1/download/csv", "results"),
        ("GET", "/nowhere", "results"),
        ("POST", "/maintenance/cleanup", "maintenance"),
        ("POST", "/maintenance/detect-crashed", "maintenance"),
        ("GET", "/health", "health"),
        ("GET", "/health/detailed", "health"),
        ("GET", "/stats", "health"),
        ("GET", "/health/live", None),
        ("GET", "/health/ready", None),
        ("GET", "/metrics", None),
        ("GET", "/docs", None),
        ("OPTIONS", "/scan/start", None),
    ],
)
def test_each_request_draws_on_its_limit(mount, method, path, limit):
    assert limit_of(method, mount + path) == limit


@pytest.mark.parametrize(
    ("client", "caller"),
    [
        (("192.0.2.7", 1), "address:192.0.2.7"),
        (("::ffff:192.0.2.7", 1), "address:192.0.2.7"),
        (("2001:db8:1:2:3::4", 1), "address:2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::1", 1), "address:2001:db8:1:2::/64"),
        (("testclient", 1), "address:testclient"),
        (None, "address:"),
    ],
)
def test_a_caller_is_told_by_the_address(client, caller):
    assert caller_of({"client": client, "state": {}}) == caller
    assert caller_of({"client": client}) == caller


def test_a_caller_who_is_known_is_told_by_the_name_wherever_the_request_comes_from():
    state = {"actor": SimpleNamespace(name="key:1f2e")}
    assert caller_of({"client": ("192.0.2.7", 1), "state": state}) == "actor:key:1f2e"


@pytest.mark.parametrize("name", ["anonymous", "open"])
def test_callers_whom_nobody_knows_do_not_share_a_limit(name):
    state = {"actor": SimpleNamespace(name=name)}
    assert caller_of({"client": ("192.0.2.7", 1), "state": state}) == "address:192.0.2.7"


@pytest.mark.parametrize("text", ["", "100", "x/hour", "0/hour", "1/hour;2/minute", "-1/hour"])
def test_a_limit_that_is_none_is_refused_at_start(text):
    with pytest.raises(ValidationError, match="rate_limit_scans"):
        ApiSettings(**REQUIRED, rate_limit_scans=text)


@pytest.mark.parametrize("text", ["1/second", "5/2minutes", "100 per day"])
def test_a_limit_is_written_as_it_is_said(text):
    assert ApiSettings(**REQUIRED, rate_limit_scans=text).rate_limit_scans == text


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "https://*.example.com",
        "example.com",
        "https://a.example/path",
        "null",
        "https://a.example,*",
    ],
)
def test_origins_are_exact(text):
    with pytest.raises(ValidationError, match="cors_origins"):
        ApiSettings(**REQUIRED, cors_origins=text)


def test_a_client_is_told_to_use_https_only_where_it_does():
    plain, safe = MutableHeaders(), MutableHeaders()
    add_security_headers(plain.raw, "http")
    add_security_headers(safe.raw, "https")

    assert "strict-transport-security" not in plain
    assert safe["strict-transport-security"] == "max-age=31536000"


def test_without_a_limiter_a_request_passes():
    passed = []

    async def app(scope, receive, send):
        passed.append(scope)

    scope = {"type": "http", "method": "GET", "path": "/scan/list", "state": {}}
    asyncio.run(RateLimits(app)(scope, None, None))

    assert passed == [scope]
