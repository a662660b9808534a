import pytest

from hubspot_deals.errors import ConfigurationError
from hubspot_deals.local.ports import free_ports
from hubspot_deals.local.readiness import answers, check_hubspot_url, pipeline_is_loaded


@pytest.mark.parametrize("url", ["api.hubapi.com", "ftp://h", "http://", "http:///path"])
def test_an_ill_formed_hubspot_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="must look like"):
        check_hubspot_url(url)


def test_a_hubspot_url_that_nobody_answers_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Nothing answers"):
        check_hubspot_url(f"http://127.0.0.1:{free_ports(1)[0]}")


def test_nothing_is_ready_where_nothing_listens() -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"

    assert not answers(url)()
    assert not pipeline_is_loaded(url)()
