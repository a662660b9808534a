"""The database of one run."""

from tests.integration.conftest import database  # noqa: F401
