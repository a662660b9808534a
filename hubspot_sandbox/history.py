"""Past values of a deal's properties, made up to lead to the present one."""

from typing import Any, Final

from hubspot_sandbox.clock import iso_ms
from hubspot_sandbox.pipelines import PIPELINES
from hubspot_sandbox.store import Store

_SOURCES: Final = ("CRM_UI", "API", "IMPORT", "INTEGRATION")
_USER: Final = 28_604_240
_DEEPEST: Final = 5


def property_history(
    store: Store, row: int, names: tuple[str, ...]
) -> dict[str, list[dict[str, Any]]]:
    """Versions per property, newest first; unknown properties are left out."""
    known = tuple(name for name in names if store.catalog.find(name))
    current = store.values(row, known)
    return {name: _versions(store, row, name, value) for name, value in current.items()}


def _versions(store: Store, row: int, name: str, value: str | None) -> list[dict[str, Any]]:
    if value is None:
        # Doubtful: a property without a value may also be absent.
        return []
    account = store.account
    values = [value, *_earlier(store, row, name, value)]
    first, last = int(account.born_ms[row]), int(account.modified_ms[row])
    step = max(0, last - first) // len(values)
    versions = []
    for age, text in enumerate(values):
        moment = first if age == len(values) - 1 else last - age * step
        source = _SOURCES[(int(account.ids[row]) + age) % len(_SOURCES)]
        version: dict[str, Any] = {
            "value": text,
            "timestamp": iso_ms(moment),
            "sourceType": source,
        }
        # The last two keys are optional in recorded histories.
        if source == "CRM_UI":
            version |= {"sourceId": f"userId:{_USER}", "updatedByUserId": _USER}
        elif source == "API":
            version["sourceId"] = "sandbox-integration"
        versions.append(version)
    return versions


def _earlier(store: Store, row: int, name: str, value: str) -> list[str]:
    """Older values, newest first. Doubtful: how many versions HubSpot keeps."""
    identity = int(store.account.ids[row])
    if name == "dealstage":
        for pipeline in PIPELINES:
            stages = [stage.id for stage in pipeline.stages]
            if value in stages:
                return stages[: stages.index(value)][::-1][:_DEEPEST]
    if name == "amount":
        return [str(100 * (identity % 97 + step)) for step in range(identity % 4)]
    return []
