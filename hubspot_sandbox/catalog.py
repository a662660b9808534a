"""The account's deal properties: HubSpot's own, a few custom ones of every type, and extras."""

from dataclasses import dataclass
from typing import Any, Final

from hubspot_sandbox.pipelines import PIPELINES

DEFAULT_PROPERTIES: Final = (
    "amount",
    "closedate",
    "createdate",
    "dealname",
    "dealstage",
    "hs_lastmodifieddate",
    "hs_object_id",
    "pipeline",
)
ALWAYS_RETURNED: Final = ("createdate", "hs_lastmodifieddate", "hs_object_id")
_CALCULATED_FIELDS: Final = frozenset({"calculation_equation", "calculation_rollup"})


@dataclass(frozen=True, slots=True)
class PropertySpec:
    """The definition of one deal property."""

    name: str
    type: str
    field_type: str
    label: str
    is_custom: bool = False
    options: tuple[tuple[str, str], ...] = ()
    references_owner: bool = False

    def body(self, order: int) -> dict[str, Any]:
        """As the properties endpoint shows it; `archived` is left out, as HubSpot does."""
        made = "2024-02-11T08:15:30.412Z" if self.is_custom else "1970-01-01T00:00:00Z"
        calculated = self.field_type in _CALCULATED_FIELDS
        body: dict[str, Any] = {
            "updatedAt": "2024-09-05T17:14:04.747Z",
            "createdAt": made,
            "name": self.name,
            "label": self.label,
            "type": self.type,
            "fieldType": self.field_type,
            "description": f"{self.label} of the deal.",
            "groupName": "custom_deal_fields" if self.is_custom else "dealinformation",
            "options": [_option(*option, order=place) for place, option in enumerate(self.options)],
            "displayOrder": order if self.is_custom else -1,
            "calculated": calculated,
            "externalOptions": self.references_owner,
            "hasUniqueValue": False,
            "hidden": False,
            "hubspotDefined": not self.is_custom,
            "modificationMetadata": {
                "archivable": self.is_custom,
                "readOnlyDefinition": not self.is_custom,
                "readOnlyValue": calculated or self.name in ALWAYS_RETURNED,
            },
            "formField": False,
            "dataSensitivity": "non_sensitive",
        }
        if self.references_owner:
            body["referencedObjectType"] = "OWNER"
        if self.field_type == "calculation_equation":
            body["calculationFormula"] = "if is_known(amount) then amount else 0"
        return body


def _option(label: str, value: str, *, order: int) -> dict[str, Any]:
    return {
        "label": label,
        "value": value,
        "description": "",
        "displayOrder": order,
        "hidden": False,
    }


def _choices(*values: str) -> tuple[tuple[str, str], ...]:
    return tuple((value.replace("_", " ").capitalize(), value) for value in values)


