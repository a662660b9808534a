"""Which properties are read, shown and typed."""

import asyncio

import pytest

from hubspot_deals.contract import DateRange, ScanFilters
from hubspot_deals.errors import HubSpotProtocolError
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.properties import definition_row, fetch_definitions, select_properties

ENDPOINTS = Endpoints.of_version("v3")
DEFINITIONS = [
    {"name": "zz_custom", "type": "number"},
    {"name": "amount", "type": "number"},
    {"name": "dealname", "type": "string"},
    {"name": "closedate", "type": "datetime"},
    {"name": "createdate", "type": "datetime"},
    {"name": "hs_is_closed", "type": "bool"},
]
ALWAYS = ("hubspot_owner_id", "createdate", "hs_lastmodifieddate")


class Answering:
    def __init__(self, answer):
        self.answer = answer

    async def get(self, *_):
        return self.answer


SENT_UNASKED = {"amount", "dealname", "dealstage", "pipeline"} | {
    "closedate",
    "createdate",
    "hs_lastmodifieddate",
}


def test_without_a_wish_the_standard_properties_of_the_account_are_shown():
    selection = select_properties(ScanFilters(), DEFINITIONS)
    assert set(selection.shown) == SENT_UNASKED | {"hs_is_closed"}
    assert selection.unknown == ()


def test_without_definitions_what_hubspot_sends_unasked_is_shown_and_typed():
    selection = select_properties(ScanFilters(), [])
    assert set(selection.shown) == SENT_UNASKED <= selection.typed
    assert selection.unknown == ()


def test_a_star_shows_all_that_the_account_defines_in_its_order():
    selection = select_properties(ScanFilters(("*",)), DEFINITIONS)
    assert selection.shown == tuple(item["name"] for item in DEFINITIONS)
    assert set(ALWAYS) <= set(selection.fetched)


def test_named_properties_are_shown_as_named_and_unknown_ones_are_told():
    selection = select_properties(ScanFilters(("zz_custom", "gone", "dealname")), DEFINITIONS)
    assert selection.shown == ("zz_custom", "gone", "dealname")
    assert selection.unknown == ("gone",)
    assert selection.fetched == ("zz_custom", "gone", "dealname", *ALWAYS)


def test_without_definitions_no_named_property_is_accused():
    selection = select_properties(ScanFilters(("zz_custom", "dealname")), [])
    assert selection.shown == ("zz_custom", "dealname")
    assert selection.unknown == ()


def test_what_a_filter_needs_is_fetched_but_not_shown():
    filters = ScanFilters(("dealname",), date_range=DateRange(field="closedate"))
    selection = select_properties(filters, DEFINITIONS)
    assert selection.shown == ("dealname",)
    assert selection.fetched == ("dealname", *ALWAYS, "closedate")


@pytest.mark.parametrize(
    ("name", "kind", "typed"),
    [
        ("amount", "number", True),
        ("amount", "string", True),
        ("amount", "datetime", False),
        ("closedate", "date", True),
        ("closedate", "datetime", True),
        ("closedate", "string", False),
        ("hs_is_closed", "bool", True),
        ("hs_is_closed", "number", False),
        ("dealname", "json", False),
        ("dealname", None, True),
    ],
)
def test_a_core_column_is_filled_only_from_a_fitting_definition(name, kind, typed):
    selection = select_properties(ScanFilters(("dealname",)), [{"name": name, "type": kind}])
    assert (name in selection.typed) is typed


def test_no_name_is_fetched_twice():
    names = ("createdate", "hubspot_owner_id", "dealname")
    selection = select_properties(ScanFilters(names), DEFINITIONS)
    assert sorted(selection.fetched) == sorted({*names, *ALWAYS})


def test_definitions_are_read_or_refused_but_never_taken_as_none():
    found = asyncio.run(fetch_definitions(Answering({"results": DEFINITIONS}), ENDPOINTS))
    assert found == DEFINITIONS
    for answer in ({}, {"status": "error"}, {"results": None}, {"results": [{"type": "string"}]}):
        with pytest.raises(HubSpotProtocolError, match="HubSpot"):
            asyncio.run(fetch_definitions(Answering(answer), ENDPOINTS))


def test_a_definition_becomes_a_row_even_when_it_says_little():
    row = definition_row({"name": "x"})
    assert (row["name"], row["options"], row["type"]) == ("x", [], None)
