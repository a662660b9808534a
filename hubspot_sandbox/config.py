"""What one sandbox is told at start: size of the account, limits, latency, accepted tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Final

ALL_SCOPES: Final = frozenset(
    {
        "crm.objects.companies.read",
        "crm.objects.contacts.read",
        "crm.objects.deals.read",
        "crm.objects.line_items.read",
        "crm.objects.owners.read",
        "crm.objects.users.read",
        "crm.schemas.deals.read",
        "oauth",
        "settings.users.read",
        "settings.users.teams.read",
    }
)


@dataclass(frozen=True, slots=True)
class Tier:
    """The request budgets that come with a HubSpot subscription."""

    burst: int
    daily: int | None
    associations_burst: int
    is_oauth: bool = False


TIERS: Final[Mapping[str, Tier]] = MappingProxyType(
    {
        "free": Tier(burst=100, daily=250_000, associations_burst=100),
        # Doubtful: one HubSpot page says 625,000 a day, a changelog entry says 650,000.
        "pro": Tier(burst=190, daily=625_000, associations_burst=150),
        "enterprise": Tier(burst=190, daily=1_000_000, associations_burst=150),
        "addon": Tier(burst=250, daily=2_000_000, associations_burst=200),
        "oauth": Tier(burst=110, daily=None, associations_burst=100, is_oauth=True),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """Everything that decides the data and the manners of one sandbox."""

    deals: int = 1_000
    archived_share: float = 0.1
    seed: int = 7
    host: str = "127.0.0.1"
    port: int = 0
    latency_ms: tuple[float, float] = (150.0, 400.0)
    tier: str = "pro"
    limits: bool = True
    burst: int | None = None
    daily: int | None = None
    search_per_second: int = 5
    search_lag_seconds: float = 5.0
    properties: int = 0
    owners: int = 12
    tokens: Mapping[str, frozenset[str]] = field(default_factory=dict)
    portal_id: int = 48_291_034
    opaque_cursors: bool = False
    start_date: date = date(2023, 1, 1)
    end_date: date = date(2025, 12, 31)
    same_timestamp: int = 0
    clean_values: bool = False

    @property
    def budgets(self) -> Tier:
        """The tier's budgets, with the two overrides that make tests short."""
        tier = TIERS[self.tier]
        return Tier(
            burst=self.burst or tier.burst,
            daily=self.daily or tier.daily,
            associations_burst=self.burst or tier.associations_burst,
            is_oauth=tier.is_oauth,
        )

    @property
    def start_ms(self) -> int:
        """First createdate, in epoch milliseconds."""
        return _epoch_ms(self.start_date)

    @property
    def end_ms(self) -> int:
        """End of the last day of the account's history (exclusive), in epoch milliseconds."""
        return _epoch_ms(self.end_date) + 86_400_000


def _epoch_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
