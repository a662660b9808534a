"""What a start request may hold, and how its faults are told."""

import copy
from datetime import date

import pytest
from pydantic import ValidationError

from api.errors import nest_faults
from api.scans.fields import MOST_PROPERTIES
from api.scans.schemas import ScanCreate
from hubspot_deals.contract import DateRange

VALID = {
    "config": {
        "scanId": "scan-1",
        "organizationId": "org-1",
        "type": ["user"],
        "auth": {"accessToken": "pat-na1-xxxxxxxx"},
        "filters": {
            "properties": ["dealname", "amount"],
            "includeArchived": True,
            "dateRange": {"startDate": "2024-01-01", "endDate": "2024-12-31"},
        },
    }
}
DATES = ("config", "filters", "dateRange")


def changed(path, value):
    body = copy.deepcopy(VALID)
    node = body
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return body


def without(*path):
    body = copy.deepcopy(VALID)
    node = body
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]
    return body


def faults_of(body):
    try:
        ScanCreate.model_validate(body)
    except ValidationError as error:
        return nest_faults([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()])
    return {}


def at(tree, path):
    for part in path:
        tree = tree[part]
    return tree


def test_the_documented_request_becomes_a_configuration_without_credential():
    config = ScanCreate.model_validate(VALID).to_config()

    assert config.to_json() == {
        "scanId": "scan-1",
        "organizationId": "org-1",
        "type": ["user"],
        "filters": {
            "properties": ["dealname", "amount"],
            "includeArchived": True,
            "dateRange": {
                "startDate": "2024-01-01",
                "endDate": "2024-12-31",
                "field": "createdate",
            },
        },
    }


def test_every_missing_field_is_named_at_once():
    required = {
        "scanId": ["Scan ID is required"],
        "organizationId": ["Organization ID is required"],
        "type": ["Type is required"],
        "auth": {"accessToken": ["Access token is required"]},
    }

    assert faults_of({}) == {"config": required}
    assert faults_of({"config": {}}) == {"config": required}
    assert faults_of({"config": {"auth": {}}}) == {"config": required}


def test_faults_of_every_level_are_collected_together():
    body = changed(("config", "scanId"), "bad id")
    body["config"]["auth"]["accessToken"] = "short"
    body["config"]["filters"]["properties"] = ["dealname", "Deal Name", 7]
    body["config"]["filters"]["dateRange"]["endDate"] = "2023-02-29"

    faults = faults_of(body)["config"]

    assert set(faults) == {"scanId", "auth", "filters"}
    assert set(faults["filters"]["properties"]) == {"1", "2"}
    assert faults["filters"]["properties"]["2"] == ["Properties entry must be a string"]
    assert faults["filters"]["dateRange"]["endDate"] == ["Date does not exist in the calendar"]


@pytest.mark.parametrize(
    "scan_id",
    ["", "a b", "scan-1\n", "s" * 256, "scan٣", "scán", "a/b", "a.b", "\x00", 7, None, ["a"], True],
)
def test_a_scan_id_that_cannot_be_is_named(scan_id):
    assert at(faults_of(changed(("config", "scanId"), scan_id)), ("config", "scanId"))


@pytest.mark.parametrize("scan_id", ["a", "A-b_9", "-", "s" * 255, "list"])
def test_a_scan_id_of_the_documented_form_is_taken(scan_id):
    assert faults_of(changed(("config", "scanId"), scan_id)) == {}


@pytest.mark.parametrize(
    "organization", ["", " ", "o" * 256, "a\nb", "a\x00b", "a\x7fb", "a\u2028b", 7, None, {}]
)
def test_an_organization_that_cannot_be_is_named(organization):
    body = changed(("config", "organizationId"), organization)

    assert at(faults_of(body), ("config", "organizationId"))


@pytest.mark.parametrize("organization", ["o", "o" * 255, "Ærø & sønner", "日本 1"])
def test_an_organization_may_have_any_name(organization):
    assert faults_of(changed(("config", "organizationId"), organization)) == {}


