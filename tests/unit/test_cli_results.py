"""How `hubspot-deals results` asks for some deals in another order."""

from typing import Any

import pytest

from tests.unit.test_cli import FakeService, run


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ACCESS_TOKEN", "API_URL", "DATA_DIR"):
        monkeypatch.delenv(f"HUBSPOT_DEALS_{name}", raising=False)


def test_filters_and_sorting_are_asked_for_on_every_page() -> None:
    service = FakeService(rows=501)
    chosen = ("--filter", "dealstage=won,lost", "--filter", "amount >=10", "--sort", "-amount")

    run(service, "results", "s1", "--table", "deals", "--all", *chosen, "--expand-labels")

    assert len(service.requests) == 2
    for request in service.requests:
        asked = request.url.params
        assert asked["filter[dealstage]"] == "won,lost"
        assert asked["filter[amount][gte]"] == "10"
        assert (asked["sort"], asked["expand"]) == ("-amount", "labels")


@pytest.mark.parametrize(
    "options",
    [
        ("--table", "deals", "--filter", "amount"),
        ("--table", "deals", "--filter", "=1"),
        ("--table", "deals", "--filter", "a=1", "--filter", "a=2"),
        ("--sort", "amount"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_before_anything_is_asked(
    options: tuple[str, ...],
) -> None:
    service = FakeService()

    assert run(service, "results", "s1", *options).exit_code == 2
    assert service.requests == []
