"""The account's deal pipelines and their stages."""

from dataclasses import dataclass
from typing import Any, Final

_EPOCH: Final = "1970-01-01T00:00:00Z"
_MADE: Final = "2023-03-14T09:26:53.589Z"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of one pipeline."""

    id: str
    label: str
    probability: str
    pipeline: str

    @property
    def is_closed(self) -> bool:
        """Won or lost."""
        return self.probability in {"0.0", "1.0"}

    @property
    def is_won(self) -> bool:
        """Won."""
        return self.probability == "1.0"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One pipeline."""

    id: str
    label: str
    stages: tuple[Stage, ...]

    def body(self, order: int) -> dict[str, Any]:
        """As the pipelines endpoint shows it."""
        made = _EPOCH if self.id == "default" else _MADE
        return {
            "label": self.label,
            "displayOrder": order,
            "id": self.id,
            "stages": [_stage_body(stage, place) for place, stage in enumerate(self.stages)],
            "createdAt": made,
            "updatedAt": _MADE,
            "archived": False,
        }


def _stage_body(stage: Stage, order: int) -> dict[str, Any]:
    made = _EPOCH if stage.pipeline == "default" else _MADE
    return {
        "label": stage.label,
        "displayOrder": order,
        # HubSpot prints these two as text, never as JSON booleans or numbers.
        "metadata": {
            "isClosed": "true" if stage.is_closed else "false",
            "probability": stage.probability,
        },
        "id": stage.id,
        "createdAt": made,
        "updatedAt": _MADE,
        "archived": False,
        "writePermissions": "CRM_PERMISSIONS_ENFORCEMENT",
    }


def _pipeline(name: str, label: str, *stages: tuple[str, str, str]) -> Pipeline:
    return Pipeline(name, label, tuple(Stage(*stage, pipeline=name) for stage in stages))


PIPELINES: Final = (
    _pipeline(
        "default",
        "Sales Pipeline",
        ("appointmentscheduled", "Appointment Scheduled", "0.2"),
        ("qualifiedtobuy", "Qualified To Buy", "0.4"),
        ("presentationscheduled", "Presentation Scheduled", "0.6"),
        ("decisionmakerboughtin", "Decision Maker Bought-In", "0.8"),
        ("contractsent", "Contract Sent", "0.9"),
        ("closedwon", "Closed Won", "1.0"),
        ("closedlost", "Closed Lost", "0.0"),
    ),
    _pipeline(
        "73519024",
        "Renewals (EMEA)",
        ("140262801", "Renewal due", "0.5"),
        ("140262802", "Angebot verschickt", "0.7"),
        ("140262803", "Renewed", "1.0"),
        ("140262804", "Churned", "0.0"),
    ),
    _pipeline(
        "91180377",
        "Partner",
        ("188404911", "Registered", "0.1"),
        ("188404912", "Accepted", "0.3"),
        ("188404913", "Paid", "1.0"),
        ("188404914", "Rejected", "0.0"),
    ),
)
STAGES: Final = {stage.id: stage for pipeline in PIPELINES for stage in pipeline.stages}