@pytest.mark.parametrize(
    "scan_type",
    ["user", [], ["user", "deals"], ["user", "user"], ["User"], None, {}, 1, [["user"]]],
)
def test_a_type_other_than_user_is_named(scan_type):
    faults = faults_of(changed(("config", "type"), scan_type))

    assert faults == {"config": {"type": ['Type must be ["user"] or ["deals"]']}}


@pytest.mark.parametrize(
    "token",
    ["", "123456789", "x" * 2049, "with a space", "line\nbreak-xx", "émilie-émilie", 1, None, []],
)
def test_a_token_that_cannot_be_a_header_is_named_without_being_echoed(token):
    faults = faults_of(changed(("config", "auth", "accessToken"), token))

    (text,) = at(faults, ("config", "auth", "accessToken"))
    assert text.startswith("Access token must")
    assert not token or str(token) not in text


@pytest.mark.parametrize("token", ["1234567890", "x" * 2048, "!~" * 5])
def test_a_token_of_ten_printable_characters_is_taken(token):
    assert faults_of(changed(("config", "auth", "accessToken"), token)) == {}


@pytest.mark.parametrize("name", ["tennantUrl", "tenantUrl"])
def test_a_tenant_url_is_taken_in_both_spellings(name):
    assert faults_of(changed(("config", "auth", name), "https://app.hubspot.com")) == {}
    assert faults_of(changed(("config", "auth", name), None)) == {}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hubspot.com",
        "ftp://a.b",
        "file:///etc/passwd",
        "https://",
        "http://[",
        "http://a b",
        1,
        "http://a:99999",
        "https://a\n",
        "https://" + "a" * 2048,
    ],
)
def test_a_tenant_url_that_is_none_is_named(url):
    faults = faults_of(changed(("config", "auth", "tennantUrl"), url))

    assert at(faults, ("config", "auth", "tennantUrl"))


@pytest.mark.parametrize(
    "name",
    ["", "Deal", "deal name", "deal-name", "amount;", "dealname\n", "x" * 101, "näme", "a,b"],
)
def test_a_property_name_that_cannot_be_is_named_at_its_index(name):
    faults = faults_of(changed(("config", "filters", "properties"), ["amount", name]))

    assert list(at(faults, ("config", "filters", "properties"))) == ["1"]


@pytest.mark.parametrize(
    "properties", ["dealname", {}, 7, ["*", "amount"], ["a"] * (MOST_PROPERTIES + 1)]
)
def test_properties_that_are_no_usable_list_are_named(properties):
    faults = faults_of(changed(("config", "filters", "properties"), properties))

    assert isinstance(at(faults, ("config", "filters", "properties")), list)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["amount", "dealname", "amount"], ("amount", "dealname")),
        (["*"], ("*",)),
        ([], None),
        (None, None),
    ],
)
def test_repeated_properties_count_once_and_none_means_the_standard_ones(given, kept):
    body = changed(("config", "filters", "properties"), given)

    assert ScanCreate.model_validate(body).to_config().filters.properties == kept


@pytest.mark.parametrize("value", ["true", 1, 0, "yes", []])
def test_include_archived_is_nothing_but_true_or_false(value):
    faults = faults_of(changed(("config", "filters", "includeArchived"), value))

    assert at(faults, ("config", "filters", "includeArchived")) == [
        "Include archived must be true or false"
    ]


@pytest.mark.parametrize(
    "day",
    [
        "2024-1-1",
        "01-01-2024",
        "2024-13-01",
        "2023-02-29",
        "2024-01-01T00:00:00Z",
        "20240101",
        "",
        "2024-01-01\n",
        "٢٠٢٤-01-01",
        "1970-01-01",
        "9999-12-31",
        "0000-01-01",
        20240101,
        1.5,
        [],
    ],
)
@pytest.mark.parametrize("side", ["startDate", "endDate"])
def test_a_day_that_cannot_be_is_named_at_its_side(side, day):
    faults = faults_of(changed((*DATES, side), day))

    assert list(at(faults, DATES)) == [side]