_BOOLEAN: Final = (("True", "true"), ("False", "false"))
_OPTIONS: Final = {
    "pipeline": tuple((pipeline.label, pipeline.id) for pipeline in PIPELINES),
    "dealstage": tuple(
        (f"{stage.label} ({pipeline.label})", stage.id)
        for pipeline in PIPELINES
        for stage in pipeline.stages
    ),
    "dealtype": (("New Business", "newbusiness"), ("Existing Business", "existingbusiness")),
    "hs_priority": _choices("low", "medium", "high"),
    "hs_manual_forecast_category": _choices("OMIT", "PIPELINE", "BEST_CASE", "COMMIT", "CLOSED"),
    "deal_currency_code": tuple((code, code) for code in ("USD", "EUR", "SEK", "JPY")),
    "hs_analytics_source": _choices("ORGANIC_SEARCH", "PAID_SEARCH", "OFFLINE", "DIRECT_TRAFFIC"),
    "sales_regions": _choices("emea", "apac", "latam", "north_america"),
    "product_line": tuple((name, name) for name in ("Core", "Ünïcode & Söhne", "Add-On")),
}
# name:type:fieldType, one group a line. A datetime has fieldType `date`: only `type` tells.
_STANDARD: Final = """
amount:number:number amount_in_home_currency:number:calculation_equation closedate:datetime:date
createdate:datetime:date hs_createdate:datetime:date hs_lastmodifieddate:datetime:date
hs_object_id:number:number dealname:string:text dealstage:enumeration:radio
pipeline:enumeration:select dealtype:enumeration:radio description:string:textarea
hubspot_owner_id:enumeration:select hubspot_owner_assigneddate:datetime:date
hubspot_team_id:enumeration:select hs_all_owner_ids:enumeration:checkbox
hs_closed_amount:number:calculation_equation hs_closed_amount_in_home_currency:number:number
hs_is_closed:bool:booleancheckbox hs_is_closed_won:bool:booleancheckbox
hs_deal_stage_probability:number:number hs_priority:enumeration:select
hs_manual_forecast_category:enumeration:select hs_forecast_probability:number:number
deal_currency_code:enumeration:select closed_lost_reason:string:textarea
closed_won_reason:string:textarea days_to_close:number:calculation_equation hs_next_step:string:text
num_associated_contacts:number:calculation_rollup num_contacted_notes:number:number
num_notes:number:number notes_last_contacted:datetime:date notes_last_updated:datetime:date
notes_next_activity_date:datetime:date hs_acv:number:number hs_arr:number:number
hs_mrr:number:number hs_tcv:number:number hs_analytics_source:enumeration:select
hs_analytics_source_data_1:string:text hs_analytics_source_data_2:string:text
hs_created_by_user_id:number:number hs_object_source:string:text
hs_merged_object_ids:enumeration:checkbox hs_v2_date_entered_closedwon:datetime:date
"""
_CUSTOM: Final = """
contract_start_date:date:date contract_signed:bool:booleancheckbox renewal_at:datetime:date
seat_count:number:number gross_margin:number:number sales_regions:enumeration:checkbox
product_line:enumeration:select support_phone:phone_number:phonenumber
site_location:object_coordinates:text billing_payload:json:text notes_html:string:html
contract_file:string:file customer_reference:string:text health_score:number:calculation_score
"""
_EXTRA_KINDS: Final = (
    ("string", "text"),
    ("number", "number"),
    ("date", "date"),
    ("datetime", "date"),
    ("bool", "booleancheckbox"),
    ("enumeration", "select"),
    ("enumeration", "checkbox"),
    ("string", "textarea"),
)
_EXTRA_OPTIONS: Final = _choices("alpha", "beta", "gamma", "delta")


class Catalog:
    """All property definitions of the account, by name."""

    def __init__(self, extra: int) -> None:
        specs = [_spec(text, is_custom=False) for text in _STANDARD.split()]
        specs += [_spec(text, is_custom=True) for text in _CUSTOM.split()]
        specs += [_extra_spec(place) for place in range(extra)]
        self._specs = {spec.name: spec for spec in specs}
        self.bodies = [spec.body(order) for order, spec in enumerate(specs)]

    def find(self, name: str) -> PropertySpec | None:
        """The definition, or None."""
        return self._specs.get(name)

    def find_body(self, name: str) -> dict[str, Any] | None:
        """The definition as the API shows it, or None."""
        return next((body for body in self.bodies if body["name"] == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of definition."""
        return tuple(self._specs)

    def returned(self, requested: tuple[str, ...]) -> tuple[str, ...]:
        """What HubSpot answers to a request: known names and the constant three, sorted."""
        if not requested:
            return DEFAULT_PROPERTIES
        known = {name for name in requested if name in self._specs}
        return tuple(sorted(known.union(ALWAYS_RETURNED)))


def _spec(text: str, *, is_custom: bool) -> PropertySpec:
    name, kind, field_type = text.split(":")
    options = _OPTIONS.get(name, _BOOLEAN if kind == "bool" else ())
    label = name.removeprefix("hs_").replace("_", " ").capitalize()
    owner = name in {"hubspot_owner_id", "hs_all_owner_ids"}
    return PropertySpec(name, kind, field_type, label, is_custom, options, owner)


def _extra_spec(place: int) -> PropertySpec:
    kind, field_type = _EXTRA_KINDS[place % len(_EXTRA_KINDS)]
    options = _BOOLEAN if kind == "bool" else _EXTRA_OPTIONS if kind == "enumeration" else ()
    name = f"extra_{field_type}_{place:04d}"
    return PropertySpec(name, kind, field_type, f"Extra {place}", is_custom=True, options=options)
