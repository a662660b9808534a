"""The search endpoint: body to query, result rows to a page."""

from typing import Any, Final

import orjson

from hubspot_sandbox.account import LIVE
from hubspot_sandbox.endpoint import Answer, Call, World, is_number
from hubspot_sandbox.failures import bad_request, bad_search
from hubspot_sandbox.filters import read_groups
from hubspot_sandbox.search import WINDOW, SearchQuery

SEARCH_LIMIT: Final = 200
_LONGEST_QUERY: Final = 3_000


class SearchEndpoint:
    """`POST …/objects/deals/search`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def page(self, call: Call) -> Answer:
        """One page of a search."""
        body = call.json()
        limit = call.limit(body.get("limit"), most=SEARCH_LIMIT)
        offset = _offset(body.get("after"))
        if offset + limit > WINDOW:
            # Doubtful: the status is certain, the text is the endpoint's generic one.
            raise bad_search()
        result = self._world.searcher.find(self._read(body))
        kept = limit
        if call.page_fault and call.page_fault[0] in {"empty_page", "short_page"}:
            kept = min(limit, call.page_fault[1])
        rows = result.rows[offset : offset + kept]
        # Matched in the index, shown as they are now. Doubtful: that a deal archived since then
        # leaves a hole in its page.
        rows = rows[self._world.account.state[rows] == LIVE]
        plan = self._world.renderer.plan(call.names(body, "properties"))
        deals = self._world.renderer.deals(rows, plan, with_url=False)
        head = b'{"total":%d,"results":[%b]' % (result.total, b",".join(deals))
        after = _next_offset(call, offset, limit, result.total)
        if after is None:
            return Answer(head + b"}")
        # Search pages carry no link.
        return Answer(head + b',"paging":{"next":%b}}' % orjson.dumps({"after": str(after)}))

    def _read(self, body: dict[str, Any]) -> SearchQuery:
        text = str(body.get("query") or "")
        if len(text) > _LONGEST_QUERY:
            message = f"Query is too long: {len(text)} characters, {_LONGEST_QUERY} allowed"
            raise bad_request(message)
        groups = read_groups(body, self._world.catalog)
        sort, is_descending = _read_sort(body.get("sorts") or [])
        if self._world.catalog.find(sort) is None:
            raise bad_search()
        return SearchQuery(groups, text, sort, is_descending)


def _offset(after: object) -> int:
    """`after` of a search is a plain offset, as a number or as text."""
    if after is None or after == "":
        return 0
    text = str(after)
    if not is_number(text):
        message = f"Invalid paging offset: {text}"
        raise bad_request(message)
    return int(text)


def _next_offset(call: Call, offset: int, limit: int, total: int) -> int | None:
    kind, kept = call.page_fault or ("", limit)
    if kind == "cursor_loop":
        return offset
    # A short page continues behind what it showed; an empty one skips a whole page.
    following = offset + (kept if kind == "short_page" else limit)
    return following if following < total else None


def _read_sort(sorts: object) -> tuple[str, bool]:
    """The one sort rule, as an object or as `name` or `-name`; default oldest first."""
    if not isinstance(sorts, list):
        raise bad_search()
    if not sorts:
        return "createdate", False
    if len(sorts) > 1:
        # Doubtful: HubSpot documents one rule; what it answers to more is not recorded.
        message = "Only one sort is allowed"
        raise bad_request(message)
    [rule] = sorts
    if isinstance(rule, str):
        return rule.lstrip("-"), rule.startswith("-")
    if not isinstance(rule, dict) or not isinstance(rule.get("propertyName"), str):
        raise bad_search()
    direction = str(rule.get("direction") or "ASCENDING").upper()
    if direction not in {"ASCENDING", "DESCENDING"}:
        raise bad_search()
    return str(rule["propertyName"]), direction == "DESCENDING"