def test_reversed_dates_are_named_at_the_end():
    faults = faults_of(changed((*DATES, "startDate"), "2025-01-01"))

    assert at(faults, DATES) == {"endDate": ["End date must not be before the start date"]}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, None),
        (None, None),
        ({"field": "closedate"}, None),
        ({"startDate": "2024-02-29"}, DateRange(start=date(2024, 2, 29))),
        ({"endDate": "1970-01-02"}, DateRange(end=date(1970, 1, 2))),
        (
            {"startDate": "2024-01-01", "endDate": "2024-01-01", "field": "hs_lastmodifieddate"},
            DateRange(date(2024, 1, 1), date(2024, 1, 1), "hs_lastmodifieddate"),
        ),
    ],
)
def test_a_range_may_be_open_on_either_side(given, kept):
    body = changed(DATES, given)

    assert ScanCreate.model_validate(body).to_config().filters.date_range == kept


def test_the_last_day_still_has_an_end():
    body = changed(DATES, {"endDate": "9999-12-30"})

    span = ScanCreate.model_validate(body).to_config().filters.date_range
    assert span.last_millisecond > 0


@pytest.mark.parametrize("field", ["dealname", "", None, 1, ["createdate"]])
def test_a_date_field_that_is_not_offered_is_named(field):
    assert at(faults_of(changed((*DATES, "field"), field)), (*DATES, "field"))


@pytest.mark.parametrize(
    "path", [("config", "x"), ("config", "filters", "property"), (*DATES, "startdate")]
)
def test_a_misspelt_field_is_refused_since_it_would_widen_the_scan(path):
    assert at(faults_of(changed(path, "2024-01-01")), path) == ["Unknown field; check its spelling"]


@pytest.mark.parametrize("path", [("x",), ("config", "auth", "refreshToken")])
def test_fields_that_change_nothing_are_ignored(path):
    assert faults_of(changed(path, "anything")) == {}


@pytest.mark.parametrize("value", [[], "text", 7, True])
@pytest.mark.parametrize(
    "path",
    [("config",), ("config", "auth"), ("config", "filters"), DATES],
)
def test_something_else_than_an_object_is_named_at_its_path(path, value):
    (text,) = at(faults_of(changed(path, value)), path)

    assert text.endswith("must be an object")


def test_a_config_that_is_null_is_named():
    assert at(faults_of({"config": None}), ("config",)) == ["Config must be an object"]


def test_filters_may_be_absent_or_null():
    assert faults_of(without("config", "filters")) == {}
    assert faults_of(changed(("config", "filters"), None)) == {}


def test_snake_case_spellings_are_taken_too():
    body = {
        "config": {
            "scan_id": "scan-1",
            "organization_id": "org-1",
            "type": ["user"],
            "auth": {"access_token": "pat-na1-xxxxxxxx", "tenant_url": "https://app.hubspot.com"},
            "filters": {
                "include_archived": True,
                "date_range": {"start_date": "2024-01-01", "end_date": "2024-12-31"},
            },
        }
    }

    config = ScanCreate.model_validate(body).to_config()

    assert config.scan_id == "scan-1"
    assert config.filters.include_archived
    assert config.filters.date_range.end == date(2024, 12, 31)


def test_a_field_in_both_spellings_is_refused():
    body = changed(("config", "scan_id"), "scan-2")

    assert faults_of(body) != {}


def test_a_fault_of_an_object_and_of_its_inside_both_have_a_place():
    tree = nest_faults(
        [
            {"loc": ("body", "a"), "type": "x", "msg": "outer"},
            {"loc": ("body", "a", "b"), "type": "x", "msg": "inner"},
            {"loc": ("body", "a"), "type": "x", "msg": "outer again"},
        ]
    )

    assert tree == {"a": {"_schema": ["outer", "outer again"], "b": ["inner"]}}


def test_no_rendering_of_a_request_shows_its_token():
    request = ScanCreate.model_validate(VALID)

    assert "pat-na1" not in repr(request)
    assert "pat-na1" not in str(request)
    assert "pat-na1" not in request.model_dump_json()
