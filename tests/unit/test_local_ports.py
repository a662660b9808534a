import socket

import pytest

from hubspot_deals.errors import ConfigurationError
from hubspot_deals.local.ports import choose_ports, free_ports, is_free, is_listening


def test_a_port_in_use_is_refused_with_the_option_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        assert is_listening(port)
        assert not is_free(port)
        with pytest.raises(ConfigurationError, match=f"Port {port} is in use.*--api-port"):
            choose_ports({"--api-port": port})


def test_free_ports_differ_and_are_free() -> None:
    ports = free_ports(5)

    assert len(set(ports)) == 5
    assert all(is_free(port) and not is_listening(port) for port in ports)


def test_zero_is_any_free_port() -> None:
    first, second = choose_ports({"--api-port": 0, "--dagster-port": 0})

    assert first != second
    assert min(first, second) > 0


def test_two_servers_cannot_share_a_port() -> None:
    port = free_ports(1)[0]

    with pytest.raises(ConfigurationError, match="--dagster-port"):
        choose_ports({"--api-port": port, "--dagster-port": port})
