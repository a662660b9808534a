"""Past values of a deal's properties: recorded ones, before them made-up ones that lead to them."""

from typing import Any, Final

from hubspot_sandbox.clock import iso_ms
from hubspot_sandbox.journal import Journal, Version
from hubspot_sandbox.pipelines import PIPELINES
from hubspot_sandbox.store import Store

_SOURCES: Final = ("CRM_UI", "API", "IMPORT", "INTEGRATION")
_USER: Final = 28_604_240
_DEEPEST: Final = 5
_MOST_VERSIONS: Final = 20


def property_history(
    store: Store, journal: Journal, row: int, names: tuple[str, ...]
) -> dict[str, list[dict[str, Any]]]:
    """Versions per property, newest first; unknown properties are left out."""
    identity = int(store.account.ids[row])
    known = tuple(name for name in names if store.catalog.find(name))
    # Doubtful: how many versions HubSpot keeps, and that older ones are dropped.
    return {
        name: [_body(version, identity) for version in all_versions(store, journal, row, name)][
            :_MOST_VERSIONS
        ]
        for name in known
    }


def all_versions(store: Store, journal: Journal, row: int, name: str) -> list[Version]:
    """All versions of one property, newest first, however many."""
    recorded = journal.versions(row, name)
    value = store.column(name).text(row) if recorded else store.values(row, (name,))[name]
    return recorded + _made_up(store, journal, row, name, value)


def _made_up(
    store: Store, journal: Journal, row: int, name: str, value: str | None
) -> list[Version]:
    if value is None:
        # Doubtful: a property without a value may also be absent.
        return []
    values = [value, *_earlier(store, row, name, value)]
    first, last = int(store.account.born_ms[row]), journal.first_modified(row)
    step = max(0, last - first) // len(values)
    moments = [last - age * step for age in range(len(values) - 1)] + [first]
    return [Version(text, moment) for text, moment in zip(values, moments, strict=True)]


def _body(version: Version, identity: int) -> dict[str, Any]:
    source = _SOURCES[(identity + version.moment_ms) % len(_SOURCES)]
    body: dict[str, Any] = {
        # Doubtful: how the history shows that a value was taken away.
        "value": version.value or "",
        "timestamp": iso_ms(version.moment_ms),
        "sourceType": source,
    }
    # The last two keys are optional in recorded histories.
    if source == "CRM_UI":
        return body | {"sourceId": f"userId:{_USER}", "updatedByUserId": _USER}
    return body | {"sourceId": "sandbox-integration"} if source == "API" else body


def _earlier(store: Store, row: int, name: str, value: str) -> list[str]:
    """Older values, newest first."""
    identity = int(store.account.ids[row])
    if name == "dealstage":
        for pipeline in PIPELINES:
            stages = [stage.id for stage in pipeline.stages]
            if value in stages:
                return stages[: stages.index(value)][::-1][:_DEEPEST]
    if name == "amount":
        return [str(100 * (identity % 97 + step)) for step in range(identity % 4)]
    return []
