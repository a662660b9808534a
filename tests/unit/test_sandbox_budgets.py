"""Budgets and clock with a time that only the test moves."""

from hubspot_sandbox.budgets import Budgets
from hubspot_sandbox.clock import Clock, iso_ms, parse_ms
from hubspot_sandbox.config import SandboxConfig


def _budgets(**options: object) -> tuple[Budgets, Clock]:
    clock = Clock(lambda: 1_700_000_000.25)
    config = SandboxConfig(**options)  # type: ignore[arg-type]
    return Budgets(config, clock), clock


def _accepted(budgets: Budgets, family: str, times: int, token: str = "a") -> int:
    return sum(budgets.spend(token, family)[1] is None for _ in range(times))


def test_the_burst_rolls_instead_of_starting_again_every_ten_seconds() -> None:
    budgets, clock = _budgets(tier="free")
    assert _accepted(budgets, "ordinary", 60) == 60
    clock.advance(6)
    assert _accepted(budgets, "ordinary", 60) == 40
    clock.advance(4.1)
    assert _accepted(budgets, "ordinary", 100) == 60


def test_each_token_has_a_burst_of_its_own() -> None:
    budgets, _ = _budgets(tier="free")
    assert _accepted(budgets, "ordinary", 150, "one") == 100
    assert _accepted(budgets, "ordinary", 150, "two") == 100


def test_the_search_second_is_shared_by_all_tokens_and_gives_no_credit() -> None:
    budgets, clock = _budgets()
    clock.advance(5)
    assert _accepted(budgets, "search", 4, "one") == 4
    assert _accepted(budgets, "search", 4, "two") == 1
    clock.advance(1)
    assert _accepted(budgets, "search", 9, "one") == 5


def test_searches_leave_the_burst_alone() -> None:
    budgets, _ = _budgets(tier="free")
    _accepted(budgets, "search", 6)
    headers, _ = budgets.spend("a", "ordinary")
    assert b"X-HubSpot-RateLimit-Remaining: 99\r\n" in headers


def test_association_reads_have_a_burst_of_their_own() -> None:
    budgets, _ = _budgets(tier="pro")
    assert _accepted(budgets, "associations", 200) == 150
    assert _accepted(budgets, "ordinary", 200) == 190


def test_rejected_requests_use_the_day() -> None:
    budgets, _ = _budgets(burst=2)
    _accepted(budgets, "ordinary", 5)
    _accepted(budgets, "search", 7)
    assert budgets.daily_used == 12


def test_the_day_ends_at_midnight() -> None:
    budgets, clock = _budgets(daily=3)
    assert _accepted(budgets, "ordinary", 5) == 3
    _, refusal = budgets.spend("a", "search")
    assert refusal is not None
    assert refusal.facts["policyName"] == "DAILY"
    clock.advance(clock.next_midnight() - clock.seconds())
    assert _accepted(budgets, "ordinary", 5) == 3


def test_without_limits_nothing_is_counted_or_announced() -> None:
    budgets, _ = _budgets(limits=False, burst=1)
    assert _accepted(budgets, "ordinary", 5) == 5
    assert budgets.spend("a", "ordinary")[0] == b""


def test_times_are_read_in_all_notations_to_the_millisecond() -> None:
    moment = 1_704_067_200_123
    assert parse_ms("1704067200123") == moment
    assert parse_ms("2024-01-01T00:00:00.123Z") == moment
    assert parse_ms("2024-01-01T01:00:00.123456+01:00") == moment
    assert parse_ms("2024-01-01") == moment - 123
    assert parse_ms("tomorrow") is None
    assert iso_ms(moment) == "2024-01-01T00:00:00.123Z"
