"""Deals one by one, by page and by batch."""

import base64
import binascii
from bisect import bisect_left
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import orjson

from hubspot_sandbox.account import ARCHIVED, LIVE, Ints
from hubspot_sandbox.associations import inline_associations
from hubspot_sandbox.clock import iso_ms
from hubspot_sandbox.endpoint import Answer, Call, World, is_number
from hubspot_sandbox.failures import bad_json, bad_request, not_found
from hubspot_sandbox.history import property_history
from hubspot_sandbox.render import Plan
from hubspot_sandbox.routes import TARGET_TYPES

LIST_LIMIT: Final = 100
HISTORY_LIMIT: Final = 50
_CURSOR_PREFIX: Final = "deal:"


class Objects:
    """List, get and batch read."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._archived: tuple[int, list[str], Ints] | None = None

    # -- list

    def page(self, call: Call) -> Answer:
        """`GET …/objects/deals`."""
        query = call.query
        history = query.names(b"propertiesWithHistory")
        most = HISTORY_LIMIT if history else LIST_LIMIT
        limit = call.limit(query.text(b"limit"), most=most)
        archived = query.flag(b"archived")
        rows, after = self._rows(query.text(b"after"), limit, archived=archived)
        after = self._spoil_cursor(call, rows, after)
        if call.page_fault and call.page_fault[0] in {"empty_page", "short_page"}:
            kept = call.page_fault[1]
            after = self._next_after(rows, kept, archived=archived) if len(rows) > kept else after
            rows = rows[:kept]
        plan = self._world.renderer.plan(query.names(b"properties"))
        deals = self._deals(rows, plan, call, archived=archived)
        body = b'{"results":[' + b",".join(deals) + b"]"
        if after is not None:
            body += b',"paging":{"next":' + self._next(call, after) + b"}"
        return Answer(body + b"}")

    def _rows(self, after: str | None, limit: int, *, archived: bool) -> tuple[Ints, str | None]:
        """The rows of a page, and the id that the next one starts at."""
        cursor = None if after is None else self._read_cursor(after)
        if archived:
            return self._archived_rows(cursor, limit)
        # `after` is an inclusive lower bound on the id. Doubtful: that any number will do.
        rows = self._world.store.page_rows(int(cursor or 0), limit + 1)
        page = rows[:limit]
        has_more = len(rows) > limit
        return page, self._next_after(page, limit, archived=False) if has_more else None

    def _next_after(self, rows: Ints, kept: int, *, archived: bool) -> str:
        """The cursor after the first `kept` rows of a page."""
        ids = self._world.account.ids
        if kept == 0 or archived:
            place = min(kept, len(rows) - 1)
            return str(ids[rows[place]])
        # HubSpot's own example continues at the last id plus one, a record or not.
        return str(int(ids[rows[kept - 1]]) + 1)

    def _archived_rows(self, cursor: str | None, limit: int) -> tuple[Ints, str | None]:
        # Doubtful: recorded archived pages are not in numeric order; the order of the ids as
        # text is one of the two orders that fit.
        texts, ordered = self._archived_order()
        start = 0 if cursor is None else bisect_left(texts, cursor)
        following = texts[start + limit : start + limit + 1]
        return ordered[start : start + limit], following[0] if following else None

    def _archived_order(self) -> tuple[list[str], Ints]:
        """All archived ids as text, in order, and their rows; kept until the bin changes."""
        version = self._world.store.archive_version
        if self._archived is None or self._archived[0] != version:
            rows = self._world.store.rows_in_state(ARCHIVED)
            ids = self._world.account.ids[rows].tolist()
            pairs = sorted(zip(map(str, ids), rows.tolist(), strict=True))
            ordered = np.array([row for _, row in pairs], dtype=np.int64)
            self._archived = (version, [text for text, _ in pairs], ordered)
        return self._archived[1:]

    def _read_cursor(self, after: str) -> str:
        text = after
        if self._world.config.opaque_cursors:
            try:
                text = base64.urlsafe_b64decode(after).decode("ascii")
            except (binascii.Error, ValueError):
                text = ""
            text = text.removeprefix(_CURSOR_PREFIX) if text.startswith(_CURSOR_PREFIX) else ""
        if not is_number(text):
            message = f"Invalid paging cursor: {after}"
            raise bad_request(message)
        return text

    def _next(self, call: Call, after: str) -> bytes:
        if self._world.config.opaque_cursors:
            after = base64.urlsafe_b64encode((_CURSOR_PREFIX + after).encode()).decode()
        raw = call.request.target.partition(b"?")[2]
        kept = [pair for pair in raw.split(b"&") if pair and not pair.startswith(b"after=")]
        kept.append(b"after=" + quote(after).encode())
        path = call.request.target.partition(b"?")[0]
        link = (call.base_url.encode() + path + b"?" + b"&".join(kept)).decode("latin-1")
        return orjson.dumps({"after": after, "link": link})

    def _spoil_cursor(self, call: Call, rows: Ints, after: str | None) -> str | None:
        if call.page_fault and call.page_fault[0] == "cursor_loop" and len(rows):
            after = call.query.text(b"after")
            return self._read_cursor(after) if after else str(self._world.account.ids[rows[0]])
        return after

    def _deals(self, rows: Ints, plan: Plan, call: Call, *, archived: bool) -> list[bytes]:
        history = call.query.names(b"propertiesWithHistory")
        # Recorded archived deals carry no associations.
        targets = () if archived else call.query.names(b"associations")
        if not history and not targets:
            return self._world.renderer.deals(rows, plan, archived=archived)
        return [
            orjson.dumps(self._full_body(row, plan, history, targets, call, archived=archived))
            for row in rows.tolist()
        ]

    def _full_body(  # noqa: PLR0913
        self,
        row: int,
        plan: Plan,
        history: tuple[str, ...],
        targets: tuple[str, ...],
        call: Call,
        *,
        archived: bool,
    ) -> dict[str, Any]:
        body = self._world.renderer.body(row, plan, archived=archived)
        if history:
            body["propertiesWithHistory"] = property_history(
                self._world.store, self._world.journal, row, history
            )
        wanted = [target for target in targets if target.lower() in TARGET_TYPES]
        if wanted:
            body["associations"] = inline_associations(
                self._world.config,
                self._world.links,
                int(self._world.account.ids[row]),
                wanted,
                call.base_url,
            )
        return body

    # -- get

    def get(self, call: Call) -> Answer:
        """`GET …/objects/deals/{id}`."""
        [text] = call.route.args
        archived = call.query.flag(b"archived")
        row = self._find(text, archived=archived)
        if row is None:
            raise not_found(text)
        plan = self._world.renderer.plan(call.query.names(b"properties"))
        [deal] = self._deals(np.array([row], dtype=np.int64), plan, call, archived=archived)
        return Answer(deal)

    def _find(self, text: str, *, archived: bool) -> int | None:
        row = self._world.store.find_current(int(text)) if is_number(text) else None
        wanted = ARCHIVED if archived else LIVE
        return row if row is not None and self._world.account.state[row] == wanted else None

    # -- batch

    def batch(self, call: Call) -> Answer:
        """`POST …/objects/deals/batch/read`."""
        body = call.json()
        inputs, history = body.get("inputs"), call.names(body, "propertiesWithHistory")
        if not isinstance(inputs, list):
            problem = "Some required fields were not set: [inputs]"
            raise bad_json(problem)
        most = HISTORY_LIMIT if history else LIST_LIMIT
        if len(inputs) > most:
            message = f"The maximum number of inputs supported in a batch request is {most}."
            raise bad_request(message)
        started = self._world.clock.ms()
        archived = call.query.flag(b"archived")
        asked = dict.fromkeys(_input_id(item) for item in inputs)
        found = {text: self._find(text, archived=archived) for text in asked}
        # The order of a batch is not the order of its inputs: recorded ones came reversed.
        hits = dict.fromkeys(row for row in reversed(found.values()) if row is not None)
        rows = np.array(list(hits), dtype=np.int64)
        plan = self._world.renderer.plan(call.names(body, "properties"))
        missing = [text for text, row in found.items() if row is None]
        deals = self._batch_deals(rows, plan, history, call, archived=archived)
        return self._batch_answer(deals, missing, started, call.route.version)

    def _batch_deals(
        self, rows: Ints, plan: Plan, history: tuple[str, ...], call: Call, *, archived: bool
    ) -> list[bytes]:
        if not history:
            return self._world.renderer.deals(rows, plan, archived=archived)
        return [
            orjson.dumps(self._full_body(row, plan, history, (), call, archived=archived))
            for row in rows.tolist()
        ]

    def _batch_answer(
        self, deals: list[bytes], missing: list[str], started: int, version: str
    ) -> Answer:
        tail: dict[str, Any] = {}
        status = HTTPStatus.OK
        if missing:
            # Doubtful: from 2026-09 on the specification lists no 207 for batch reads.
            status = HTTPStatus.OK if version == "2026-09" else HTTPStatus.MULTI_STATUS
            tail = {
                "numErrors": 1,
                "errors": [
                    {
                        "status": "error",
                        "category": "OBJECT_NOT_FOUND",
                        "message": "Could not get some DEAL objects, they may be deleted or not "
                        "exist. Check that ids are valid.",
                        "context": {"ids": missing},
                    }
                ],
            }
        tail["startedAt"] = iso_ms(started)
        tail["completedAt"] = iso_ms(self._world.clock.ms())
        head = b'{"status":"COMPLETE","results":[' + b",".join(deals) + b"],"
        return Answer(head + orjson.dumps(tail)[1:], status)


def _input_id(item: object) -> str:
    identity = item.get("id") if isinstance(item, dict) else None
    if identity is None:
        problem = "Some required fields were not set: [id]"
        raise bad_json(problem)
    return str(identity)
