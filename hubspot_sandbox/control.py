"""The control endpoint under `/_sandbox/`: the truth, the request log, changes, faults, the clock.

It is not HubSpot's: it needs no token, has no latency and counts towards no budget.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import orjson

from hubspot_sandbox.account import ARCHIVED, GONE, LIVE, Ints
from hubspot_sandbox.budgets import Budgets
from hubspot_sandbox.clock import parse_ms
from hubspot_sandbox.endpoint import World
from hubspot_sandbox.faults import Faults
from hubspot_sandbox.history import all_versions
from hubspot_sandbox.life import RATES, Life
from hubspot_sandbox.messages import Query, Reply, Request
from hubspot_sandbox.render import Plan
from hubspot_sandbox.requestlog import RequestLog
from hubspot_sandbox.routes import TARGET_TYPES

CONTROL_PREFIX: Final = b"/_sandbox/"
_NDJSON: Final = b"application/x-ndjson"
_CHUNK_ROWS: Final = 500
_DEFAULT_LAST: Final = 100
_Body = Any


class ControlError(ValueError):
    """A control request cannot be carried out."""


class Control:
    """Answers the control requests of one sandbox."""

    def __init__(self, world: World, budgets: Budgets, faults: Faults, log: RequestLog) -> None:
        self._world = world
        self._budgets = budgets
        self._faults = faults
        self._log = log
        self._routes: dict[tuple[str, str], Callable[[Query, _Body], object]] = {
            ("GET", "state"): self._state,
            ("GET", "merges"): self._merges,
            ("GET", "requests"): self._requests,
            ("GET", "faults"): lambda _query, _body: {"rules": self._faults.state()},
            ("POST", "faults"): self._add_faults,
            ("DELETE", "faults"): self._clear_faults,
            ("POST", "deals/create"): self._create,
            ("POST", "deals/update"): self._update,
            ("POST", "deals/archive"): self._archive,
            ("POST", "deals/restore"): self._restore,
            ("POST", "deals/delete"): self._delete,
            ("POST", "deals/merge"): self._merge,
            ("POST", "deals/recalculate"): self._recalculate,
            ("POST", "deals/associate"): self._associate,
            ("POST", "life"): self._live_on,
            ("GET", "fates"): lambda _query, _body: self._world.journal.fates(),
            ("POST", "touched"): self._touched,
            ("POST", "associations"): self._associations,
            ("POST", "history"): self._history,
            ("POST", "reset"): self._reset,
            ("POST", "clock"): self._advance,
        }

    def answer(self, request: Request) -> Reply:
        """Carry out one control request."""
        path, raw = request.split_target()
        name = path[len(CONTROL_PREFIX) :].strip("/")
        query = Query(raw)
        if (request.method, name) == ("GET", "deals"):
            return self._deals(query)
        route = self._routes.get((request.method, name))
        if route is None:
            known = [f"{method} /_sandbox/{path}" for method, path in self._routes]
            return _json({"error": "no such control request", "known": known}, 404)
        try:
            return _json(route(query, orjson.loads(request.body or b"{}")))
        except (ValueError, TypeError, KeyError) as error:
            return _json({"error": str(error)}, 400)

    # -- reading

    def _state(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        state = self._world.account.state
        config = asdict(self._world.config)
        # Tokens are credentials even here.
        config["tokens"] = len(self._world.config.tokens)
        return {
            "config": config,
            "live": int(np.count_nonzero(state == LIVE)),
            "archived": int(np.count_nonzero(state == ARCHIVED)),
            "gone": int(np.count_nonzero(state == GONE)),
            "merged": len(self._world.account.merges),
            "properties": len(self._world.catalog.names),
            "index_pending": self._world.index.pending,
            "daily_used": self._budgets.daily_used,
            "now_ms": self._world.clock.ms(),
        }

    def _merges(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        ids = self._world.account.ids
        return {str(ids[loser]): str(ids[to]) for loser, to in self._world.account.merges.items()}

    def _requests(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        last = query.text(b"last")
        return self._log.state(int(last) if last and last.isdecimal() else _DEFAULT_LAST)

    def _deals(self, query: Query) -> Reply:
        """All deals as they are now, one JSON object a line, live ones first."""
        wanted = (query.text(b"archived") or "all").lower()
        names = query.names(b"properties") or self._world.catalog.names
        plan = self._world.renderer.plan(names)
        states = {"true": (ARCHIVED,), "false": (LIVE,)}.get(wanted, (LIVE, ARCHIVED))
        return Reply(200, self._lines(states, plan), content_type=_NDJSON)

    def _lines(self, states: tuple[int, ...], plan: Plan) -> Iterator[bytes]:
        for state in states:
            rows = self._world.store.rows_in_state(state)
            for start in range(0, len(rows), _CHUNK_ROWS):
                chunk = rows[start : start + _CHUNK_ROWS]
                deals = self._world.renderer.deals(
                    chunk, plan, archived=state == ARCHIVED, with_url=False
                )
                yield b"\n".join(deals) + b"\n"

    # -- changing deals

    def _create(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        deals = body.get("deals") or []
        deals = deals * int(body.get("count", 1))
        self._check_names({name for deal in deals for name in deal})
        ids = self._world.store.create(deals, self._world.clock)
        return {"ids": [str(identity) for identity in ids]}

    def _update(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        rows = self._rows(body)
        properties = dict(body.get("properties") or {})
        self._check_names(properties)
        moment = body.get("modified_at") or properties.pop("hs_lastmodifieddate", None)
        modified = self._world.clock.ms() if moment is None else parse_ms(str(moment))
        if modified is None:
            message = f"Not a time: {moment}"
            raise ControlError(message)
        self._world.store.update(rows, properties, modified)
        return {"changed": len(rows)}

    def _archive(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        rows = self._rows(body)
        self._world.store.archive(rows, self._world.clock.ms())
        return {"changed": len(rows)}

    def _restore(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        rows = self._rows(body, state=ARCHIVED)
        self._world.store.restore(rows, self._world.clock.ms())
        return {"changed": len(rows)}

    def _delete(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        rows = self._rows(body, state=None)
        self._world.store.delete(rows)
        return {"changed": len(rows)}

    def _recalculate(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        rows = self._rows(body)
        properties = dict(body.get("properties") or {})
        self._check_names(properties)
        self._world.store.recalculate(rows, properties)
        return {"changed": len(rows)}

    def _associate(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        rows = self._rows(body)
        target, ids = TARGET_TYPES[str(body.get("to"))], list(map(int, body.get("targets") or []))
        for row in rows.tolist():
            self._world.links.put(int(self._world.account.ids[row]), target, ids)
        return {"changed": len(rows)}

    def _merge(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        [winner] = self._rows({"ids": [body.get("winner")]}).tolist()
        losers = self._rows({"ids": body.get("losers")})
        if winner in losers:
            message = "A deal cannot be merged into itself"
            raise ControlError(message)
        self._world.store.merge(winner, losers, self._world.clock.ms())
        return {"changed": len(losers)}

    def _rows(self, body: dict[str, Any], *, state: int | None = LIVE) -> Ints:
        """The rows of `ids`, or of the `first` so many deals by id, all in the given state."""
        if body.get("first") is not None:
            candidates = self._world.store.rows_in_state(LIVE if state is None else state)
            return candidates[: int(body["first"])]
        rows = []
        for text in body.get("ids") or []:
            row = self._world.store.find_row(int(text)) if str(text).isdecimal() else None
            if row is None or state not in {None, int(self._world.account.state[row])}:
                message = f"No deal {text} in the state that this needs"
                raise ControlError(message)
            rows.append(row)
        if not rows:
            message = "Give `ids` or `first`"
            raise ControlError(message)
        return np.array(sorted(set(rows)), dtype=np.int64)

    def _check_names(self, names: Any) -> None:
        unknown = [name for name in names if self._world.catalog.find(name) is None]
        if unknown:
            message = f"The account has no properties {unknown}"
            raise ControlError(message)

    # -- life, and what it has left behind

    def _live_on(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        life = Life(self._world, int(body.get("seed", 0)))
        done = life.go_on(float(body.get("seconds", 0)), {**RATES, **(body.get("rates") or {})})
        return {"done": done, "now_ms": self._world.clock.ms()}

    def _touched(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        return {"ids": self._world.journal.touched_since(int(body.get("since_ms", 0)))}

    def _associations(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        target = TARGET_TYPES[str(body.get("to"))]
        return {text: self._world.links.of(int(text), target) for text in body.get("ids") or []}

    def _history(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        world, name = self._world, str(body.get("property"))
        ids = [int(text) for text in body.get("ids") or []]
        rows = {number: world.store.find_row(number) for number in ids}
        return {
            number: [
                asdict(version) for version in all_versions(world.store, world.journal, row, name)
            ]
            for number, row in rows.items()
            if row is not None
        }

    # -- faults, budgets, time

    def _add_faults(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        for rule in body if isinstance(body, list) else [body]:
            self._faults.add(rule)
        return {"rules": self._faults.state()}

    def _clear_faults(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        self._faults.clear()
        return {"rules": []}

    def _reset(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        self._budgets.reset()
        self._faults.clear()
        self._log.reset()
        self._world.tokens.reset()
        return {"reset": True}

    def _advance(self, query: Query, body: _Body) -> object:  # noqa: ARG002
        self._world.clock.advance(float(body.get("advance_seconds", 0)))
        return {"now_ms": self._world.clock.ms()}


def _json(body: object, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(body, default=str, option=orjson.OPT_NON_STR_KEYS))
