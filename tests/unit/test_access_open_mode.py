"""Whom open mode lets in: callers on this machine, with nobody in between."""

import pytest
from pydantic import SecretStr

from api.access.open_mode import is_from_this_machine
from api.main import create_app
from api.settings import ApiSettings
from hubspot_deals.errors import ConfigurationError

LOCAL = ("127.0.0.1", 5000)


def scope(*, server=LOCAL, client=("127.0.0.1", 40_000), headers=()):
    return {
        "type": "http",
        "server": server,
        "client": client,
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"server": ("::1", 5000), "client": ("::1", 1)},
        {"server": ("127.0.0.53", 5000), "client": ("::ffff:127.0.0.1", 1)},
        {"headers": [("host", "localhost:5000")]},
        {"headers": [("host", "[::1]:5000"), ("origin", "http://localhost:5000")]},
        {"headers": [("host", "127.0.0.1"), ("sec-fetch-site", "same-origin")]},
    ],
)
def test_a_request_from_this_machine_is_let_in(known):
    assert is_from_this_machine(scope(**known))


@pytest.mark.parametrize(
    "known",
    [
        # Bound to an address that others reach.
        {"server": ("10.0.0.5", 5000), "client": ("10.0.0.5", 1)},
        {"server": ("0.0.0.0", 5000)},
        {"client": ("192.168.1.7", 1)},
        {"client": ("::ffff:192.168.1.7", 1)},
        # Nobody knows from where.
        {"server": None},
        {"client": None},
        {"server": ("/run/api.sock", None)},
        # A proxy in between.
        *(
            {"headers": [(name, "127.0.0.1")]}
            for name in (
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-real-ip",
                "forwarded",
                "via",
            )
        ),
        # A page of another site in a browser of this machine.
        {"headers": [("host", "rebound.example:5000")]},
        {"headers": [("host", "localhost.rebound.example")]},
        {"headers": [("host", "localhost"), ("host", "rebound.example")]},
        {"headers": [("host", "[::1")]},
        {"headers": [("host", "")]},
        {"headers": [("origin", "https://evil.example")]},
        {"headers": [("origin", "null")]},
        {"headers": [("sec-fetch-site", "cross-site")]},
    ],
)
def test_a_request_from_elsewhere_is_not(known):
    assert not is_from_this_machine(scope(**known))


def test_a_production_service_does_not_start_open():
    settings = ApiSettings(
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none"),
        encryption_keys=SecretStr("-"),
        environment="production",
        auth_mode="open",
    )
    with pytest.raises(ConfigurationError, match="AUTH_MODE=open is not for"):
        create_app(settings)


def test_callers_need_a_credential_unless_it_is_said_otherwise():
    assert ApiSettings.model_fields["auth_mode"].default == "required"
