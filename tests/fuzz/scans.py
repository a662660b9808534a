"""The scans that are there while the API is fuzzed."""

from tests.integration.test_api_control import FACTS

OF_EACH = 40


def known_ids():
    """Return the ids, so many of each status."""
    return [f"{status}-{number}" for status in FACTS for number in range(OF_EACH)]
