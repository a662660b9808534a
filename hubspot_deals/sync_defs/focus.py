"""Which connections a process builds definitions for: a run needs those of its own only."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import dagster as dg

from hubspot_deals.sync_contract import CONNECTION_TAG


@dataclass(slots=True)
class _Focus:
    connection_ids: frozenset[str] | None = None


_focus: Final = _Focus()


def connections_of(run: dg.DagsterRun) -> frozenset[str]:
    """Return the connections that a run works for; empty when it doesn't say.

    Runs from an asset's own page have no tag of ours, but name their assets.
    """
    selected = run.asset_selection or {check.asset_key for check in run.asset_check_selection or ()}
    tagged = {run.tags[CONNECTION_TAG]} if CONNECTION_TAG in run.tags else set()
    return frozenset(tagged | {key.path[0] for key in selected})


def focus_on(connection_ids: Iterable[str]) -> None:
    """Let this process build the definitions of these connections only; of all when none is named.

    For run workers, which live for one run: of 100 connections they would build 99 for nothing.
    """
    _focus.connection_ids = frozenset(connection_ids) or None


def is_focused() -> bool:
    """Tell whether this process works for some connections only."""
    return _focus.connection_ids is not None


def is_in_focus(connection_id: str) -> bool:
    """Tell whether this process needs a connection's definitions."""
    return _focus.connection_ids is None or connection_id in _focus.connection_ids
