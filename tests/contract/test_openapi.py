"""The published description of the API is the API."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from pydantic import ValidationError

from api.connections.schemas import ConnectionCreate, ConnectionPatch
from api.errors import SourceUnavailableError
from api.main import build_app
from api.openapi import dump_openapi
from api.scans.schemas import ScanCreate
from api.testing import serve

PUBLISHED = Path(__file__).parents[2] / "openapi.json"


@pytest.fixture(scope="module")
def document():
    return build_app().openapi()


@pytest.fixture(scope="module")
def client():
    with serve(build_app()) as client:
        yield client


def operations(document):
    return [operation for path in document["paths"].values() for operation in path.values()]


def test_the_published_document_is_current(document):
    assert PUBLISHED.read_bytes() == dump_openapi(document), "run: python -m api.openapi"


SCANS = {
    # Verb first.
    ("post", "/scan/start"),
    ("get", "/scan/status/{scan_id}"),
    ("get", "/scan/result/{scan_id}"),
    ("get", "/scan/download/{scan_id}/{format}"),
    ("post", "/scan/cancel/{scan_id}"),
    ("delete", "/scan/remove/{scan_id}"),
    # Id first.
    ("post", "/auth/validate"),
    ("post", "/scan/plan"),
    ("get", "/scan/list"),
    ("get", "/scan/{scan_id}/status"),
    ("post", "/scan/{scan_id}/cancel"),
    ("post", "/scan/{scan_id}/pause"),
    ("post", "/scan/{scan_id}/resume"),
    ("delete", "/scan/{scan_id}/remove"),
    ("get", "/results/{scan_id}/tables"),
    ("get", "/results/{scan_id}/result"),
    ("get", "/results/{scan_id}/certificate"),
    ("get", "/results/{scan_id}/diff/{other_scan_id}"),
    ("get", "/results/{scan_id}/download/{format}"),
    ("get", "/results/{scan_id}/download/{format}/manifest"),
    ("get", "/health"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/stats"),
}
"""What both mounts serve."""


WEBHOOKS = {
    ("post", ""),
    ("get", ""),
    ("get", "/{webhook_id}"),
    ("patch", "/{webhook_id}"),
    ("delete", "/{webhook_id}"),
    ("post", "/{webhook_id}/rotate-secret"),
    ("post", "/{webhook_id}/test"),
    ("get", "/{webhook_id}/deliveries"),
    ("post", "/{webhook_id}/deliveries/{delivery_id}/replay"),
}


def test_exactly_the_documented_paths_of_this_version_are_served(document):
    assert {
        (method, path) for path, methods in document["paths"].items() for method in methods
    } == SCANS | {(method, f"/api/v1{path}") for method, path in SCANS} | {
        (method, f"/api/v1/webhooks{path}") for method, path in WEBHOOKS
    } | {
        ("post", "/api/v1/maintenance/cleanup"),
        ("post", "/api/v1/maintenance/detect-crashed"),
        ("get", "/api/v1/pipeline/info"),
        ("post", "/api/v1/connections"),
        ("get", "/api/v1/connections"),
        ("get", "/api/v1/connections/{connection_id}"),
        ("patch", "/api/v1/connections/{connection_id}"),
        ("delete", "/api/v1/connections/{connection_id}"),
        ("get", "/api/v1/connections/{connection_id}/runs"),
        ("post", "/api/v1/connections/{connection_id}/sync"),
        ("post", "/api/v1/connections/{connection_id}/pause"),
        ("post", "/api/v1/connections/{connection_id}/resume"),
    }


def test_an_operation_of_one_grammar_has_one_tag_on_both_mounts(document):
    tags = defaultdict(set)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tags[path.removeprefix("/api/v1"), method].add(tuple(operation["tags"]))
    # The one path of both documents follows the one whose home the mount is.
    assert tags.pop(("/scan/start", "post")) == {("scans",), ("scans, verb first",)}
    assert all(len(known) == 1 for known in tags.values())


def test_no_operation_answers_422(document):
    assert all("422" not in operation["responses"] for operation in operations(document))
    assert "ValidationError" not in dump_openapi(document).decode()


def test_every_operation_has_its_own_id_a_summary_and_its_failures(document):
    ids = [operation["operationId"] for operation in operations(document)]

    assert len(set(ids)) == len(ids)
    for operation in operations(document):
        assert operation["summary"]
        assert operation["description"]
        assert {"500", "503"} & set(operation["responses"])


def test_every_reference_in_the_document_resolves(document):
    text = dump_openapi(document).decode()

    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in document["components"]["schemas"]


def test_the_examples_of_connection_requests_are_valid_requests(document):
    for model in (ConnectionCreate, ConnectionPatch):
        (example,) = document["components"]["schemas"][model.__name__]["examples"]
        assert model.model_validate(example)


def test_the_example_of_the_request_is_a_valid_request(document):
    (example,) = document["components"]["schemas"]["ScanCreate"]["examples"]

    assert ScanCreate.model_validate(example).to_config().scan_id == "hubspot-deals-scan-2025-001"


@pytest.mark.parametrize(
    ("place", "samples"),
    [
        (("auth", "accessToken"), ["pat-na1-0123", "pat na1-0123", "pat-na1-é123", "~" * 10]),
        (("filters", "properties"), ["amount", "*", "hs_1", "Amount", "a-b", "", "a" * 101]),
        (("type",), ["user", "deals", "calendar"]),
        (("user_upns",), ["a@example.com", "", "a" * 256]),
    ],
)
def test_the_document_allows_of_a_text_what_the_service_accepts(document, place, samples):
    schemas = document["components"]["schemas"]
    schema = schemas["ConfigCreate"]["properties"][place[0]]
    for name in place[1:]:
        (reference,) = [one for one in schema.get("anyOf", [schema]) if "$ref" in one]
        schema = schemas[reference["$ref"].rpartition("/")[2]]["properties"][name]
    (schema,) = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    is_list = schema["type"] == "array"
    form = schema["items"] if is_list else schema

    for text in samples:
        value = [text] if is_list else text
        request = {"scanId": "a", "organizationId": "b", "type": ["user"]}
        request["auth"] = {"accessToken": "pat-na1-0123"}
        request |= {place[0]: {place[1]: value} if place[1:] else value}
        is_allowed = (
            form.get("minLength", 0) <= len(text) <= form.get("maxLength", len(text))
            and re.search(form.get("pattern", ""), text) is not None
            and text in form.get("enum", [text])
        )
        assert is_accepted({"config": request}) is is_allowed, text


def is_accepted(request):
    try:
        ScanCreate.model_validate(request)
    except (ValidationError, SourceUnavailableError):
        return False
    return True


@pytest.mark.parametrize("path", ["/docs", "/api/v1/docs", "/redoc"])
def test_the_documentation_loads_nothing_from_elsewhere(client, path):
    page = client.get(path)

    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert links
    for link in links:
        assert link.startswith("/docs-assets/")
        assert client.get(link).status_code == 200
    assert "https://" not in page.text


@pytest.mark.parametrize("path", ["/openapi.json", "/api/v1/openapi.json"])
def test_the_document_is_served(client, document, path):
    assert client.get(path).json() == document


def test_the_document_is_written_once_however_many_ask(monkeypatch):
    """Nobody is asked who they are for it, and nothing limits it."""
    app, written = build_app(), []
    monkeypatch.setattr(app, "openapi", lambda: written.append(1) or {"paths": {}})
    with serve(app) as client:
        for path in ("/openapi.json", "/api/v1/openapi.json") * 3:
            assert client.get(path).json() == {"paths": {}}
    assert len(written) == 1
