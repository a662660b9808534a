"""The live account: what the list and batch endpoints read and the control endpoint changes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Final

import numpy as np
import numpy.typing as npt

from hubspot_sandbox.account import ARCHIVED, GONE, LIVE, Account, Ints
from hubspot_sandbox.catalog import Catalog
from hubspot_sandbox.clock import Clock, parse_ms
from hubspot_sandbox.columns import Column, IdColumn, MomentColumn, PoolColumn, Rows
from hubspot_sandbox.config import SandboxConfig
from hubspot_sandbox.names import ZERO, amount_pool, close_pool, name_pool
from hubspot_sandbox.pipelines import STAGES
from hubspot_sandbox.profiles import BLANK, Profiles

Properties = Mapping[str, str | None]
_ID_STEP: Final = 37
_HIGHEST_ID: Final = 2**62
_AMOUNT_TWINS: Final = ("amount", "amount_in_home_currency")
_MERGED_IDS: Final = "hs_merged_object_ids"


class Store:
    """Deals as they are now.

    Generated values stay in the account's columns; changes are laid over them per row. A dict of
    changes is replaced, never edited, so the search index may keep an older one.
    """

    def __init__(
        self, account: Account, catalog: Catalog, profiles: Profiles, config: SandboxConfig
    ) -> None:
        self.account = account
        self.catalog = catalog
        self._profiles = profiles
        self.overlay: dict[int, Properties] = {}
        self.touched: npt.NDArray[np.bool_] = np.zeros(account.size, dtype=np.bool_)
        self.archive_version = 0
        self._observers: list[Callable[[Ints], None]] = []
        self._columns = self._own_columns(config)
        self._lay_merges(np.array(list(account.merges), dtype=np.int64))

    def observe(self, observer: Callable[[Ints], None]) -> None:
        """Tell the observer the rows of every change."""
        self._observers.append(observer)

    # -- reading

    def column(self, name: str) -> Column:
        """Where the generated values of a property are."""
        column = self._columns.get(name)
        if column is None:
            values = self._profiles.column(name)
            column = self._columns[name] = PoolColumn(values, self._profile_codes)
        return column

    def is_profiled(self, name: str) -> bool:
        """Whether the property's values come from the row's profile."""
        column = self.column(name)
        return isinstance(column, PoolColumn) and column.codes == self._profile_codes

    def values(self, row: int, names: Sequence[str]) -> dict[str, str | None]:
        """The current values of one row."""
        changes = self.overlay.get(row, {})
        return {
            name: changes[name] if name in changes else self.column(name).text(row)
            for name in names
        }

    def find_row(self, object_id: int) -> int | None:
        """The row of an id, whatever its state."""
        row = int(np.searchsorted(self.account.ids, min(object_id, _HIGHEST_ID)))
        is_found = row < self.account.size and int(self.account.ids[row]) == object_id
        return row if is_found else None

    def find_current(self, object_id: int) -> int | None:
        """The row that answers to an id: a merged deal answers with its winner."""
        row = self.find_row(object_id)
        while row is not None and row in self.account.merges:
            row = self.account.merges[row]
        return row

    def rows_in_state(self, state: int) -> Ints:
        """All rows of one state, by ascending id."""
        return np.flatnonzero(self.account.state == state)

    def page_rows(self, first_id: int, count: int) -> Ints:
        """The first `count` live rows with an id of at least `first_id`."""
        state = self.account.state
        start = int(np.searchsorted(self.account.ids, min(first_id, _HIGHEST_ID)))
        span = count + count // 2 + 16
        while True:
            rows = np.flatnonzero(state[start : start + span] == LIVE)[:count]
            if len(rows) == count or start + span >= len(state):
                return rows + start
            span *= 4

    # -- changing

    def create(self, deals: Sequence[Properties], clock: Clock) -> list[int]:
        """Add live deals after the highest id; unset properties stay null."""
        account, count, now = self.account, len(deals), clock.ms()
        first = int(account.ids[-1]) if account.size else 1_000_000_000
        fresh = {
            "ids": first + _ID_STEP * np.arange(1, count + 1, dtype=np.int64),
            "born_ms": np.full(count, now, dtype=np.int64),
            "created_ms": np.full(count, now, dtype=np.int64),
            "modified_ms": np.full(count, now, dtype=np.int64),
            "profile": np.full(count, BLANK, dtype=np.uint16),
        }
        start = account.size
        for column in fields(account):
            old = getattr(account, column.name)
            if isinstance(old, np.ndarray):
                added = fresh.get(column.name, np.zeros(count, dtype=old.dtype))
                setattr(account, column.name, np.concatenate([old, added]))
        self.touched = np.concatenate([self.touched, np.ones(count, dtype=np.bool_)])
        for row, properties in enumerate(deals, start):
            self._lay(row, properties)
        self._tell(np.arange(start, account.size, dtype=np.int64))
        return [int(number) for number in account.ids[start:]]

    def update(self, rows: Ints, properties: Properties, modified_ms: int) -> None:
        """Change properties and the time of last change."""
        self.account.modified_ms[rows] = modified_ms
        if properties:
            for row in rows.tolist():
                self._lay(row, properties)
        self._tell(rows)

    def recalculate(self, rows: Ints, properties: Properties) -> None:
        """Change properties that HubSpot computes, which moves no time of last change."""
        for row in rows.tolist():
            self._lay(row, properties)
        self._tell(rows)

    def archive(self, rows: Ints, archived_ms: int) -> None:
        """Move to the bin; the time of last change stays as it was."""
        self.account.state[rows] = ARCHIVED
        self.account.archived_ms[rows] = archived_ms
        self.archive_version += 1
        self._tell(rows)

    def restore(self, rows: Ints, modified_ms: int) -> None:
        """Take out of the bin."""
        # Doubtful: whether restoring counts as a change of the deal.
        self.account.state[rows] = LIVE
        self.account.archived_ms[rows] = 0
        self.account.modified_ms[rows] = modified_ms
        self.archive_version += 1
        self._tell(rows)

    def delete(self, rows: Ints) -> None:
        """Erase for good: no endpoint shows the deal again."""
        self.account.state[rows] = GONE
        self.archive_version += 1
        self._tell(rows)

    def empty_bin(self, before_ms: int) -> Ints:
        """Erase what was archived before a moment; the rows."""
        account = self.account
        rows = np.flatnonzero((account.state == ARCHIVED) & (account.archived_ms < before_ms))
        if len(rows):
            self.delete(rows)
        return rows

    def merge(self, winner: int, losers: Ints, modified_ms: int) -> None:
        """Let one deal swallow others; their ids answer with the winner."""
        self.account.state[losers] = GONE
        self.account.merges.update(dict.fromkeys(losers.tolist(), winner))
        self._lay_merges(losers)
        self.account.modified_ms[winner] = modified_ms
        self._tell(np.array([winner, *losers.tolist()], dtype=np.int64))

    # -- inside

    def _profile_codes(self, rows: Rows) -> npt.NDArray[np.uint16]:
        return self.account.profile[rows]

    def _own_columns(self, config: SandboxConfig) -> dict[str, Column]:
        account, won = self.account, self._profiles.is_won
        amounts = amount_pool()
        amount = PoolColumn(amounts, lambda rows: account.amount[rows])
        # HubSpot computes it: the amount of a won deal, nought for any other.
        closed = PoolColumn(
            amounts,
            lambda rows: np.where(
                won[account.profile[rows]], account.amount[rows], np.uint16(ZERO)
            ),
        )
        return {
            "hs_object_id": IdColumn(lambda: account.ids),
            "createdate": MomentColumn(lambda: account.created_ms),
            "hs_createdate": MomentColumn(lambda: account.born_ms),
            "hs_lastmodifieddate": MomentColumn(lambda: account.modified_ms),
            "dealname": PoolColumn(name_pool(), lambda rows: account.name[rows]),
            "closedate": PoolColumn(close_pool(config), lambda rows: account.close[rows]),
            "amount": amount,
            "amount_in_home_currency": amount,
            "hs_closed_amount": closed,
            "hs_closed_amount_in_home_currency": closed,
        }

    def _lay(self, row: int, properties: Properties) -> None:
        changes = dict(self.overlay.get(row, {}))
        for name, value in properties.items():
            if name == "createdate" or name == "hs_lastmodifieddate":  # noqa: PLR1714
                self._set_moment(row, name, value)
            elif name != "hs_object_id":
                changes.update(_with_dependents(name, value))
        self.overlay[row] = changes
        self.touched[row] = True

    def _set_moment(self, row: int, name: str, value: str | None) -> None:
        moment = parse_ms(value or "")
        if moment is None:
            message = f"{name} must be an ISO datetime or epoch milliseconds, not {value!r}"
            raise ValueError(message)
        account = self.account
        column = account.created_ms if name == "createdate" else account.modified_ms
        column[row] = moment

    def _lay_merges(self, losers: Ints) -> None:
        for loser in losers.tolist():
            winner = self.account.merges[loser]
            known = self.overlay.get(winner, {}).get(_MERGED_IDS)
            merged = ";".join(filter(None, (known, str(self.account.ids[loser]))))
            self._lay(winner, {_MERGED_IDS: merged})

    def _tell(self, rows: Ints) -> None:
        for observer in self._observers:
            observer(rows)


def _with_dependents(name: str, value: str | None) -> dict[str, str | None]:
    """A change together with the properties that HubSpot derives from it."""
    if name in _AMOUNT_TWINS:
        return dict.fromkeys(_AMOUNT_TWINS, value)
    stage = STAGES.get(value or "") if name == "dealstage" else None
    if stage is None:
        return {name: value}
    return {
        "dealstage": stage.id,
        "pipeline": stage.pipeline,
        "hs_is_closed": "true" if stage.is_closed else "false",
        "hs_is_closed_won": "true" if stage.is_won else "false",
        "hs_deal_stage_probability": stage.probability,
    }
