"""Values that many deals share: a profile is one consistent set of all everyday properties.

A deal's own facts (id, dates, amount, name) are columns of the account; everything else comes
from one of a thousand profiles. So a page is joined from ready fragments instead of being
rendered value by value.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from hubspot_sandbox.catalog import Catalog, PropertySpec
from hubspot_sandbox.clock import iso_ms
from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.people import TEAMS, People
from hubspot_sandbox.pipelines import STAGES, Stage

Values = list[str | None]
PROFILES: Final = 1024
# Row value of a deal that a test created: nothing is set but what the test gave.
BLANK: Final = PROFILES
_DAY_MS: Final = 86_400_000
_TEXTS: Final = (
    None,
    None,
    "",
    "Follow up in Q3",
    'Asked for "net 60"',
    "Back\\slash \\n kept as typed",
    "first line\nsecond line\ttabbed",
    "Zahlung überfällig \u2013 bitte prüfen",
    "見積もり送付済み 🚀",
    "Привет; мир",
    "Robert'); DROP TABLE deals;--",
    "  padded  ",
)
_NUMBERS: Final = (
    None,
    None,
    "",
    "0",
    "12",
    "1500.00",
    "6.800000000000001",
    "-42.5",
    "1.2E-5",
    "3.0E7",
    "99999999999999.99",
)
_BROKEN_NUMBER: Final = "134376773869;137654776000"


class Profiles:
    """The values of every profile, built per property on first use."""

    def __init__(self, config: SandboxConfig, catalog: Catalog, people: People) -> None:
        self._config = config
        self._catalog = catalog
        self._owner_ids = people.owner_ids
        self._columns: dict[str, Values] = {}
        stages = tuple(STAGES.values())
        self.stages: list[Stage] = [stages[pick] for pick in self._picks("dealstage", len(stages))]
        self.is_won: npt.NDArray[np.bool_] = np.array(
            [stage.is_won for stage in self.stages] + [False], dtype=np.bool_
        )

    def column(self, name: str) -> Values:
        """One value per profile, and None for the blank one."""
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = [*self._build(name), None]
        return column

    def _picks(self, name: str, choices: int) -> list[int]:
        """A well mixed choice per profile: same seed and name, same picks."""
        key = (zlib.crc32(name.encode()) ^ (self._config.seed * 0x9E3779B1)) & 0xFFFFFFFF
        rng = np.random.default_rng(key)
        picks: list[int] = rng.integers(0, choices, PROFILES).tolist()
        return picks

    def _spread(self, name: str, choices: Sequence[str | None]) -> Values:
        return [choices[pick] for pick in self._picks(name, len(choices))]

    def _build(self, name: str) -> Values:
        from_stage = _STAGE_VALUES.get(name)
        if from_stage:
            return [from_stage(stage) for stage in self.stages]
        spec = self._catalog.find(name)
        if spec is None or name == "hs_merged_object_ids":
            return [None] * PROFILES
        values = self._spread(name, self._choices(spec))
        self._break_one(spec, values)
        return values

    def _choices(self, spec: PropertySpec) -> Sequence[str | None]:
        special = self._special(spec.name)
        if special:
            return special
        if spec.field_type == "checkbox":
            first, second, *_ = (value for _, value in spec.options)
            return (None, "", first, f"{first};{second}", ";".join(v for _, v in spec.options))
        if spec.options:
            return (None, *(value for _, value in spec.options))
        return self._of_type(spec.type)

    def _special(self, name: str) -> Sequence[str | None] | None:
        ids = self._owner_ids
        return {
            "hubspot_owner_id": (None, *ids),
            "hs_all_owner_ids": (None, *ids, ";".join(ids[:2])) if ids else (None,),
            "hubspot_team_id": (None, *(team for team, _ in TEAMS)),
            "hs_object_source": ("CRM_UI", "INTEGRATION", "IMPORT", "API"),
            "hs_created_by_user_id": (None, "9586500", "9586503"),
            "deal_currency_code": ("USD", "USD", "USD", "EUR", "SEK", "JPY"),
            "support_phone": (None, "+46 8 123 456 78", "(555) 010-0199", ""),
            "site_location": (None, '{"latitude":59.33,"longitude":18.06}'),
            "billing_payload": (None, '{"terms":"net 30","lines":[1,2,3]}', "{}"),
            "notes_html": (None, "<p>Hej &amp; <b>välkommen</b></p>", "<br/>"),
        }.get(name)

    def _of_type(self, kind: str) -> Sequence[str | None]:
        if kind == "number":
            return _NUMBERS
        if kind in {"date", "datetime"}:
            return self._moments(kind)
        return _TEXTS

    def _moments(self, kind: str) -> Sequence[str | None]:
        start, days = (
            self._config.start_ms,
            (self._config.end_ms - self._config.start_ms) // _DAY_MS,
        )
        values: Values = [None, None, None, ""]
        for step in range(60):
            day = start + (step * 37 % max(1, days)) * _DAY_MS
            text = iso_ms(day + step * 1_234_567)
            # HubSpot leaves the milliseconds out of some datetimes.
            short = iso_ms(day + 18_000_000)[:19] + "Z"
            values.append(text[:10] if kind == "date" else short if step % 5 == 0 else text)
        return values

    def _break_one(self, spec: PropertySpec, values: Values) -> None:
        """Put one value of the wrong kind into one profile in a thousand."""
        if self._config.clean_values:
            return
        [place] = self._picks(f"{spec.name}/broken", PROFILES)[:1]
        if spec.type == "number" and spec.is_custom:
            values[place] = _BROKEN_NUMBER
        elif spec.type in {"date", "datetime"} and spec.is_custom:
            values[place] = str(self._config.start_ms)


_STAGE_VALUES: Final[dict[str, Callable[[Stage], str | None]]] = {
    "dealstage": lambda stage: stage.id,
    "pipeline": lambda stage: stage.pipeline,
    "hs_is_closed": lambda stage: "true" if stage.is_closed else "false",
    "hs_is_closed_won": lambda stage: "true" if stage.is_won else "false",
    "hs_deal_stage_probability": lambda stage: stage.probability,
    "closed_won_reason": lambda stage: "Best offer" if stage.is_won else None,
}
