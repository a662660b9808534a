"""What has happened to deals since the start: when each was touched last, how it ended, its stages.

The account's columns only know the present; a synchronized copy is judged by this.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from hubspot_sandbox.account import ARCHIVED, GONE, Ints
from hubspot_sandbox.clock import Clock
from hubspot_sandbox.store import Store

TRACKED: Final = ("dealstage", "pipeline")
"""Properties whose past values are kept."""


@dataclass(frozen=True, slots=True)
class Version:
    """A value that a property was given, and when."""

    value: str | None
    moment_ms: int


@dataclass(slots=True)
class _Past:
    """One deal since the start of the sandbox."""

    touched_ms: int = 0
    gone_ms: int = 0
    was_archived: bool = False
    versions: dict[str, list[Version]] = field(default_factory=dict)


class Journal:
    """Follows a store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._first_modified = store.account.modified_ms.copy()
        self._archived_at_start = frozenset(store.rows_in_state(ARCHIVED).tolist())
        self._pasts: dict[int, _Past] = {}
        store.observe(self._note)

    def versions(self, row: int, name: str) -> list[Version]:
        """Values that a tracked property was given since the start, newest first."""
        past = self._pasts.get(row)
        return past.versions.get(name, [])[::-1] if past else []

    def first_modified(self, row: int) -> int:
        """The time of last change at the start, or of the creation since."""
        account, known = self._store.account, self._first_modified
        return int(known[row] if row < len(known) else account.born_ms[row])

    def touched_since(self, moment_ms: int) -> list[str]:
        """Ids of deals to which anything has happened at a moment or later."""
        ids = self._store.account.ids
        return [str(ids[row]) for row, past in self._pasts.items() if past.touched_ms >= moment_ms]

    def fates(self) -> dict[str, dict[str, Any]]:
        """How each deal that is not live has ended.

        `reason` is archived, merged, purged (from the bin) or deleted, which tells too if it
        `was_archived` ever. A merged deal names the one that answers for it today as `survivor`.
        """
        account = self._store.account
        return {
            str(account.ids[row]): self._fate(row)
            for row in (account.state != 0).nonzero()[0].tolist()
        }

    def _fate(self, row: int) -> dict[str, Any]:
        account, past = self._store.account, self._pasts.get(row, _Past())
        if account.state[row] == ARCHIVED:
            return {"reason": "archived", "at_ms": int(account.archived_ms[row])}
        if row in account.merges:
            survivor = self._store.find_current(int(account.ids[row]))
            identity = str(account.ids[survivor])
            return {"reason": "merged", "at_ms": past.gone_ms, "survivor": identity}
        reason = "purged" if account.archived_ms[row] else "deleted"
        return {"reason": reason, "at_ms": past.gone_ms, "was_archived": past.was_archived}

    def _note(self, rows: Ints) -> None:
        now, account = self._clock.ms(), self._store.account
        for row in rows.tolist():
            past = self._pasts.get(row)
            if past is None:
                past = self._pasts[row] = _Past(was_archived=row in self._archived_at_start)
            past.touched_ms = now
            past.was_archived |= bool(account.state[row] == ARCHIVED)
            if account.state[row] == GONE and not past.gone_ms:
                past.gone_ms = now
            changes = self._store.overlay.get(row)
            if changes:
                self._keep(past, row, now)

    def _keep(self, past: _Past, row: int, now: int) -> None:
        """Keep the values of tracked properties that are other ones than before."""
        changes = self._store.overlay[row]
        for name in TRACKED:
            if name not in changes:
                continue
            versions = past.versions.get(name)
            before = versions[-1].value if versions else self._store.column(name).text(row)
            if changes[name] != before:
                past.versions.setdefault(name, []).append(Version(changes[name], now))
