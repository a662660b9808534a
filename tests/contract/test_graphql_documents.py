"""Our GraphQL documents fit the installed Dagster, which promises no stability for them."""

import pytest
from dagster_graphql.schema import create_schema
from graphql import parse, validate

from api.dagster.documents import DOCUMENTS
from api.dagster.gateway import ENDED_EARLY


@pytest.fixture(scope="module")
def schema():
    return create_schema().graphql_schema


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda text: text.split()[1].split("(")[0])
def test_a_document_is_valid_in_the_installed_schema(schema, document):
    assert validate(schema, parse(document)) == []


def test_every_way_a_launch_can_end_is_named(schema):
    kinds = {kind.name for kind in schema.get_type("LaunchRunResult").types}

    assert kinds == {
        "LaunchRunSuccess",
        "InvalidStepError",
        "InvalidOutputError",
        "RunConfigValidationInvalid",
        "PipelineNotFoundError",
        "RunConflict",
        "UnauthorizedError",
        "PythonError",
        "InvalidSubsetError",
        "PresetNotFoundError",
        "ConflictingExecutionParamsError",
        "NoModeProvidedError",
    }


def test_the_run_statuses_that_end_a_run_early_exist(schema):
    assert set(schema.get_type("RunStatus").values) >= ENDED_EARLY
