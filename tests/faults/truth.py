"""What a scan has stored, beside what the sandbox's account holds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hubspot_deals.tables import CORE_PROPERTIES
from hubspot_sandbox.testing import SandboxProcess

Values = Mapping[str, str | None]
_ROWS = "SELECT id, properties FROM hubspot_deals.deals WHERE scan_id = %s"


def stored_deals(query: Callable[..., list[Any]], scan_id: str) -> dict[str, Values]:
    """Return the properties of a completed scan's deals by id; every deal must be there once."""
    rows = query(_ROWS, scan_id)
    deals = dict(rows)
    assert len(rows) == len(deals)
    return deals


def true_deals(
    account: SandboxProcess, *, archived: bool, names: Sequence[str] = tuple(CORE_PROPERTIES)
) -> dict[str, Values]:
    """Return the properties of all deals by id, live ones and, if asked for, archived ones."""
    deals = account.control.iter_deals(archived=None if archived else False, properties=names)
    return {deal["id"]: deal["properties"] for deal in deals}


def assert_equal(stored: Mapping[str, Values], true: Mapping[str, Values]) -> None:
    """Check that these are the same deals with the same values, for the properties stored."""
    assert stored.keys() == true.keys()
    wrong = [
        (deal_id, name, value, true[deal_id].get(name))
        for deal_id, values in stored.items()
        for name, value in values.items()
        if value != true[deal_id].get(name)
    ]
    assert wrong == []
