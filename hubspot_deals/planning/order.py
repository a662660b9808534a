"""What the API asks a planning process, and what it hears from it, each as one line of JSON."""

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import SecretStr

from hubspot_deals.contract import ScanConfig


class Fault(StrEnum):
    """Why there is no plan."""

    TOKEN = "token"  # noqa: S105 - a word
    """HubSpot rejected the access token."""
    BUSY = "busy"
    """HubSpot's limits are used up, or it does not answer: later it may."""
    REFUSED = "refused"
    """HubSpot answers in a way that trying again does not change."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A token, and the scan that is to be planned with it; None to look at the token alone."""

    token: SecretStr
    config: ScanConfig | None = None

    def to_json(self) -> bytes:
        """Return the inquiry, token included, as the process reads it from its standard input."""
        config = self.config.to_json() if self.config else None
        return json.dumps({"token": self.token.get_secret_value(), "config": config}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Inquiry":
        """Read an inquiry."""
        values = json.loads(text)
        config = values["config"]
        return cls(SecretStr(values["token"]), ScanConfig.from_json(config) if config else None)


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of it: a document in the spelling of the REST API, or a fault with its reason.

    `free_at` (UTC) is when HubSpot may be asked again, where it said so.
    """

    document: dict[str, Any] | None = None
    fault: Fault | None = None
    reason: str = ""
    free_at: datetime | None = None

    def to_json(self) -> str:
        """Return the finding as the API reads it."""
        free_at = self.free_at.isoformat() if self.free_at else None
        return json.dumps([self.document, self.fault, self.reason, free_at])

    @classmethod
    def from_json(cls, text: bytes) -> "Finding":
        """Read a finding; raises ValueError for anything else."""
        document, fault, reason, free_at = json.loads(text)
        return cls(
            document,
            Fault(fault) if fault else None,
            reason,
            datetime.fromisoformat(free_at) if free_at else None,
        )
